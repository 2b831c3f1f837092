"""The sums per day equal the sums of the rows, whichever process writes them, how often, and after rows are deleted."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from flask import Flask
from sqlalchemy import event, func, insert, inspect, select, text

from llm_service import store
from llm_service.extensions import db
from llm_service.settings import Settings
from llm_service.store import requests, retention, schema, writer
from llm_service.store.engine import database_url
from llm_service.store.row_inserts import sink_for
from llm_service.store.tables import RequestRow, UsageDay
from llm_service.store.writer import Writer
from tests.store.conftest import row
from tests.support.wait import wait_until

NOON = datetime(2026, 5, 2, 12, tzinfo=UTC)
MAX = 2**63 - 1


def write(rows: Iterable[dict[str, Any]]) -> None:
    sink = sink_for(db.engine.url.render_as_string(hide_password=False))
    try:
        sink.write(list(rows))
    finally:
        sink.close()


def stored_sums() -> list[tuple[Any, ...]]:
    with db.engine.connect() as connection:
        return sorted(map(tuple, connection.execute(select(UsageDay.__table__)).all()))


def sums_of_rows() -> list[tuple[Any, ...]]:
    """The rows that ``usage_daily`` must contain, computed here from the log."""
    found: dict[tuple[Any, ...], list[Any]] = {}
    with db.engine.connect() as connection:
        rows = connection.execute(select(RequestRow.__table__)).mappings().all()
    for item in rows:
        labels = [item[name] or "" for name in ("key_id", "org", "user", "provider", "model_served")]
        cell = found.setdefault((item["created_at"].date(), *labels), [0, 0, 0, 0, None, 0])
        cell[0] += 1
        for index, name in enumerate(("input_tokens", "output_tokens", "cached_tokens"), 1):
            cell[index] += item[name] or 0
        if item["cost_nanousd"] is not None:
            cell[4] = (cell[4] or 0) + item["cost_nanousd"]
        cell[5] += item["cost_nanousd"] is None and item["outcome"] != "refused"
    return sorted((*group, *cell) for group, cell in found.items())


def some_rows(number: int, seed: int = 1) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    return [
        row(
            created_at=NOON - timedelta(minutes=rng.randrange(10 * 24 * 60)),
            key_id=rng.choice(["aaaaaaaa", "bbbbbbbb"]),
            org=rng.choice([None, "acme"]),
            user=rng.choice([None, "Zoë"]),
            provider=rng.choice([None, "echo"]),
            model_served=rng.choice([None, "echo", "other"]),
            outcome=rng.choice(["ok", "refused", "aborted"]),
            input_tokens=rng.choice([None, 0, rng.randrange(10_000)]),
            cached_tokens=rng.choice([None, 7]),
            cost_nanousd=rng.choice([None, rng.randrange(10**12)]),
        )
        for _ in range(number)
    ]


def test_the_sums_per_day_equal_the_sums_of_the_rows(app: Flask) -> None:
    rows = some_rows(1500)
    for start in range(0, 1500, 300):
        write(rows[start : start + 300])
    assert len(stored_sums()) > 100
    assert stored_sums() == sums_of_rows()


def test_a_row_is_counted_once_however_often_it_is_written(app: Flask) -> None:
    rows = some_rows(50)
    write(rows)
    write([*rows[25:], *some_rows(50, seed=2)])
    twice = row(cost_nanousd=3)
    write([twice, {**twice, "cost_nanousd": 5}])  # the first one is kept, in the log and in the sums
    assert stored_sums() == sums_of_rows()
    assert sum(cell[6] for cell in stored_sums()) == 101


def test_a_failed_batch_leaves_neither_rows_nor_sums(app: Flask) -> None:
    with pytest.raises(Exception):  # noqa: B017
        write([row(), row(outcome=None)])
    assert stored_sums() == sums_of_rows() == []


def test_sums_of_absurd_numbers_stop_at_the_largest_integer_without_an_error(app: Flask) -> None:
    absurd = {"created_at": NOON, "input_tokens": MAX, "cost_nanousd": MAX}
    write([row(**absurd), row(**absurd)])
    write([row(**absurd), row(created_at=NOON, key_id="other234", cost_nanousd=5, output_tokens=-3)])
    write([row(**{**absurd, "created_at": NOON - timedelta(days=1)})])
    totals = {item.group: (item.calls, item.input_tokens, item.cost_nanousd) for item in requests.usage("key")}
    assert totals == {"abcdefgh": (4, MAX, MAX), "other234": (1, 3, 5)}
    assert requests.usage("key", since=NOON - timedelta(hours=1))[0].input_tokens == MAX


WRITE = """
import json, sys
from datetime import datetime
from llm_service.store.writer import Writer
writer = Writer(sys.argv[1])
rows = [dict(item, created_at=datetime.fromisoformat(item["created_at"])) for item in json.load(sys.stdin)]
print("begun", flush=True)
for item in rows:
    writer.put(item)
assert writer.close(40) == 0
"""


def start_writer(settings: Settings, rows: list[dict[str, Any]]) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITE, database_url(settings)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdin
    process.stdin.write(json.dumps(rows, default=lambda value: value.isoformat()))
    process.stdin.close()
    return process


def test_concurrent_writers_of_the_same_rows_count_each_row_once(app: Flask, settings: Settings) -> None:
    rows = some_rows(3000)
    orders = [rows, rows[::-1], random.Random(3).sample(rows, len(rows))]
    workers = [start_writer(settings, order) for order in orders]
    for worker in workers:
        assert worker.wait(50) == 0
        assert worker.stdout
        worker.stdout.close()
    assert sum(cell[6] for cell in stored_sums()) == 3000
    assert stored_sums() == sums_of_rows()


def test_sums_are_exact_after_a_writer_is_killed_and_another_repeats_its_rows(app: Flask, settings: Settings) -> None:
    rows = some_rows(6000)
    for moment in (0.05, 0.2):
        worker = start_writer(settings, rows)
        assert worker.stdout
        worker.stdout.readline()
        time.sleep(moment)
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait(10)
        worker.stdout.close()
        assert stored_sums() == sums_of_rows()
    again = Writer(database_url(settings))
    for item in rows:
        again.put(item)
    assert again.close(30) == 0
    assert sum(cell[6] for cell in stored_sums()) == 6000
    assert stored_sums() == sums_of_rows()


def test_the_migration_adds_up_the_existing_rows(settings: Settings, bare_app) -> None:
    app = bare_app(settings)
    store.upgrade(app, "0001")
    with app.app_context():
        with db.engine.begin() as connection:
            absurd = {"key_id": "absurd23", "created_at": NOON, "input_tokens": MAX, "cost_nanousd": MAX}
            rows = [*some_rows(2000), row(**absurd), row(**absurd)]
            later = set(rows[0]) - {column["name"] for column in inspect(connection).get_columns("requests")}
            old = [{name: value for name, value in item.items() if name not in later} for item in rows]
            connection.execute(insert(RequestRow), old)
        assert schema.current(db.engine) == "0001"
        store.upgrade(app)
        expected = [cell for cell in sums_of_rows() if cell[1] != "absurd23"]
        assert [cell for cell in stored_sums() if cell[1] != "absurd23"] == expected
        assert requests.usage("key", key="absurd23")[0].cost_nanousd == MAX


def test_a_downgrade_and_an_upgrade_keep_the_sums(app: Flask) -> None:
    write(some_rows(50))
    before = stored_sums()
    config = Config()
    config.set_main_option("script_location", str(schema.MIGRATIONS))
    command.downgrade(config, "0001")
    store.upgrade(app)
    assert stored_sums() == before


@contextmanager
def statements() -> Iterator[list[tuple[str, Any]]]:
    seen: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        seen.append((statement, parameters))

    event.listen(db.engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(db.engine, "before_cursor_execute", note)


def plan_of(statement: str, parameters: Any) -> str:
    explain = "EXPLAIN QUERY PLAN " if db.engine.dialect.name == "sqlite" else "EXPLAIN "
    with db.engine.connect() as connection:
        return "\n".join(str(tuple(line)) for line in connection.exec_driver_sql(explain + statement, parameters))


@pytest.mark.parametrize("by", requests.BY)
def test_usage_of_whole_days_does_not_read_rows(app: Flask, by: Any) -> None:
    write(some_rows(20))
    midnight = NOON.replace(hour=0)
    with statements() as seen:
        assert requests.usage(by)
        assert requests.usage(by, since=midnight - timedelta(days=3))
        assert requests.usage(by, key="aaaaaaaa")
    assert seen
    assert [statement for statement, _ in seen if "requests" in statement] == []


def test_a_partial_first_day_is_read_with_an_index_and_never_with_a_scan(app: Flask) -> None:
    rows = [row(created_at=NOON - timedelta(minutes=number), key_id=f"key{number % 40}") for number in range(15_000)]
    for start in range(0, 15_000, 1000):
        write(rows[start : start + 1000])
    with db.engine.begin() as connection:
        connection.execute(text("ANALYZE"))
    with statements() as seen:
        requests.usage("model", since=NOON - timedelta(hours=30))
        requests.usage("key", since=NOON - timedelta(days=5, hours=3), key="key7")
    plans = [plan_of(*executed) for executed in seen if "requests" in executed[0]]
    assert len(plans) == 4  # each usage query reads the oldest row and the rows of the first day
    for plan in plans:
        assert "requests" in plan
        assert "ix_requests_" in plan
        assert "SCAN requests\n" not in plan + "\n"
        assert "Seq Scan on requests" not in plan


def test_since_is_exact_within_a_day(app: Flask) -> None:
    write(row(created_at=NOON + timedelta(hours=hours), cost_nanousd=10 ** (hours + 20)) for hours in range(-20, -10))
    for hours in (-20, -15, -13, -11):
        (found,) = requests.usage("key", since=NOON + timedelta(hours=hours))
        assert (found.calls, found.cost_nanousd) == (-10 - hours, sum(10**n for n in range(hours + 20, 10)))
        assert [item.group for item in requests.usage("day", since=NOON + timedelta(hours=hours))][-1] == "2026-05-02"


def test_old_rows_are_deleted_in_whole_days_and_their_sums_stay(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "PAUSE_SECONDS", 0.0)
    write(some_rows(1400))
    before, by_key, by_day = stored_sums(), requests.usage("key"), requests.usage("day")
    border = retention.cutoff(4, NOON)
    assert border == datetime(2026, 4, 28, tzinfo=UTC)
    with db.engine.connect() as connection:
        old = connection.scalar(select(func.count()).where(RequestRow.created_at < border))
    assert old
    assert old > retention.BATCH
    assert retention.prune(border) == old
    assert retention.prune(border) == 0
    assert all(item["created_at"] >= border for item in requests.export())
    assert stored_sums() == before
    assert (requests.usage("key"), requests.usage("day")) == (by_key, by_day)
    # If the rows of a day are deleted, only the sum of the whole day is known.
    since = border - timedelta(hours=30)
    assert requests.usage("day", since=since) == requests.usage("day", since=since.replace(hour=0))


def test_the_writer_deletes_old_rows_if_a_retention_is_set(
    app: Flask, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "PRUNE_FIRST", 0.1)
    write(row(created_at=datetime.now(UTC) - timedelta(days=40)) for _ in range(retention.BATCH + 10))
    pruning = Writer(database_url(settings), retention_days=30)
    fresh = row()
    pruning.put(fresh)
    wait_until(lambda: [item["id"] for item in requests.export()] == [fresh["id"]], 10)
    assert sum(item.calls for item in requests.usage("key")) == retention.BATCH + 11
    pruning.put(row())
    assert (pruning.close(5), pruning.written, pruning.dropped) == (0, 2, 0)


def test_without_a_retention_no_row_is_deleted(app: Flask, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "PRUNE_FIRST", 0.01)
    write([row(created_at=datetime(2001, 1, 1, tzinfo=UTC))])
    keeping = Writer(database_url(settings))
    keeping.put(row())
    time.sleep(0.3)
    assert keeping.close(5) == 0
    assert len(list(requests.export())) == 2
    assert {item[0] for item in stored_sums()} == {date(2001, 1, 1), datetime.now(UTC).date()}


def test_a_failed_deletion_is_logged_and_stops_no_row(
    app: Flask, settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(writer, "PRUNE_FIRST", 1.0)
    going = Writer(database_url(settings), retention_days=1)
    going.put(row())
    wait_until(lambda: going.written == 1, 5)
    with db.engine.begin() as connection:
        connection.execute(text("ALTER TABLE requests RENAME TO elsewhere"))
    wait_until(lambda: "old rows were not deleted" in caplog.text, 5)
    with db.engine.begin() as connection:
        connection.execute(text("ALTER TABLE elsewhere RENAME TO requests"))
    going.put(row())
    assert (going.close(5), going.written, going.dropped) == (0, 2, 0)
