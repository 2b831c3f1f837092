"""The writer in a process that gevent has patched, like a worker in production."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import func, select

from llm_service import store
from llm_service.extensions import db
from llm_service.settings import Settings
from llm_service.store.engine import database_url
from llm_service.store.tables import RequestRow

ROOT = Path(__file__).parents[2]

COMMON = """
import gevent.monkey
gevent.monkey.patch_all()
import json, sqlite3, sys, threading, time
import gevent
from llm_service.store.writer import Writer
from tests.store.conftest import row

gaps, last = [], [time.perf_counter()]

def tick():
    while True:
        gevent.sleep(0.005)
        now = time.perf_counter()
        gaps.append(now - last[0])
        last[0] = now

gevent.spawn(tick)
gevent.sleep(0.05)
writer = Writer(sys.argv[1])
"""

MANY = """
for _ in range(100):
    for _ in range(50):
        writer.put(row())
    gevent.sleep(0.005)
left = writer.close(20)
print(json.dumps({"left": left, "written": writer.written, "ticks": len(gaps), "worst": max(gaps)}))
"""

LOCKED = """
other = sqlite3.connect(sys.argv[2], isolation_level=None)
other.execute("BEGIN IMMEDIATE")
writer.put(row())
gevent.sleep(1.2)
waiting = writer.queued
other.execute("ROLLBACK")
left = writer.close(20)
print(json.dumps({"left": left, "waiting": waiting, "written": writer.written, "worst": max(gaps)}))
"""

SLOW = """
import psycopg
other = psycopg.connect(sys.argv[1].replace("+psycopg", ""))
other.execute("LOCK TABLE requests IN ACCESS EXCLUSIVE MODE")
writer.put(row())
gevent.sleep(1.2)
waiting = writer.queued
other.rollback()
left = writer.close(20)
print(json.dumps({"left": left, "waiting": waiting, "written": writer.written, "worst": max(gaps)}))
"""

BAD_ROW = """
writer.put(row())
writer.put(row(status={"a": 1}))
left = writer.close(20)
print(json.dumps({"left": left, "written": writer.written, "dropped": writer.dropped}))
"""


def run(script: str, *arguments: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-c", COMMON + script, *arguments], capture_output=True, text=True, timeout=50, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, float] = json.loads(done.stdout)
    result["traceback"] = "Traceback" in done.stderr
    return result


def stored() -> int:
    with db.engine.connect() as connection:
        return connection.scalar(select(func.count()).select_from(RequestRow)) or 0


def test_the_hub_keeps_ticking_while_rows_are_written(app: Flask, settings: Settings) -> None:
    result = run(MANY, database_url(settings))
    assert (result["left"], result["written"], stored()) == (0, 5000, 5000)
    assert result["ticks"] > 50
    assert result["worst"] < 0.5  # the ticker has a period of 5 ms; the bound leaves room for a busy machine


def test_a_locked_sqlite_does_not_block_the_hub(sqlite_settings: Settings, bare_app) -> None:
    app = bare_app(sqlite_settings)
    store.upgrade(app)
    url = database_url(sqlite_settings)
    result = run(LOCKED, url, url.removeprefix("sqlite:///"))
    assert (result["left"], result["waiting"], result["written"]) == (0, 1, 1)
    assert result["worst"] < 0.2  # less than busy_timeout, which passes several times in the writer


def test_a_postgresql_that_does_not_answer_does_not_block_the_hub(postgres_settings: Settings, bare_app) -> None:
    store.upgrade(bare_app(postgres_settings))
    result = run(SLOW, database_url(postgres_settings))
    assert (result["left"], result["waiting"], result["written"]) == (0, 1, 1)
    assert result["worst"] < 0.5


def test_a_bad_row_is_logged_in_one_line_without_a_traceback(app: Flask, settings: Settings) -> None:
    result = run(BAD_ROW, database_url(settings))
    assert (result["left"], result["written"], result["dropped"], result["traceback"]) == (0, 1, 1, False)
    assert stored() == 1


@pytest.mark.parametrize("when", ["patched", "not patched"])
def test_sqlite_is_written_in_a_native_thread_when_threads_are_greenlets(
    sqlite_settings: Settings, bare_app, when: str
) -> None:
    store.upgrade(bare_app(sqlite_settings))
    script = (
        ("import gevent.monkey; gevent.monkey.patch_all()\n" if when == "patched" else "import gevent\n")
        + "import sys, threading\n"
        "from llm_service.store.writer import Writer\n"
        "from tests.store.conftest import row\n"
        "from llm_service.store import row_inserts\n"
        "threads = []\n"
        "insert = row_inserts.SqliteSink._insert\n"
        "def watched(self, rows): threads.append(native()); insert(self, rows)\n"
        "native = threading.get_native_id\n"
        "row_inserts.SqliteSink._insert = watched\n"
        "writer = Writer(sys.argv[1])\n"
        "writer.put(row())\n"
        "assert writer.close(10) == 0\n"
        "assert threads and native() not in threads\n"
    )
    command = [sys.executable, "-c", script, database_url(sqlite_settings)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, cwd=ROOT)
    assert done.returncode == 0, done.stderr
