from __future__ import annotations

import logging
import sqlite3
import threading
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from llm_service.extensions import db
from llm_service.settings import Settings, SettingsError
from llm_service.store.engine import database_url, engine_options, options_for, reading


def test_a_relative_sqlite_path_is_resolved_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    url = database_url(Settings(database_url="sqlite:///data/log.db"))
    assert make_url(url).database == str(tmp_path / "data" / "log.db")


@pytest.mark.parametrize(
    "url",
    ["sqlite://", "sqlite:///:memory:", "sqlite:///file:x?mode=memory&uri=true", "mysql://u:pw@h/d", "://pw", "x://"],
)
def test_the_error_about_an_unsupported_database_names_the_setting(url: str) -> None:
    with pytest.raises(SettingsError, match="DATABASE_URL") as failure:
        engine_options(Settings(database_url=url))
    assert "pw" not in str(failure.value)


def test_postgresql_means_psycopg_and_keeps_its_password() -> None:
    url = make_url(database_url(Settings(database_url="postgresql://u:secret@h:5/d")))
    assert (url.drivername, url.password, url.port) == ("postgresql+psycopg", "secret", 5)


def test_time_outs_in_the_url_override_ours() -> None:
    url = make_url("postgresql+psycopg://h/d?connect_timeout=60&options=-c%20statement_timeout%3D9")
    arguments = options_for(url)["connect_args"]
    assert "connect_timeout" not in arguments
    assert arguments["options"].endswith("-c statement_timeout=9")


def test_an_error_never_shows_the_parameters(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(DBAPIError) as failure, db.engine.connect() as connection:
        connection.execute(text("SELECT * FROM nowhere WHERE x = :x"), {"x": "marker-7f3a"})
    assert "marker-7f3a" not in str(failure.value)
    assert "marker-7f3a" not in caplog.text


def test_sqlite_is_in_wal_with_a_short_busy_timeout(sqlite_settings: Settings, bare_app) -> None:
    with bare_app(sqlite_settings).app_context(), db.engine.connect() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "busy_timeout", "synchronous")
        }
    assert pragmas == {"journal_mode": "wal", "busy_timeout": 250, "synchronous": 1}


def test_postgresql_has_time_outs_and_another_statement_timeout_lasts_one_transaction(
    postgres_settings: Settings, bare_app
) -> None:
    def timeout(connection) -> str:
        return connection.exec_driver_sql("SHOW statement_timeout").scalar()

    with bare_app(postgres_settings).app_context():
        with reading(db.engine, 600) as connection:
            assert timeout(connection) == "10min"
        with reading(db.engine) as connection:
            assert timeout(connection) == "5s"
            assert connection.exec_driver_sql("SHOW lock_timeout").scalar() == "2s"


def test_opening_a_new_sqlite_file_waits_while_another_process_switches_it_to_wal(
    sqlite_settings: Settings, bare_app
) -> None:
    path = make_url(database_url(sqlite_settings)).database
    assert path
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    timer = threading.Timer(0.4, lambda: other.execute("COMMIT"))
    timer.start()
    with bare_app(sqlite_settings).app_context(), db.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    timer.join()
    other.close()
