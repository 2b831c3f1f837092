from __future__ import annotations

import csv
import io
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import IO

import pytest
from flask import Flask

from llm_service.settings import Settings
from llm_service.store.requests import COLUMNS
from tests.cli.conftest import Commands, Rows
from tests.store.conftest import row

Write = Callable[[Rows], None]
ROOT = Path(__file__).parents[2]
NOW = datetime.now(UTC).replace(microsecond=123000)


def ids(rows: Rows) -> list[str]:
    return [item["id"] for item in rows]


def test_the_list_has_the_documented_columns_newest_first(flask: Commands, write: Write) -> None:
    given = [row(created_at=NOW - timedelta(minutes=minute), user="Zoë") for minute in range(3)]
    write(given)
    rows = flask.json("requests", "list", "--limit", "2")
    assert ids(rows) == ids(given[:2])
    assert tuple(rows[0]) == COLUMNS
    assert rows[0]["created_at"] == NOW.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    assert (rows[0]["user"], rows[0]["ttft_ms"], rows[0]["stream"]) == ("Zoë", None, False)


def test_the_table_has_a_line_per_call_with_its_whole_id(flask: Commands, write: Write) -> None:
    given = row(cost_nanousd=1_500_000, model_served="x" * 190)
    unknown = row(cost_nanousd=None, created_at=NOW - timedelta(days=1))
    write([given, unknown])
    first, second = flask.run("requests", "list").stdout.splitlines()[1:]
    assert given["id"] in first
    assert "$0.001500" in first
    assert "$" not in second


def test_calls_are_selected_by_key_name_outcome_and_time(flask: Commands, write: Write) -> None:
    key = flask.json("keys", "create", "--name", "ci")
    of_key = row(key_id=key["id"])
    refused = row(outcome="refused", created_at=NOW - timedelta(hours=3))
    of_environment = row(key_id="env-12ab34cd", created_at=NOW - timedelta(days=2))
    write([of_key, refused, of_environment])
    for reference in ("ci", key["id"], key["key"]):
        assert ids(flask.json("requests", "list", "--key", reference)) == [of_key["id"]]
    assert ids(flask.json("requests", "list", "--key", "env-12ab34cd")) == [of_environment["id"]]
    assert ids(flask.json("requests", "list", "--outcome", "refused")) == [refused["id"]]
    assert ids(flask.json("requests", "list", "--since", "1d")) == ids([of_key, refused])
    since = (NOW - timedelta(hours=1)).isoformat()
    assert ids(flask.json("requests", "list", "--since", since)) == [of_key["id"]]
    assert flask.run("requests", "list", "--outcome", "fine", fails=2).stdout == ""
    assert "--since" in flask.run("requests", "list", "--since", "tomorrow", fails=2).stderr


def test_a_name_that_two_keys_have_selects_neither(flask: Commands) -> None:
    made = [flask.json("keys", "create", "--name", name)["id"] for name in ("same", "other")]
    flask.run("keys", "update", made[1], "--name", "same")
    assert made[1] in flask.run("requests", "list", "--key", "same", fails=1).stderr


def test_json_lines_are_exported_oldest_first(flask: Commands, write: Write) -> None:
    now = datetime.now(UTC)  # not NOW, the time of the import: --since counts from the time of the command
    given = [row(created_at=now - timedelta(minutes=minute)) for minute in range(3)]
    write(given)
    for arguments in (["--format", "jsonl"], [], ["--json"], ["--json", "--format", "csv"]):
        lines = flask.run("requests", "export", *arguments).stdout.splitlines()
        assert ids([json.loads(line) for line in lines]) == ids(given)[::-1]
    recent = flask.run("requests", "export", "--since", "90s").stdout.splitlines()
    assert len(recent) in (1, 2)


def test_csv_has_the_columns_and_nothing_a_spreadsheet_would_run(flask: Commands, write: Write) -> None:
    attacks = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "  =1", "\r=1"]
    write([row(model_asked=text, created_at=NOW + timedelta(seconds=n)) for n, text in enumerate(attacks)])
    write([row(model_asked='a,"b"\nc', created_at=NOW + timedelta(minutes=1), cost_nanousd=None)])
    rows = list(csv.DictReader(io.StringIO(flask.run("requests", "export", "--format", "csv").stdout, newline="")))
    assert tuple(rows[0]) == COLUMNS
    assert [item["model_asked"] for item in rows[:-1]] == ["'" + text for text in attacks]
    assert rows[-1]["model_asked"] == 'a,"b"\nc'
    assert (rows[-1]["cost_nanousd"], rows[-1]["usage_exact"], rows[0]["cost_nanousd"]) == ("", "true", "7")
    assert rows[0]["created_at"].endswith("Z")


def test_an_export_of_an_empty_log_is_a_header_or_nothing(flask: Commands) -> None:
    assert flask.run("requests", "export", "--format", "csv").stdout.split(",")[0] == "id"
    assert flask.run("requests", "export").stdout == ""


def test_escape_codes_in_a_name_are_not_sent_to_the_terminal(flask: Commands, write: Write) -> None:
    write([row(model_served=None, model_asked="\x1b[2J\x07[red]\u202ex")])
    printed = flask.run("requests", "list").stdout
    assert not {"\x1b", "\x07", "\u202e"} & set(printed)
    assert "[red]" in printed


def _collect(stream: IO[str], lines: Queue[str]) -> None:
    for line in stream:
        lines.put(line)


@pytest.fixture
def environ(settings: Settings) -> dict[str, str]:
    assert settings.secret_text
    return {"LLM_SERVICE_INSTANCE": str(settings.instance), "LLM_SERVICE_SECRET": settings.secret_text, "PATH": ""}


@pytest.mark.parametrize("form", [["--json"], []], ids=["json", "text"])
def test_a_tail_prints_calls_as_they_end_and_ctrl_c_ends_it_without_an_error(
    app: Flask, environ: dict[str, str], write: Write, form: list[str]
) -> None:
    before, after = row(created_at=datetime.now(UTC)), row(created_at=datetime.now(UTC))
    write([before])
    command = [sys.executable, "-m", "flask", "--app", "wsgi", "requests", "tail", *form]
    with subprocess.Popen(
        command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        lines: Queue[str] = Queue()
        assert process.stdout
        assert process.stderr
        Thread(target=_collect, args=(process.stdout, lines), daemon=True).start()
        first = lines.get(timeout=20)
        write([after])
        second = lines.get(timeout=20)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
        assert process.stderr.read() == ""
    assert lines.empty()
    if form:
        assert ids([json.loads(first), json.loads(second)]) == ids([before, after])
    else:
        assert before["id"] in first
        assert after["id"] in second


def test_a_reader_that_stops_reading_causes_no_traceback(app: Flask, environ: dict[str, str], write: Write) -> None:
    write([row() for _ in range(3000)])
    command = [sys.executable, "-m", "flask", "--app", "wsgi", "requests", "export"]
    with subprocess.Popen(
        command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.stdout.close()
        assert "Traceback" not in process.stderr.read()
        assert process.wait(20) in (0, 1)
