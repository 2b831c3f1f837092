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
from llm_service.store.tables import RequestRow
from llm_service.store.writer import Writer
from tests.store.conftest import KEY, row
from tests.support.postgres import Postgres
from tests.support.wait import wait_until

MakeWriter = Callable[..., Writer]


@pytest.fixture
def make_writer() -> Iterator[MakeWriter]:
    """Creates writers. They are closed at the end of the test, even if their database is gone."""
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


def test_a_row_is_soon_in_the_database_with_the_values_it_had(app: Flask, log_writer: Writer) -> None:
    given = row(user="Zoë", cost_nanousd=2**62, created_at=datetime(2026, 5, 1, 12, tzinfo=UTC))
    assert log_writer.put(given) is True
    wait_until(lambda: log_writer.written == 1, 2)
    assert requests.recent() == [given]
    assert (log_writer.queued, log_writer.dropped) == (0, 0)


def test_close_writes_everything_and_later_rows_are_rejected_and_counted(app: Flask, log_writer: Writer) -> None:
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


def test_20_000_rows_of_four_threads_are_all_written(app: Flask, log_writer: Writer) -> None:
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


def test_nul_surrogates_and_overlong_names_are_changed_so_that_they_can_be_stored(
    app: Flask, log_writer: Writer
) -> None:
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
    ids=["wrong type", "not a time", "too big", "null"],
)
def test_a_bad_row_does_not_prevent_the_rest_of_its_batch_from_being_written(
    app: Flask, log_writer: Writer, caplog: pytest.LogCaptureFixture, bad: dict[str, Any]
) -> None:
    bad_row = row(**bad)
    given = [row() for _ in range(60)]
    for item in (*given[:30], bad_row, *given[30:]):
        assert log_writer.put(item) is True
    assert log_writer.close(10) == 0
    assert stored_ids() == {item["id"] for item in given}
    assert (log_writer.written, log_writer.dropped) == (60, 1)
    logged = [record.getMessage() for record in caplog.records if record.name.startswith("llm_service")]
    assert [bad_row["id"] in message for message in logged] == [True]
    assert "marker-7f3a" not in caplog.text


@pytest.mark.parametrize("not_a_row", [{}, {"id": ""}, {"id": ids.new_id(), "prompt": "marker-7f3a"}, None, "text"])
def test_a_value_that_is_not_a_row_is_rejected_without_an_exception(
    app: Flask, log_writer: Writer, caplog: pytest.LogCaptureFixture, not_a_row: Any
) -> None:
    assert log_writer.put(not_a_row) is False
    assert log_writer.dropped == 1
    assert len(caplog.records) == 1
    assert "marker-7f3a" not in caplog.text


def test_rows_beyond_the_capacity_are_dropped_counted_and_logged_once_a_second(
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


def test_close_ends_at_its_deadline_and_logs_how_many_rows_were_not_written(
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


def test_no_row_is_lost_while_sqlite_is_locked(sqlite_settings: Settings, bare_app, make_writer: MakeWriter) -> None:
    app = bare_app(sqlite_settings)
    store.upgrade(app)
    other = sqlite3.connect(str(make_url(database_url(sqlite_settings)).database), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    locked = make_writer(sqlite_settings)
    given = {item["id"] for item in (row() for _ in range(300)) if locked.put(item)}
    time.sleep(0.7)  # longer than busy_timeout, so the writer has failed at least once
    assert (locked.written, locked.queued) == (0, 300)
    other.execute("ROLLBACK")
    other.close()
    wait_until(lambda: locked.written == 300, 10)
    with app.app_context():
        assert stored_ids() == given


def test_close_waits_until_a_lock_is_released(sqlite_settings: Settings, bare_app, make_writer: MakeWriter) -> None:
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


def test_a_missing_sqlite_file_is_an_outage_and_is_not_created(
    sqlite_settings: Settings, make_writer: MakeWriter
) -> None:
    path = Path(str(make_url(database_url(sqlite_settings)).database))
    lost = make_writer(sqlite_settings)
    lost.put(row())
    assert lost.close(0.4) == 1
    assert not path.exists()


def test_rows_are_kept_while_postgresql_is_stopped(tmp_path: Path, bare_app, make_writer: MakeWriter) -> None:
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


def test_no_row_is_lost_when_postgresql_closes_the_connection(
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


def test_an_outage_and_its_end_are_each_logged_once(
    settings: Settings, bare_app, make_writer: MakeWriter, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger=writer.__name__)
    app = bare_app(settings)
    waiting = make_writer(settings)
    waiting.put(row())
    wait_until(lambda: "accepts no rows" in caplog.text, 10)
    store.upgrade(app)
    wait_until(lambda: "accepts rows again" in caplog.text, 10)
    logged = [record.getMessage() for record in caplog.records if record.name == writer.__name__]
    assert len(logged) == 2


def _put_in_child(shared: Writer, ends: Any) -> None:
    ends.send((shared.queued, shared.written))
    for _ in range(5):
        shared.put(row(key_id="child234"))
    ends.send((shared.close(10), shared.written))
    os._exit(0)  # like a forked worker, it must not run the parent's exit handlers


def test_a_forked_process_writes_its_own_rows_and_not_its_parent_s(app: Flask, log_writer: Writer) -> None:
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


def test_rows_are_written_at_exit_if_the_writer_was_not_closed(app: Flask, settings: Settings) -> None:
    script = (
        "import sys; from llm_service.store.writer import Writer; from tests.store.conftest import row\n"
        "writer = Writer(sys.argv[1])\n"
        "for _ in range(50): writer.put(row())\n"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", script, database_url(settings)], check=True, timeout=30, cwd=root)
    assert count() == 50
