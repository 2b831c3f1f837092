from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from flask import Flask

from llm_service.settings import Settings
from llm_service.store import schema
from tests.cli.conftest import Commands

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("command", [["keys", "list"], ["requests", "list"], ["usage"], ["keys", "create", "--name=x"]])
def test_without_tables_a_command_says_how_to_create_them(bare_app: Flask, command: list[str]) -> None:
    failed = Commands(bare_app).run(*command, fails=1)
    assert "run `flask --app wsgi db upgrade`" in failed.stderr
    assert failed.stdout == ""


def test_an_upgrade_prints_the_revision_and_whether_it_changed_something(bare_app: Flask) -> None:
    flask = Commands(bare_app)
    assert flask.json("db", "upgrade") == {"revision": schema.HEAD, "changed": True}
    assert flask.json("db", "upgrade") == {"revision": schema.HEAD, "changed": False}
    assert f"already at revision {schema.HEAD}" in flask.run("db", "upgrade").stdout
    assert flask.json("keys", "list") == []


def test_the_other_commands_of_flask_migrate_work_and_our_upgrade_still_works_after_them(flask: Commands) -> None:
    flask.run("db", "current")
    flask.run("db", "downgrade", "base")
    assert flask.json("db", "upgrade", "0001") == {"revision": "0001", "changed": True}
    assert flask.json("db", "upgrade")["revision"] == schema.HEAD
    assert "upgrade" in flask.run("db", "--help").stdout


def test_an_error_about_an_unknown_revision_names_it(bare_app: Flask) -> None:
    assert "9999" in Commands(bare_app).run("db", "upgrade", "9999", fails=1).stderr


def test_the_sql_of_a_migration_can_be_printed_without_running_it(bare_app: Flask) -> None:
    flask = Commands(bare_app)
    assert "CREATE TABLE api_keys" in flask.run("db", "upgrade", "--sql").stdout
    assert flask.json("db", "upgrade")["changed"] is True


def test_the_database_is_upgraded_from_any_folder(settings: Settings, tmp_path: Path) -> None:
    environ = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "LLM_SERVICE_INSTANCE": str(settings.instance),
        "LLM_SERVICE_SECRET": str(settings.secret_text),
    }
    command = [sys.executable, "-m", "flask", "--app", "wsgi", "db", "upgrade", "--json"]
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f'{{"revision": "{schema.HEAD}", "changed": true}}\n'
