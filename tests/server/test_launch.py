"""gunicorn with gunicorn.conf.py as real processes: the start, the welcome text, and every way to end."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from llm_service.catalog.catalog import Catalog
from llm_service.server import embedded_redis, launch
from llm_service.settings import Settings
from tests.support.processes import children, living

ROOT = Path(__file__).parents[2]
KEY = "key-for-these-tests"
WORDS = " ".join(f"word{number}" for number in range(400))


class Running:
    """One service in a folder of its own, on a port that the kernel chooses."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.instance = Path(settings.get("LLM_SERVICE_INSTANCE", folder / "instance"))
        self._connections: list[http.client.HTTPConnection] = []
        self._out, self._err = folder / "stdout", folder / "stderr"
        environ = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        environ |= {"PORT": "0", "LLM_SERVICE_INSTANCE": str(self.instance), "API_KEYS": KEY}
        environ |= settings
        with open(self._out, "wb") as out, open(self._err, "wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gunicorn"],
                cwd=ROOT,
                env=environ,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    @property
    def stdout(self) -> str:
        return self._out.read_text()

    @property
    def stderr(self) -> str:
        return self._err.read_text()

    def ready(self) -> Running:
        """Wait until /health answers."""
        assert within(20, lambda: "answers at" in self.stdout or self.process.poll() is not None), self.stderr
        found = re.search(r"answers at http://127\.0\.0\.1:(\d+)", self.stdout)
        assert found, self.stderr
        self.port = int(found[1])
        assert self.get("/health")[0] == 200
        return self

    def connect(self) -> http.client.HTTPConnection:
        self._connections.append(http.client.HTTPConnection("127.0.0.1", self.port, timeout=10))
        return self._connections[-1]

    def get(self, path: str) -> tuple[int, bytes]:
        connection = self.connect()
        connection.request("GET", path, headers={"Connection": "close"})
        reply = connection.getresponse()
        return reply.status, reply.read()

    def stream(self) -> http.client.HTTPResponse:
        """Start a stream of the echo model and read its first line."""
        connection = self.connect()
        body = json.dumps({"model": "echo", "prompt": WORDS})
        connection.request(
            "POST", "/v1/stream", body, {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        )
        reply = connection.getresponse()
        assert reply.status == 200
        assert b"word0" in reply.readline()
        return reply

    def workers(self) -> list[int]:
        """Wait for both workers and return their process ids."""
        found: list[int] = []

        def both() -> bool:
            found[:] = [pid for pid in children(self.process.pid) if pid != self.server()]
            return len(found) == 2

        assert within(5, both)
        return found

    def server(self) -> int:
        """Return the process id of the embedded Redis."""
        return int((self.instance / "valkey.lock").read_text().split()[0])

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def ended(self, seconds: float) -> float:
        """Wait for the end of the arbiter. Return how long it took."""
        began = time.monotonic()
        self.process.wait(seconds)
        return time.monotonic() - began

    def rows(self) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.instance / "llm_service.sqlite3")) as database:
            return database.execute("SELECT outcome, error_type, usage_exact FROM requests").fetchall()

    def destroy(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(5)
        for connection in self._connections:
            connection.close()
        within(3, lambda: not self.has_redis())

    def has_redis(self) -> bool:
        return self.instance.exists() and embedded_redis.running(self.instance)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    services: list[Running] = []

    def begin(**settings: str) -> Running:
        folder = tmp_path / str(len(services))
        folder.mkdir()
        services.append(Running(folder, **settings))
        return services[-1]

    yield begin
    for service in services:
        service.destroy()


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


# Start


def test_only_the_first_start_prints_a_key_and_curl_commands(start: Callable[..., Running]) -> None:
    service = start(API_KEYS="").ready()
    key = re.search(r"lsk_[a-z0-9]{8}_[A-Za-z0-9_-]{43}", service.stdout)
    assert key
    assert service.stdout.count("curl ") == 2 and "curl -N " in service.stdout
    assert "No provider key is set" in service.stdout and '"model": "echo"' in service.stdout
    assert key[0] not in service.stderr, "the key must not be in the log"
    line = next(line.strip() for line in service.stdout.splitlines() if line.strip().startswith("curl http"))
    pasted = subprocess.run(["sh", "-c", line + " -s"], capture_output=True, text=True, timeout=10)
    assert json.loads(pasted.stdout)["provider"] == "echo"
    service.signal(signal.SIGTERM)
    service.ended(5)

    again = Running(service.instance.parent, API_KEYS="")
    try:
        again.ready()
        assert "lsk_" not in again.stdout and "curl" not in again.stdout
        again.signal(signal.SIGTERM)
        again.ended(5)
    finally:
        again.destroy()


def test_with_keys_in_the_environment_no_key_is_created(start: Callable[..., Running]) -> None:
    service = start().ready()
    assert "lsk_" not in service.stdout
    assert KEY not in service.stdout + service.stderr


def test_a_second_start_with_both_sdks_is_fast(start: Callable[..., Running]) -> None:
    keys = {"ANTHROPIC_API_KEY": "none", "OPENAI_API_KEY": "none"}
    first = start(**keys).ready()
    first.signal(signal.SIGTERM)
    first.ended(5)
    began = time.monotonic()
    second = Running(first.instance.parent, **keys)
    try:
        second.ready()
        assert time.monotonic() - began < 10  # takes 1 to 2 s on an idle machine; the promise is 3 s
        assert "Providers: anthropic, openai" in second.stdout
    finally:
        second.destroy()


def test_a_port_in_use_causes_one_clear_line_and_leaves_nothing_running(start: Callable[..., Running]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        service = start(PORT=str(port))
        service.process.wait(10)
    assert service.process.returncode not in (0, None)
    assert service.stderr.splitlines()[-1] == (
        f"llm_service: cannot listen on 127.0.0.1:{port}: Address already in use. Set PORT or HOST to another value."
    )
    assert "Traceback" not in service.stderr
    assert not service.has_redis()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"PORT": "http"}, "PORT"),
        ({"LLM_SERVICE_MODELS": "/nowhere/models.toml"}, "models.toml"),
        ({"DATABASE_URL": "postgresql://user:hunter2@127.0.0.1:1/x", "LLM_SERVICE_SECRET": "s" * 32}, "DATABASE_URL"),
        ({"LLM_SERVICE_INSTANCE": "/proc/nowhere"}, "/proc/nowhere"),
    ],
)
def test_a_wrong_setting_causes_one_clear_line(
    start: Callable[..., Running], settings: dict[str, str], words: str
) -> None:
    service = start(**settings)
    service.process.wait(20)
    assert service.process.returncode not in (0, None)
    last = service.stderr.splitlines()[-1]
    assert last.startswith("llm_service: ") and words in last
    assert "Traceback" not in service.stderr and "hunter2" not in service.stderr
    assert not service.has_redis()


def test_a_service_starts_although_a_killed_one_left_a_socket_file_and_metrics(start: Callable[..., Running]) -> None:
    first = start().ready()
    os.killpg(first.process.pid, signal.SIGKILL)
    first.process.wait(5)
    assert within(3, lambda: not first.has_redis())
    (first.instance / "valkey.sock").touch()
    again = Running(first.instance.parent)
    try:
        again.ready()
        assert [folder.name for folder in (again.instance / "metrics").iterdir()] == [str(again.process.pid)]
        again.signal(signal.SIGTERM)
        again.ended(5)
        assert list((again.instance / "metrics").iterdir()) == []
    finally:
        again.destroy()


def test_workers_are_monkey_patched_and_the_arbiter_has_one_thread_and_one_listening_socket(
    start: Callable[..., Running], tmp_path: Path
) -> None:
    check = (
        "import gevent.monkey, runpy, socket, ssl, threading, queue\n"
        f"runpy.run_path({str(ROOT / 'gunicorn.conf.py')!r})\n"
        "patched = gevent.monkey.is_object_patched\n"
        "assert patched('socket', 'socket') and patched('ssl', 'SSLContext')\n"
        "assert patched('threading', '_allocate_lock')\n"
        "import gevent.ssl; assert ssl.SSLContext is gevent.ssl.SSLContext\n"
        "import gevent.socket; assert socket.socket is gevent.socket.socket\n"
    )
    environ = {"PATH": os.environ["PATH"], "LLM_SERVICE_INSTANCE": str(tmp_path / "check")}
    subprocess.run([sys.executable, "-c", check], cwd=ROOT, env=environ, check=True, timeout=20)
    if sys.platform != "linux":
        return
    service = start().ready()
    pid = service.process.pid
    assert len(list(Path(f"/proc/{pid}/task").iterdir())) == 1
    sockets = [link for link in Path(f"/proc/{pid}/fd").iterdir() if os.readlink(link).startswith("socket:")]
    assert len(sockets) == 1, "every worker shares the sockets that the arbiter has open"


# End


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_an_idle_service_ends_at_once_and_leaves_nothing(start: Callable[..., Running], number: signal.Signals) -> None:
    service = start().ready()
    workers, server = service.workers(), service.server()
    service.signal(number)
    assert service.ended(5) < 2.0
    assert service.process.returncode == 0
    assert living(*workers, server) == set()
    assert not service.has_redis()
    assert not (service.instance / "valkey.sock").exists()
    assert "Traceback" not in service.stderr and '"level":"WARNING"' not in service.stderr


def test_ctrl_c_in_a_terminal_reaches_every_process_and_still_ends_cleanly(start: Callable[..., Running]) -> None:
    service = start().ready()
    workers, server = service.workers(), service.server()
    os.killpg(service.process.pid, signal.SIGINT)
    assert service.ended(5) < 2.0
    assert service.process.returncode == 0
    assert living(*workers, server) == set()
    assert "Traceback" not in service.stderr


def test_idle_keep_alive_connections_do_not_delay_the_end(start: Callable[..., Running]) -> None:
    service = start().ready()
    connections = [service.connect() for _ in range(8)]
    for connection in connections:
        connection.request("GET", "/health")
        connection.getresponse().read()
    silent = socket.create_connection(("127.0.0.1", service.port))
    service.signal(signal.SIGTERM)
    assert service.ended(5) < 2.0
    assert silent.recv(1) == b""
    for connection in connections:
        assert connection.sock is not None and connection.sock.recv(1) == b""
        connection.close()
    silent.close()


def test_a_second_sigterm_has_no_effect(start: Callable[..., Running]) -> None:
    service = start(LLM_SERVICE_GRACEFUL_TIMEOUT="7", LLM_SERVICE_ECHO_DELAY="0.1").ready()
    reply = service.stream()
    service.signal(signal.SIGTERM)
    time.sleep(0.3)
    service.signal(signal.SIGTERM)
    rest = reply.read()
    assert b'"error"' in rest and b"[DONE]" not in rest
    assert service.ended(8) < 7.0
    assert service.process.returncode == 0
    assert len(service.rows()) == 1


def test_after_sigterm_a_call_may_still_finish(start: Callable[..., Running]) -> None:
    service = start(LLM_SERVICE_GRACEFUL_TIMEOUT="20", LLM_SERVICE_ECHO_DELAY="0.003").ready()
    reply = service.stream()
    service.signal(signal.SIGTERM)
    rest = reply.read()
    assert b"[DONE]" in rest and b'"error"' not in rest
    assert service.ended(10) < 6
    assert [row[0] for row in service.rows()] == ["ok"]


def test_a_stream_that_is_longer_than_the_drain_ends_with_an_in_band_error_and_a_row(
    start: Callable[..., Running],
) -> None:
    service = start(LLM_SERVICE_GRACEFUL_TIMEOUT="7", LLM_SERVICE_ECHO_DELAY="0.2").ready()
    replies = [service.stream() for _ in range(4)]
    began = time.monotonic()
    service.signal(signal.SIGTERM)
    for reply in replies:
        rest = reply.read()
        assert b'"error"' in rest and b"[DONE]" not in rest
    assert 1.5 < time.monotonic() - began < 4.0, "calls are ended five seconds before gunicorn's SIGKILL"
    service.ended(7)
    assert time.monotonic() - began < 6.0
    assert service.process.returncode == 0
    assert len(service.rows()) == 4 and {row[0] for row in service.rows()} == {"aborted"}


@pytest.mark.parametrize("whole_group", [False, True])
def test_sigint_ends_running_streams_in_band_and_their_rows_are_written(
    start: Callable[..., Running], whole_group: bool
) -> None:
    service = start(LLM_SERVICE_ECHO_DELAY="0.1").ready()
    replies = [service.stream() for _ in range(4)]
    if whole_group:
        os.killpg(service.process.pid, signal.SIGINT)
    else:
        service.signal(signal.SIGINT)
    for reply in replies:
        rest = reply.read()
        assert b'"error"' in rest and b"[DONE]" not in rest
    assert service.ended(10) < 6
    assert len(service.rows()) == 4
    assert not service.has_redis()


def test_ctrl_c_shortens_a_drain_that_sigterm_began(start: Callable[..., Running]) -> None:
    service = start(LLM_SERVICE_ECHO_DELAY="0.1").ready()
    reply = service.stream()
    service.signal(signal.SIGTERM)
    time.sleep(0.5)
    service.signal(signal.SIGINT)
    assert b'"error"' in reply.read()
    assert service.ended(10) < 6
    assert len(service.rows()) == 1


def test_when_the_arbiter_is_killed_workers_and_redis_end_and_no_row_is_lost(start: Callable[..., Running]) -> None:
    service = start(LLM_SERVICE_ECHO_DELAY="0.1").ready()
    reply = service.stream()
    workers, server = service.workers(), service.server()
    service.process.kill()
    service.process.wait(5)
    assert b'"error"' in reply.read()
    assert within(4, lambda: not living(*workers, server))
    assert not service.has_redis()
    assert len(service.rows()) == 1


def test_a_worker_that_dies_is_replaced(start: Callable[..., Running]) -> None:
    service = start().ready()
    victim = service.workers()[0]
    os.kill(victim, signal.SIGKILL)
    assert within(5, lambda: victim not in service.workers())
    assert service.get("/health")[0] == 200
    service.signal(signal.SIGTERM)
    assert service.ended(5) < 2.0


def test_an_embedded_redis_that_dies_is_restarted_and_ends_with_the_service(start: Callable[..., Running]) -> None:
    service = start().ready()
    first = service.server()
    os.kill(first, signal.SIGKILL)
    assert within(4, lambda: embedded_redis.answers(service.instance))
    second = service.server()
    assert second != first
    service.signal(signal.SIGTERM)
    assert service.ended(5) < 2.0
    assert living(second) == set()


def test_a_second_service_in_the_same_folder_survives_the_end_of_the_first_one_s_redis(
    start: Callable[..., Running],
) -> None:
    first = start().ready()
    second = Running(first.instance.parent)
    try:
        second.ready()
        first.signal(signal.SIGTERM)
        first.ended(5)
        assert within(4, lambda: embedded_redis.answers(second.instance))
        second.signal(signal.SIGTERM)
        second.ended(5)
        assert not second.has_redis()
    finally:
        second.destroy()


# Connections of a worker


def test_malformed_http_gets_a_problem_document_that_repeats_nothing_of_it(start: Callable[..., Running]) -> None:
    service = start(LLM_SERVICE_LOG_LEVEL="DEBUG").ready()
    for sent, status in [
        (b"MARKER-A MARKER-B\r\n\r\n", b" 400 "),
        (b"GET / HTTP/1.1\r\nX-Api-Key: MARKER\x01\r\n\r\n", b" 400 "),
        (b"GET / HTTP/1.1\r\nX-Api-Key: " + b"MARKER" * 2000 + b"\r\n\r\n", b" 431 "),
        (b"GET /" + b"MARKER" * 1000 + b" HTTP/1.1\r\n\r\n", b" 414 "),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: MARKER\r\n\r\n", b" 501 "),
    ]:
        with socket.create_connection(("127.0.0.1", service.port), timeout=5) as connection:
            connection.sendall(sent)
            reply = b"".join(iter(lambda: connection.recv(65536), b""))
        head, _, body = reply.partition(b"\r\n\r\n")
        assert status in head.splitlines()[0]
        assert b"application/problem+json" in head and json.loads(body)["status"]
        assert b"MARKER" not in reply
    assert "MARKER" not in service.stderr


def test_an_endless_body_neither_blocks_other_calls_nor_is_read_for_ever(start: Callable[..., Running]) -> None:
    service = start(WEB_CONCURRENCY="1").ready()
    chunk = b"%X\r\n%s\r\n" % (65536, b"x" * 65536)
    sent = 0

    def flood() -> None:
        nonlocal sent
        with socket.create_connection(("127.0.0.1", service.port), timeout=10) as connection:
            connection.sendall(b"POST /health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
            try:
                while sent < 1 << 30:
                    connection.sendall(chunk)
                    sent += len(chunk)
            except OSError:
                return

    flooding = threading.Thread(target=flood)
    flooding.start()
    slowest = 0.0
    while flooding.is_alive():
        began = time.monotonic()
        assert service.get("/health")[0] == 200
        slowest = max(slowest, time.monotonic() - began)
    assert sent < 1 << 28
    assert slowest < 1.0


# Functions


def catalog(**environ: str) -> Catalog:
    return Catalog.load(Settings.load(environ))


def test_the_welcome_names_the_configured_providers() -> None:
    text = launch.welcome("http://127.0.0.1:8000", catalog(OPENAI_API_KEY="x"), "lsk_key")
    assert "Providers: openai;" in text
    assert '"model": "fast"' in text and "Bearer lsk_key" in text


@pytest.mark.parametrize(
    ("host", "url", "bound"),
    [
        ("127.0.0.1", "http://127.0.0.1:80", "127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80", "0.0.0.0:80"),
        ("::", "http://127.0.0.1:80", "[::]:80"),
        ("::1", "http://[::1]:80", "[::1]:80"),
        ("example.test", "http://example.test:80", "example.test:80"),
    ],
)
def test_addresses_are_written_in_the_forms_of_browsers_and_gunicorn(host: str, url: str, bound: str) -> None:
    assert (launch.base_url(host, 80), launch.bind(host, 80)) == (url, bound)


def test_flask_commands_start_no_redis_and_import_no_sdk(tmp_path: Path) -> None:
    environ = {"PATH": os.environ["PATH"], "LLM_SERVICE_INSTANCE": str(tmp_path)}
    code = (
        "import sys; sys.argv = ['flask', '--app', 'wsgi', 'models', 'list', '--json']\n"
        "from flask.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "assert not {'anthropic', 'openai', 'gevent'} & set(sys.modules)\n"
    )
    environ |= {"ANTHROPIC_API_KEY": "none", "OPENAI_API_KEY": "none"}
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environ, check=True, timeout=20, capture_output=True)
    assert not (tmp_path / "valkey.lock").exists()
