"""The thresholds of budgets are announced once and delivered in the end, and nothing waits for that."""

from __future__ import annotations

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select, text

from llm_service import store
from llm_service.billing.alerts import CLAIM, Alerts, Pace
from llm_service.catalog.catalog import Catalog
from llm_service.extensions import db
from llm_service.formats import registry
from llm_service.observability.metrics import Metrics
from llm_service.settings import Settings
from llm_service.store import budgets
from llm_service.store.row_inserts import sink_for
from llm_service.store.tables import BudgetAlertRow
from tests.billing.test_webhook import is_genuine
from tests.store.conftest import row
from tests.support.captured_logs import captured_logs
from tests.support.wait import wait_until

SECRET = "marker-7f3a is a secret"
ROOT = Path(__file__).parents[2]


@dataclass
class Receiver:
    """An HTTP server that gives the ``answers``, then 204. An answer is a status, or an event to wait for first."""

    answers: list[int | threading.Event] = field(default_factory=list)
    received: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    url: str = ""

    @property
    def messages(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.received]

    def thresholds(self) -> list[int]:
        return [message["data"]["threshold_percent"] for message in self.messages]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.received.append(({name.lower(): value for name, value in self.headers.items()}, body))
            answer = found.answers.pop(0) if found.answers else 204
            if isinstance(answer, threading.Event):
                answer.wait(30)
                answer = 204
            try:
                self.send_response(answer, "marker-7f3a")
                self.end_headers()
            except OSError:
                pass  # the service has stopped waiting

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    found.url = f"http://127.0.0.1:{server.server_port}/hook?token=marker-7f3a"
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield found
    for answer in found.answers:
        if isinstance(answer, threading.Event):
            answer.set()
    server.shutdown()
    server.server_close()


@dataclass
class World:
    """A migrated database, a receiver, and what a worker needs for both."""

    app: Flask
    settings: Settings
    receiver: Receiver
    telemetry: Metrics
    made: list[Alerts] = field(default_factory=list)

    @property
    def url(self) -> str:
        return store.database_url(self.settings)

    def alerts(self, clock: Callable[[], datetime] | None = None, *, webhook: bool = True, **options: float) -> Alerts:
        hook: dict[str, Any] = {"webhook_url": self.receiver.url, "webhook_secret": SECRET} if webhook else {}
        settings = Settings(instance=self.settings.instance, database_url=self.settings.database_url, **hook)
        pace = Pace(**{"batch": 0.05, "first_retry": 0.05, "after_failure": 0.1, **options})
        clock = clock or (lambda: datetime.now(UTC))
        self.made.append(Alerts(self.url, settings, Catalog.load(settings), self.telemetry, clock, pace))
        return self.made[-1]

    def spend(self, nanousd: int, **values: Any) -> dict[str, Any]:
        spent = row(cost_nanousd=nanousd, **values)
        sink = sink_for(self.url)
        sink.write([spent])
        sink.close()
        return spent

    def budget(self, amount: int) -> None:
        budgets.put("key", "abcdefgh", amount, "total")

    def stored(self, *names: str) -> list[Any]:
        columns = [getattr(BudgetAlertRow, name) for name in names]
        with db.engine.connect() as connection:
            rows = connection.execute(select(*columns).order_by(BudgetAlertRow.threshold)).all()
        return [found[0] if len(names) == 1 else tuple(found) for found in rows]

    def settled(self) -> bool:
        found = self.stored("next_at")
        return bool(found) and not any(found)

    def metric(self, name: str) -> list[str]:
        lines = self.telemetry.render()[0].decode().splitlines()
        return [line for line in lines if line.startswith(name) and "_created" not in line]


@pytest.fixture(params=["sqlite", "postgresql"])
def world(request: pytest.FixtureRequest, tmp_path: Path, receiver: Receiver) -> Iterator[World]:
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else None
    settings = Settings(instance=tmp_path / "instance", secret_text="a key of sixteen bytes or more", database_url=url)
    app = Flask("test")
    store.configure(app, settings)
    store.upgrade(app)
    made = World(app, settings, receiver, Metrics([], registry.NAMES))
    with app.app_context():
        yield made
        for item in made.made:
            item.close(2)
        db.engine.dispose()


def test_a_threshold_is_logged_and_delivered_after_two_failures(world: World) -> None:
    world.receiver.answers += [500, 302]
    world.budget(100)
    with captured_logs() as lines:
        announcing = world.alerts()
        announcing.noticed([world.spend(60)])
        wait_until(world.settled, 10)
        announcing.close()
    assert world.receiver.thresholds() == [50, 50, 50]
    (first, body), (_, second), (last, third) = world.receiver.received
    assert body == second == third
    assert first["webhook-id"] == last["webhook-id"] == world.receiver.messages[0]["id"]
    assert all(is_genuine(SECRET, head, body) for head, body in world.receiver.received)
    assert world.receiver.messages[0]["data"]["budget"]["scope"] == "key:abcdefgh"
    assert world.stored("attempts") == [3]
    assert None not in world.stored("delivered_at")
    announced = [line for line in lines if line["message"] == "a budget reached a threshold"]
    assert [(line["level"], line["scope"], line["threshold_percent"]) for line in announced] == [
        ("WARNING", "key:abcdefgh", 50)
    ]
    assert [line["reason"] for line in lines if line["message"].startswith("a webhook was not")] == ["500", "302"]
    assert world.metric("llm_budget_alerts_total") == ['llm_budget_alerts_total{threshold="50"} 1.0']
    assert world.metric("llm_webhook_failures_total") == ["llm_webhook_failures_total 2.0"]
    assert "marker-7f3a" not in str(lines)


def test_several_workers_and_restarts_announce_a_threshold_once(world: World) -> None:
    world.budget(100)
    with captured_logs() as lines:
        workers = [world.alerts() for _ in range(4)]
        spent = world.spend(90)
        for worker in workers:
            worker.noticed([spent])
        wait_until(world.settled, 10)
        for worker in workers:
            worker.close()
        restarted = world.alerts()
        restarted.noticed([world.spend(1)])
        restarted.close()
    assert sorted(world.receiver.thresholds()) == [50, 80]
    announced = [line["threshold_percent"] for line in lines if line["message"] == "a budget reached a threshold"]
    assert sorted(announced) == [50, 80]


def test_another_process_delivers_what_was_not_delivered(world: World) -> None:
    world.receiver.answers += [503]
    world.budget(100)
    first = world.alerts(first_retry=0.5)
    first.noticed([world.spend(60)])
    wait_until(lambda: world.receiver.received, 10)
    first.close()
    assert world.stored("delivered_at") == [None]
    second = world.alerts()
    second.noticed([])  # the loop needs no row to start
    wait_until(world.settled, 10)
    assert len({message["id"] for message in world.receiver.messages}) == 1
    assert len(world.receiver.received) == 2


WORKER = """
import sys, time
from datetime import UTC, datetime
from llm_service.billing.alerts import Alerts, Pace
from llm_service.catalog.catalog import Catalog
from llm_service.settings import Settings
from llm_service.observability.metrics import Metrics
settings = Settings(webhook_url=sys.argv[2], webhook_secret="marker-7f3a is a secret")
alerts = Alerts(sys.argv[1], settings, Catalog.load(settings), Metrics([], ()), pace=Pace(batch=0.05))
alerts.noticed([{"key_id": "abcdefgh", "cost_nanousd": 1}])
time.sleep(60)
"""


def test_a_message_that_a_killed_worker_was_sending_is_sent_again_after_its_claim(world: World) -> None:
    hangs = threading.Event()
    world.receiver.answers += [hangs]
    world.budget(100)
    world.spend(60)
    killed = subprocess.Popen([sys.executable, "-c", WORKER, world.url, world.receiver.url], cwd=ROOT)
    wait_until(lambda: world.receiver.received, 20)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait(10)
    hangs.set()
    early = world.alerts()
    early.noticed([])
    time.sleep(0.5)
    assert world.receiver.thresholds() == [50]  # still claimed
    later = world.alerts(lambda: datetime.now(UTC) + CLAIM)
    later.noticed([])
    wait_until(world.settled, 10)
    assert len({message["id"] for message in world.receiver.messages}) == 1
    assert world.stored("attempts") == [2]


def test_budgets_that_a_killed_worker_had_not_checked_are_checked_by_the_next_one(world: World) -> None:
    world.budget(100)
    world.spend(100)  # and no worker noticed it
    world.alerts().noticed([])
    wait_until(lambda: sorted(world.receiver.thresholds()) == [50, 80, 100], 10)


def test_rows_without_a_cost_and_things_that_are_not_rows_are_harmless(world: World) -> None:
    with captured_logs() as lines:
        announcing = world.alerts()
        announcing.noticed([row(cost_nanousd=None), row(cost_nanousd=0)])
        announcing.noticed([row(key_id=None, cost_nanousd=5)])
        announcing.noticed(["marker-7f3a"])  # type: ignore[list-item]
        announcing.noticed(None)  # type: ignore[arg-type]
        announcing.close()
    assert [line["message"].split(" (")[0] for line in lines] == ["budget alerts: rows were not noticed"] * 2
    assert "marker-7f3a" not in str(lines)
    assert world.stored("id") == []


def test_a_receiver_that_hangs_delays_neither_the_writer_nor_the_end(world: World) -> None:
    hangs = threading.Event()
    world.receiver.answers += [hangs]
    world.budget(100)
    announcing = world.alerts()
    announcing.noticed([world.spend(60)])
    wait_until(lambda: world.receiver.received, 10)
    began = time.monotonic()
    for _ in range(1000):
        announcing.noticed([row(cost_nanousd=1)])
    assert time.monotonic() - began < 0.5
    world.spend(30)
    began = time.monotonic()
    announcing.close(2)
    assert time.monotonic() - began < 2.5
    hangs.set()
    # The noticed budget was checked, and the message that was cut off is due for the next process at once.
    assert world.stored("threshold") == [50, 80]
    assert all(due <= datetime.now(UTC) for due in world.stored("next_at"))
    announcing.noticed([world.spend(100)])
    world.alerts().noticed([])
    wait_until(world.settled, 10)


def test_a_message_that_is_being_sent_may_arrive_before_the_end(world: World) -> None:
    slow = threading.Event()
    world.receiver.answers += [slow]
    world.budget(100)
    announcing = world.alerts()
    announcing.noticed([world.spend(60)])
    wait_until(lambda: world.receiver.received, 10)
    threading.Timer(0.3, slow.set).start()
    announcing.close(4)
    assert None not in world.stored("delivered_at")


def test_without_a_webhook_thresholds_are_logged_and_no_message_is_due(world: World) -> None:
    world.budget(100)
    with captured_logs() as lines:
        announcing = world.alerts(webhook=False)
        announcing.noticed([world.spend(50)])
        announcing.close()
    assert [line["message"] for line in lines] == ["a budget reached a threshold"]
    later = world.alerts()
    later.noticed([])
    later.close()
    assert world.stored("threshold", "next_at") == [(50, None)]
    assert world.receiver.received == []


def test_after_a_day_a_message_is_given_up(world: World) -> None:
    late = [timedelta(0)]
    world.receiver.answers += [500] * 10
    world.budget(100)
    with captured_logs() as lines:
        announcing = world.alerts(lambda: datetime.now(UTC) + late[0], first_retry=3600)
        announcing.noticed([world.spend(60)])
        wait_until(lambda: any("sent again" in line["message"] for line in lines), 10)
        (due,) = world.stored("next_at")
        assert timedelta(minutes=44) < due - datetime.now(UTC) < timedelta(minutes=76)
        announcing.close()
        late[0] = timedelta(hours=23, minutes=59)
        last = world.alerts(lambda: datetime.now(UTC) + late[0], first_retry=3600)
        last.noticed([])
        wait_until(lambda: any("given up" in line["message"] for line in lines), 10)
    assert world.stored("next_at", "delivered_at", "attempts") == [(None, None, 2)]
    assert [line["level"] for line in lines if "given up" in line["message"]] == ["ERROR"]


def test_an_outage_of_the_database_loses_no_threshold(world: World) -> None:
    world.budget(100)
    spent = world.spend(100)
    with db.engine.begin() as connection:
        connection.execute(text("ALTER TABLE budget_alerts RENAME TO away"))
    with captured_logs() as lines:
        announcing = world.alerts()
        announcing.noticed([spent])
        wait_until(lambda: lines, 10)
        time.sleep(0.5)
        assert len(lines) == 1  # reported once, tried several times
        with db.engine.begin() as connection:
            connection.execute(text("ALTER TABLE away RENAME TO budget_alerts"))
        wait_until(lambda: sorted(world.receiver.thresholds()) == [50, 80, 100], 10)


def test_alerts_without_a_row_start_and_open_nothing(tmp_path: Path) -> None:
    threads = threading.active_count()
    settings = Settings(instance=tmp_path)
    unused = Alerts(f"sqlite:///{tmp_path}/none.db", settings, Catalog.load(settings), Metrics([], registry.NAMES))
    unused.close(1)
    unused.noticed([row(cost_nanousd=1)])
    assert threading.active_count() == threads
    assert list(tmp_path.iterdir()) == []


def test_a_forked_process_has_a_loop_of_its_own(world: World) -> None:
    world.budget(100)
    announcing = world.alerts()
    announcing.noticed([])
    wait_until(lambda: threading.active_count() > 1)
    spent = world.spend(60)
    db.engine.dispose()
    pid = os.fork()
    if pid == 0:
        try:
            announcing.noticed([spent])
            announcing.close(20)
        finally:
            os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert world.stored("threshold") == [50]
    world.alerts().noticed([])
    wait_until(world.settled, 10)  # in case the child did not deliver it


PATCHED = """
import gevent.monkey
gevent.monkey.patch_all()
import json, sys, time
import gevent
from llm_service.billing.alerts import Alerts, Pace
from llm_service.catalog.catalog import Catalog
from llm_service.settings import Settings
from llm_service.store.row_inserts import sink_for
from llm_service.observability.metrics import Metrics
from llm_service.providers.http import transport
from tests.store.conftest import row

gaps, last = [], [time.perf_counter()]

def tick():
    while True:
        gevent.sleep(0.005)
        now = time.perf_counter()
        gaps.append(now - last[0])
        last[0] = now

settings = Settings(webhook_url=sys.argv[2], webhook_secret="marker-7f3a is a secret")
alerts = Alerts(sys.argv[1], settings, Catalog.load(settings), Metrics([], ()), pace=Pace(batch=0.05))
spent = row(cost_nanousd=60)
sink = sink_for(sys.argv[1])
sink.write([spent])
gevent.spawn(tick)
gevent.sleep(0.05)
gaps.clear()
alerts.noticed([spent])
gevent.sleep(2.0)  # the receiver hangs for one of them
alerts.close(5)
print(json.dumps({"ticks": len(gaps), "worst": max(gaps)}))
"""


def test_under_gevent_alerts_do_not_block_the_hub(world: World) -> None:
    hangs = threading.Event()
    world.receiver.answers += [hangs]
    world.budget(100)
    command = [sys.executable, "-c", PATCHED, world.url, world.receiver.url]
    worker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    wait_until(lambda: world.receiver.received, 30)
    time.sleep(1)
    hangs.set()
    out, err = worker.communicate(timeout=30)
    assert worker.returncode == 0, err
    seen = json.loads(out)
    assert seen["ticks"] > 100
    assert seen["worst"] < 0.5
    assert "Traceback" not in err
    assert world.stored("attempts", "next_at") == [(1, None)]
