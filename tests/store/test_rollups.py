"""Sums per day are the sums of the rows: whoever writes them, however often, and after the rows are gone."""

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
from sqlalchemy import event, func, insert, select, text

from llm_service import store
from llm_service.extensions import db
from llm_service.settings import Settings
from llm_service.store import requests, retention, schema, writer
from llm_service.store.engine import database_url
from llm_service.store.models import RequestRow, UsageDay
from llm_service.store.sinks import sink_for
from llm_service.store.writer import Writer
from tests.store.conftest import row
from tests.support.wait import wait_until

NOON = datetime(2026, 5, 2, 12, tzinfo=UTC)
MOST = 2**63 - 1


def write(rows: Iterable[dict[str, Any]]) -> None:
    sink = sink_for(db.engine.url.render_as_string(hide_password=False))
    try:
        sink.write(list(rows))
    finally:
        sink.close()


def rolled_up() -> list[tuple[Any, ...]]:
    with db.engine.connect() as connection:
        return sorted(map(tuple, connection.execute(select(UsageDay.__table__)).all()))


def of_the_rows() -> list[tuple[Any, ...]]:
    """What ``usage_daily`` has to hold, added up here."""
    found: dict[tuple[Any, ...], list[Any]] = {}
    with db.engine.connect() as connection:
        rows = connection.execute(select(RequestRow.__table__)).mappings().all()
    for item in rows:
        labels = [item[name] or "" for name in ("key_id", "org", "user", "provider", "model_served")]
        cell = found.setdefault((item["created_at"].date(), *labels), [0, 0, 0, 0, None, 0])
        cell[0] += 1
        for place, name in enumerate(("input_tokens", "output_tokens", "cached_tokens"), 1):
            cell[place] += item[name] or 0
        if item["cost_nanousd"] is not None:
            cell[4] = (cell[4] or 0) + item["cost_nanousd"]
        cell[5] += item["cost_nanousd"] is None and item["outcome"] != "refused"
    return sorted((*group, *cell) for group, cell in found.items())


def some_rows(number: int, seed: int = 1) -> list[dict[str, Any]]:
    chance = random.Random(seed)
    return [
        row(
            created_at=NOON - timedelta(minutes=chance.randrange(10 * 24 * 60)),
            key_id=chance.choice(["aaaaaaaa", "bbbbbbbb"]),
            org=chance.choice([None, "acme"]),
            user=chance.choice([None, "Zoë"]),
            provider=chance.choice([None, "echo"]),
            model_served=chance.choice([None, "echo", "other"]),
            outcome=chance.choice(["ok", "refused", "aborted"]),
            input_tokens=chance.choice([None, 0, chance.randrange(10_000)]),
            cached_tokens=chance.choice([None, 7]),
            cost_nanousd=chance.choice([None, chance.randrange(10**12)]),
        )
        for _ in range(number)
    ]


def test_the_sums_per_day_are_those_of_the_rows(app: Flask) -> None:
    rows = some_rows(1500)
    for start in range(0, 1500, 300):
        write(rows[start : start + 300])
    assert len(rolled_up()) > 100
    assert rolled_up() == of_the_rows()


def test_a_row_counts_once_however_often_it_is_written(app: Flask) -> None:
    rows = some_rows(50)
    write(rows)
    write([*rows[25:], *some_rows(50, seed=2)])
    twice = row(cost_nanousd=3)
    write([twice, {**twice, "cost_nanousd": 5}])  # the first is kept, as a row and in the sums
    assert rolled_up() == of_the_rows()
    assert sum(cell[6] for cell in rolled_up()) == 101


def test_a_batch_that_fails_leaves_neither_rows_nor_sums(app: Flask) -> None:
    with pytest.raises(Exception):  # noqa: B017
        write([row(), row(outcome=None)])
    assert rolled_up() == of_the_rows() == []


def test_absurd_numbers_end_at_the_largest_integer_and_stop_nothing(app: Flask) -> None:
    absurd = {"created_at": NOON, "input_tokens": MOST, "cost_nanousd": MOST}
    write([row(**absurd), row(**absurd)])
    write([row(**absurd), row(created_at=NOON, key_id="other234", cost_nanousd=5, output_tokens=-3)])
    write([row(**{**absurd, "created_at": NOON - timedelta(days=1)})])
    totals = {item.group: (item.calls, item.input_tokens, item.cost_nanousd) for item in requests.usage("key")}
    assert totals == {"abcdefgh": (4, MOST, MOST), "other234": (1, 3, 5)}
    assert requests.usage("key", since=NOON - timedelta(hours=1))[0].input_tokens == MOST


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


def test_workers_that_write_the_same_rows_at_once_count_each_once(app: Flask, settings: Settings) -> None:
    rows = some_rows(3000)
    orders = [rows, rows[::-1], random.Random(3).sample(rows, len(rows))]
    workers = [start_writer(settings, order) for order in orders]
    for worker in workers:
        assert worker.wait(50) == 0
        assert worker.stdout
        worker.stdout.close()
    assert sum(cell[6] for cell in rolled_up()) == 3000
    assert rolled_up() == of_the_rows()


def test_a_writer_that_is_killed_and_one_that_repeats_its_rows_leave_exact_sums(app: Flask, settings: Settings) -> None:
    rows = some_rows(6000)
    for moment in (0.05, 0.2):
        worker = start_writer(settings, rows)
        assert worker.stdout
        worker.stdout.readline()
        time.sleep(moment)
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait(10)
        worker.stdout.close()
        assert rolled_up() == of_the_rows()
    again = Writer(database_url(settings))
    for item in rows:
        again.put(item)
    assert again.close(30) == 0
    assert sum(cell[6] for cell in rolled_up()) == 6000
    assert rolled_up() == of_the_rows()


def test_the_migration_rolls_up_the_rows_that_are_there(settings: Settings, bare_app) -> None:
    app = bare_app(settings)
    store.upgrade(app, "0001")
    with app.app_context():
        with db.engine.begin() as connection:
            connection.execute(insert(RequestRow), some_rows(2000))
            absurd = {"key_id": "absurd23", "created_at": NOON, "input_tokens": MOST, "cost_nanousd": MOST}
            connection.execute(insert(RequestRow), [row(**absurd), row(**absurd)])
        assert schema.current(db.engine) == "0001"
        store.upgrade(app)
        expected = [cell for cell in of_the_rows() if cell[1] != "absurd23"]
        assert [cell for cell in rolled_up() if cell[1] != "absurd23"] == expected
        assert requests.usage("key", key="absurd23")[0].cost_nanousd == MOST


def test_going_back_and_forth_between_the_migrations_keeps_keys_and_sums(app: Flask) -> None:
    write(some_rows(50))
    before = rolled_up()
    config = Config()
    config.set_main_option("script_location", str(schema.MIGRATIONS))
    command.downgrade(config, "0001")
    store.upgrade(app)
    assert rolled_up() == before


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
def test_usage_of_whole_days_does_not_read_the_log(app: Flask, by: Any) -> None:
    write(some_rows(20))
    midnight = NOON.replace(hour=0)
    with statements() as seen:
        assert requests.usage(by)
        assert requests.usage(by, since=midnight - timedelta(days=3))
        assert requests.usage(by, key="aaaaaaaa")
    assert seen
    assert [statement for statement, _ in seen if "requests" in statement] == []


def test_a_divided_first_day_is_read_by_an_index_and_never_by_a_scan(app: Flask) -> None:
    rows = [row(created_at=NOON - timedelta(minutes=number), key_id=f"key{number % 40}") for number in range(15_000)]
    for start in range(0, 15_000, 1000):
        write(rows[start : start + 1000])
    with db.engine.begin() as connection:
        connection.execute(text("ANALYZE"))
    with statements() as seen:
        requests.usage("model", since=NOON - timedelta(hours=30))
        requests.usage("key", since=NOON - timedelta(days=5, hours=3), key="key7")
    plans = [plan_of(*said) for said in seen if "requests" in said[0]]
    assert len(plans) == 4  # for each usage the oldest row, and those of the first day
    for plan in plans:
        assert "requests" in plan
        assert "ix_requests_" in plan
        assert "SCAN requests\n" not in plan + "\n"
        assert "Seq Scan on requests" not in plan


def test_since_is_exact_to_the_instant(app: Flask) -> None:
    write(row(created_at=NOON + timedelta(hours=hours), cost_nanousd=10 ** (hours + 20)) for hours in range(-20, -10))
    for hours in (-20, -15, -13, -11):
        (found,) = requests.usage("key", since=NOON + timedelta(hours=hours))
        assert (found.calls, found.cost_nanousd) == (-10 - hours, sum(10**n for n in range(hours + 20, 10)))
        assert [item.group for item in requests.usage("day", since=NOON + timedelta(hours=hours))][-1] == "2026-05-02"


def test_old_rows_go_in_whole_days_and_their_sums_stay(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "PAUSE_SECONDS", 0.0)
    write(some_rows(1400))
    before, by_key, by_day = rolled_up(), requests.usage("key"), requests.usage("day")
    border = retention.cutoff(4, NOON)
    assert border == datetime(2026, 4, 28, tzinfo=UTC)
    with db.engine.connect() as connection:
        old = connection.scalar(select(func.count()).where(RequestRow.created_at < border))
    assert old
    assert old > retention.BATCH
    assert retention.prune(border) == old
    assert retention.prune(border) == 0
    assert all(item["created_at"] >= border for item in requests.export())
    assert rolled_up() == before
    assert (requests.usage("key"), requests.usage("day")) == (by_key, by_day)
    # Of a day whose rows are gone only the whole is known.
    since = border - timedelta(hours=30)
    assert requests.usage("day", since=since) == requests.usage("day", since=since.replace(hour=0))


def test_the_writer_deletes_old_rows_when_it_may(
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


def test_without_a_retention_no_row_goes(app: Flask, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "PRUNE_FIRST", 0.01)
    write([row(created_at=datetime(2001, 1, 1, tzinfo=UTC))])
    keeping = Writer(database_url(settings))
    keeping.put(row())
    time.sleep(0.3)
    assert keeping.close(5) == 0
    assert len(list(requests.export())) == 2
    assert {item[0] for item in rolled_up()} == {date(2001, 1, 1), datetime.now(UTC).date()}


def test_a_prune_that_fails_is_told_and_stops_no_row(
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
