from __future__ import annotations

import logging
import multiprocessing
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import func, select, text
from sqlalchemy.engine import make_url

from llm_service import store
from llm_service.core import ids
from llm_service.extensions import db
from llm_service.settings import Settings
from llm_service.store import requests, writer
from llm_service.store.engine import database_url
from llm_service.store.models import RequestRow
from llm_service.store.writer import Writer
from tests.store.conftest import KEY, row
from tests.support.postgres import Postgres
from tests.support.wait import wait_until

MakeWriter = Callable[..., Writer]


@pytest.fixture
def make_writer() -> Iterator[MakeWriter]:
    """Writers that end with the test, whatever became of their database."""
    made: list[Writer] = []

    def make(settings: Settings, **options: Any) -> Writer:
        made.append(Writer(database_url(settings), **options))
        return made[-1]

    yield make
    for item in made:
        item.close(0.5)


@pytest.fixture
def log_writer(app: Flask, settings: Settings, make_writer: MakeWriter) -> Writer:
    return make_writer(settings)


def stored_ids() -> set[str]:
    with db.engine.connect() as connection:
        return set(connection.scalars(select(RequestRow.id)))


def count() -> int:
    with db.engine.connect() as connection:
        return connection.scalar(select(func.count()).select_from(RequestRow)) or 0


def test_a_row_is_in_the_database_soon_and_as_it_was_put(app: Flask, log_writer: Writer) -> None:
    given = row(user="Zoë", cost_nanousd=2**62, created_at=datetime(2026, 5, 1, 12, tzinfo=UTC))
    assert log_writer.put(given) is True
    wait_until(lambda: log_writer.written == 1, 2)
    assert requests.recent() == [given]
    assert (log_writer.queued, log_writer.dropped) == (0, 0)


def test_close_writes_everything_and_later_rows_are_refused_and_counted(app: Flask, log_writer: Writer) -> None:
    given = {item["id"] for item in (row() for _ in range(777)) if log_writer.put(item)}
    assert log_writer.close(10) == 0
    assert stored_ids() == given
    assert log_writer.put(row()) is False
    assert (log_writer.written, log_writer.queued, log_writer.dropped) == (777, 0, 1)
    assert log_writer.close(1) == 0


def test_a_writer_that_was_never_used_opens_nothing(tmp_path: Path) -> None:
    threads = threading.active_count()
    unused = Writer(f"sqlite:///{tmp_path}/none.db")
    assert (unused.queued, unused.written, unused.dropped) == (0, 0, 0)
    assert unused.close(1) == 0
    assert threading.active_count() == threads
    assert list(tmp_path.iterdir()) == []


def test_20_000_rows_of_four_threads_arrive(app: Flask, log_writer: Writer) -> None:
    def put() -> None:
        for _ in range(5000):
            log_writer.put(row())

    threads = [threading.Thread(target=put) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert log_writer.close(40) == 0
    assert count() == log_writer.written == 20_000
    assert log_writer.dropped == 0


def test_the_same_row_twice_is_one_row(app: Flask, log_writer: Writer) -> None:
    given = row()
    log_writer.put(given)
    wait_until(lambda: log_writer.written == 1)
    log_writer.put({**given, "status": 500})
    assert log_writer.close(5) == 0
    assert [item["status"] for item in requests.recent()] == [200]


def test_nul_surrogates_and_overlong_names_are_made_storable(app: Flask, log_writer: Writer) -> None:
    log_writer.put(row(model_asked="a\x00b\ud800c" + "x" * 500, request_id="r" * 1000))
    assert log_writer.close(5) == 0
    (found,) = requests.recent()
    assert found["model_asked"].startswith("a\ufffdb\ufffdcx")
    assert found["model_asked"].endswith("x…")
    assert len(found["model_asked"]) == 200
    assert len(found["request_id"]) == 128


@pytest.mark.parametrize(
    "bad",
    [{"status": {"marker-7f3a": 1}}, {"created_at": "marker-7f3a"}, {"input_tokens": 2**70}, {"outcome": None}],
    ids=["of no type", "no time", "too big", "null"],
)
def test_a_poisoned_row_does_not_take_its_batch_along(
    app: Flask, log_writer: Writer, caplog: pytest.LogCaptureFixture, bad: dict[str, Any]
) -> None:
    poisoned = row(**bad)
    given = [row() for _ in range(60)]
    for item in (*given[:30], poisoned, *given[30:]):
        assert log_writer.put(item) is True
    assert log_writer.close(10) == 0
    assert stored_ids() == {item["id"] for item in given}
    assert (log_writer.written, log_writer.dropped) == (60, 1)
    told = [record.getMessage() for record in caplog.records if record.name.startswith("llm_service")]
    assert [poisoned["id"] in message for message in told] == [True]
    assert "marker-7f3a" not in caplog.text


@pytest.mark.parametrize("not_a_row", [{}, {"id": ""}, {"id": ids.new_id(), "prompt": "marker-7f3a"}, None, "text"])
def test_what_is_no_row_is_refused_and_never_raises(
    app: Flask, log_writer: Writer, caplog: pytest.LogCaptureFixture, not_a_row: Any
) -> None:
    assert log_writer.put(not_a_row) is False
    assert log_writer.dropped == 1
    assert len(caplog.records) == 1
    assert "marker-7f3a" not in caplog.text


def test_beyond_its_capacity_rows_are_dropped_counted_and_reported_once_a_second(
    settings: Settings, bare_app, make_writer: MakeWriter, caplog: pytest.LogCaptureFixture
) -> None:
    app = bare_app(settings)  # without tables: the rows have to wait
    waiting = make_writer(settings, capacity=100)
    taken = [waiting.put(row()) for _ in range(150)]
    assert taken == [True] * 100 + [False] * 50
    assert (waiting.queued, waiting.dropped) == (100, 50)
    assert len([record for record in caplog.records if "too many rows" in record.getMessage()]) == 1
    store.upgrade(app)
    wait_until(lambda: waiting.written == 100, 10, "rows put before the migration are written after it")
    with app.app_context():
        assert count() == 100


def test_close_ends_at_its_deadline_and_tells_what_was_not_written(
    settings: Settings, bare_app, make_writer: MakeWriter, caplog: pytest.LogCaptureFixture
) -> None:
    bare_app(settings)
    stuck = make_writer(settings)
    for _ in range(5):
        stuck.put(row())
    began = time.monotonic()
    assert stuck.close(0.5) == 5
    assert time.monotonic() - began < 3
    assert "5 rows were not written" in caplog.text


def test_a_locked_sqlite_loses_nothing(sqlite_settings: Settings, bare_app, make_writer: MakeWriter) -> None:
    app = bare_app(sqlite_settings)
    store.upgrade(app)
    other = sqlite3.connect(str(make_url(database_url(sqlite_settings)).database), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    locked = make_writer(sqlite_settings)
    given = {item["id"] for item in (row() for _ in range(300)) if locked.put(item)}
    time.sleep(0.7)  # longer than busy_timeout: the writer has failed at least once
    assert (locked.written, locked.queued) == (0, 300)
    other.execute("ROLLBACK")
    other.close()
    wait_until(lambda: locked.written == 300, 10)
    with app.app_context():
        assert stored_ids() == given


def test_close_waits_for_a_lock_to_go(sqlite_settings: Settings, bare_app, make_writer: MakeWriter) -> None:
    app = bare_app(sqlite_settings)
    store.upgrade(app)
    path = str(make_url(database_url(sqlite_settings)).database)
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    locked = make_writer(sqlite_settings)
    locked.put(row())
    timer = threading.Timer(1.0, lambda: other.execute("ROLLBACK"))
    timer.start()
    assert locked.close(20) == 0
    timer.join()
    other.close()


def test_an_sqlite_file_that_is_gone_is_an_outage_and_not_a_new_empty_file(
    sqlite_settings: Settings, make_writer: MakeWriter
) -> None:
    path = Path(str(make_url(database_url(sqlite_settings)).database))
    lost = make_writer(sqlite_settings)
    lost.put(row())
    assert lost.close(0.4) == 1
    assert not path.exists()


def test_postgresql_may_go_and_come_back(tmp_path: Path, bare_app, make_writer: MakeWriter) -> None:
    server = Postgres().start()
    try:
        settings = Settings(instance=tmp_path, secret_text=KEY.decode(), database_url=server.fresh_url())
        app = bare_app(settings)
        store.upgrade(app)
        with app.app_context():
            db.engine.dispose()
        patient = make_writer(settings)
        given = [row() for _ in range(30)]
        for item in given[:10]:
            patient.put(item)
        wait_until(lambda: patient.written == 10)
        server._server.stop()
        for item in given[10:20]:
            assert patient.put(item) is True
        time.sleep(1)
        assert (patient.written, patient.queued) == (10, 10)
        server._server.start()
        for item in given[20:]:
            patient.put(item)
        wait_until(lambda: patient.written == 30, 15)
        with app.app_context():
            assert stored_ids() == {item["id"] for item in given}
            db.engine.dispose()
        assert (patient.close(5), patient.dropped) == (0, 0)
    finally:
        server.remove()


def test_a_connection_cut_by_postgresql_loses_nothing(
    postgres: Postgres, postgres_settings: Settings, bare_app, make_writer: MakeWriter
) -> None:
    app = bare_app(postgres_settings)
    store.upgrade(app)
    cut = make_writer(postgres_settings)
    cut.put(row())
    wait_until(lambda: cut.written == 1)
    with app.app_context(), db.engine.connect() as connection:
        name = connection.scalar(text("SELECT current_database()"))
        postgres.disconnect_all(str(name))
        connection.invalidate()
    cut.put(row())
    assert cut.close(10) == 0
    with app.app_context():
        db.engine.dispose()
        assert count() == 2


def test_an_outage_is_told_once_and_so_is_its_end(
    settings: Settings, bare_app, make_writer: MakeWriter, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger=writer.__name__)
    app = bare_app(settings)
    waiting = make_writer(settings)
    waiting.put(row())
    wait_until(lambda: "does not take rows" in caplog.text, 10)
    store.upgrade(app)
    wait_until(lambda: "takes rows again" in caplog.text, 10)
    told = [record.getMessage() for record in caplog.records if record.name == writer.__name__]
    assert len(told) == 2


def _put_in_child(shared: Writer, ends: Any) -> None:
    ends.send((shared.queued, shared.written))
    for _ in range(5):
        shared.put(row(key_id="child234"))
    ends.send((shared.close(10), shared.written))
    os._exit(0)  # as a forked worker that must not run the parent's exit handlers


def test_a_forked_process_writes_its_own_rows_and_not_its_parents(app: Flask, log_writer: Writer) -> None:
    for _ in range(3):
        log_writer.put(row(key_id="parent23"))
    wait_until(lambda: log_writer.written == 3)
    db.engine.dispose()
    near, far = multiprocessing.Pipe()
    pid = os.fork()
    if pid == 0:
        try:
            _put_in_child(log_writer, far)
        finally:
            os._exit(1)
    assert near.poll(20)
    assert near.recv() == (0, 0)
    assert near.poll(20)
    assert near.recv() == (0, 5)
    assert os.waitpid(pid, 0)[1] == 0
    near.close()
    far.close()
    log_writer.put(row(key_id="parent23"))
    assert log_writer.close(10) == 0
    calls = {item.group: item.calls for item in requests.usage("key", since=datetime.now(UTC) - timedelta(hours=1))}
    assert calls == {"parent23": 4, "child234": 5}


def test_rows_are_written_at_exit_when_nobody_closes(app: Flask, settings: Settings) -> None:
    script = (
        "import sys; from llm_service.store.writer import Writer; from tests.store.conftest import row\n"
        "writer = Writer(sys.argv[1])\n"
        "for _ in range(50): writer.put(row())\n"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", script, database_url(settings)], check=True, timeout=30, cwd=root)
    assert count() == 50
