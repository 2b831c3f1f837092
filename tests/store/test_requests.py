from __future__ import annotations

import itertools
import threading
import tracemalloc
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask

from llm_service.extensions import db
from llm_service.store import requests
from llm_service.store.requests import Sums
from llm_service.store.row_inserts import sink_for
from tests.store.conftest import row

NOW = datetime.now(UTC).replace(microsecond=123456)


def add(rows: Iterable[dict[str, Any]]) -> None:
    """Write rows as the log writer does."""
    sink = sink_for(db.engine.url.render_as_string(hide_password=False))
    sink.write(list(rows))
    sink.close()


def ids(rows: Iterable[dict[str, Any]]) -> list[str]:
    return [item["id"] for item in rows]


def test_rows_are_returned_newest_first_with_their_values(app: Flask) -> None:
    given = [row(created_at=NOW - timedelta(seconds=second), user="Zoë") for second in range(3)]
    add(reversed(given))
    found = requests.recent(2)
    assert ids(found) == ids(given[:2])
    assert {name: value for name, value in found[0].items() if name in given[0]} == given[0]
    assert found[0]["created_at"].tzinfo is UTC
    assert tuple(found[0]) == requests.COLUMNS


def test_rows_are_selected_by_time_key_and_outcome(app: Flask) -> None:
    old = row(created_at=NOW - timedelta(hours=2))
    refused = row(created_at=NOW - timedelta(minutes=1), outcome="refused")
    other = row(created_at=NOW, key_id="other234")
    add([old, refused, other])
    assert ids(requests.recent(since=NOW - timedelta(hours=1))) == ids([other, refused])
    assert ids(requests.recent(key="other234")) == ids([other])
    assert ids(requests.recent(outcome="refused")) == ids([refused])
    assert ids(requests.export(since=NOW - timedelta(hours=1))) == ids([refused, other])
    assert ids(requests.export(key="abcdefgh", outcome="ok")) == ids([old])


def test_an_export_does_not_load_all_rows(app: Flask) -> None:
    add(row(created_at=NOW + timedelta(milliseconds=number)) for number in range(6000))
    rows = requests.export()
    first = next(rows)  # loads modules and buffers that must not be measured
    tracemalloc.start()
    count = sum(1 for _ in rows)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 5999
    assert first["created_at"] == NOW
    assert peak < 8 * 2**20  # all 6,000 rows at once take more than 20 MB


def test_an_export_that_is_stopped_early_returns_its_connection(app: Flask) -> None:
    add(row() for _ in range(2500))
    rows = requests.export()
    next(rows)
    rows.close()  # type: ignore[attr-defined]
    assert db.engine.pool.checkedout() == 0  # type: ignore[attr-defined]


def test_a_follower_sees_the_last_rows_and_then_each_new_row_once(app: Flask) -> None:
    before = [row(created_at=NOW - timedelta(seconds=10 - number)) for number in range(4)]
    add(before)
    rows = requests.follow(last=2, every=0.01)
    assert ids(itertools.islice(rows, 2)) == ids(before[2:])
    new = row(created_at=datetime.now(UTC))
    # This call began before all the others and ended only now. It must not be missed because of its early date.
    slow = row(created_at=datetime.now(UTC) - timedelta(seconds=90), latency_ms=90_000)
    add([new, slow])
    assert ids(itertools.islice(rows, 2)) == ids([slow, new])
    last = row(created_at=datetime.now(UTC), key_id="other234")
    add([last])
    assert next(rows)["id"] == last["id"]


def test_a_follower_sees_calls_that_took_many_minutes(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "_FAR_EVERY", 0.05)
    long_ago = row(created_at=datetime.now(UTC) - timedelta(minutes=20), latency_ms=100)
    add([long_ago])
    rows = requests.follow(last=0, every=0.01)
    sent = row(created_at=datetime.now(UTC))
    slow = row(created_at=datetime.now(UTC) - timedelta(minutes=20), latency_ms=20 * 60_000)

    def write() -> None:
        with app.app_context():
            add([sent, slow])

    # The generator starts with the first next(); the rows are written while it waits.
    timer = threading.Timer(0.3, write)
    timer.start()
    assert set(ids(itertools.islice(rows, 2))) == {sent["id"], slow["id"]}
    timer.join()


def test_usage_is_summed_per_key_org_user_model_and_day(app: Flask) -> None:
    noon = NOW.replace(hour=12)
    add(
        [
            row(created_at=noon, org="a", user="u"),
            row(created_at=noon, org="a", user="v", model_served="other", cached_tokens=2),
            row(created_at=noon - timedelta(days=1), key_id="other234", org="b", cost_nanousd=10**15),
        ]
    )
    big = Sums("other234", 1, 3, 5, 0, 10**15, 0)
    assert requests.usage("key") == [big, Sums("abcdefgh", 2, 6, 10, 2, 14, 0)]
    assert requests.usage("key", key="abcdefgh") == [Sums("abcdefgh", 2, 6, 10, 2, 14, 0)]
    assert [(item.group, item.calls) for item in requests.usage("org")] == [("b", 1), ("a", 2)]
    assert {item.group for item in requests.usage("user")} == {"u", "v", None}
    assert [(item.group, item.calls) for item in requests.usage("model")] == [("echo/echo", 2), ("echo/other", 1)]
    days = [(noon - timedelta(days=1)).strftime("%Y-%m-%d"), noon.strftime("%Y-%m-%d")]
    assert [(item.group, item.calls) for item in requests.usage("day")] == [(days[0], 1), (days[1], 2)]
    assert [item.group for item in requests.usage("day", since=noon)] == days[1:]
    with pytest.raises(ValueError, match="key, org, user, model, day"):
        requests.usage("digest")  # type: ignore[arg-type]


def test_a_day_is_a_day_in_utc(app: Flask) -> None:
    add(
        [
            row(created_at=datetime(2026, 5, 1, 23, 59, 59, 999999, UTC)),
            row(created_at=datetime(2026, 5, 2, tzinfo=UTC)),
        ]
    )
    assert [item.group for item in requests.usage("day")] == ["2026-05-01", "2026-05-02"]


def test_an_unknown_cost_is_never_counted_as_0(app: Flask) -> None:
    add(
        [
            row(key_id="unknown2", cost_nanousd=None),
            row(key_id="mixed234", cost_nanousd=None),
            row(key_id="mixed234", cost_nanousd=4),
            row(key_id="refused2", cost_nanousd=None, outcome="refused", input_tokens=None, output_tokens=None),
        ]
    )
    costs = {item.group: (item.cost_nanousd, item.unpriced_calls) for item in requests.usage("key")}
    assert costs == {"unknown2": (None, 1), "mixed234": (4, 1), "refused2": (0, 0)}


def test_an_empty_log_has_no_usage_and_no_rows(app: Flask) -> None:
    assert requests.usage("model") == []
    assert requests.recent() == []
    assert list(requests.export()) == []
