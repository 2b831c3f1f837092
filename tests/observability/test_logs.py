"""Logging: JSON lines without content, whichever library logs, at every level and through every hook."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from llm_service.observability import journal, logs
from tests.support.captured_logs import captured_logs

ROOT = Path(__file__).parents[2]
MARKER = "MARKER-8f3a"


@pytest.fixture
def lines() -> Iterator[list[dict[str, Any]]]:
    with captured_logs("DEBUG") as captured:
        yield captured


def log_as_ours(source: str, **names: Any) -> None:
    """Run ``source`` as if its file were in the package: the file's path is one of the things that make a line ours."""
    path = str(Path(logs.__file__).parents[1] / "elsewhere.py")
    exec(compile(source, path, "exec"), {"log": logging.getLogger("llm_service.elsewhere"), **names})


# ---- our own lines


def test_our_own_message_and_fields_are_one_json_line(lines: list[dict[str, Any]]) -> None:
    log_as_ours("log.debug('%d calls are ended', 3, extra={'fields': {'request_id': 'r-1', 'org': 'Société'}})")
    assert len(lines) == 1
    assert lines[0].pop("time").endswith("Z")
    assert lines[0] == {
        "level": "DEBUG",
        "logger": "llm_service.elsewhere",
        "message": "3 calls are ended",
        "request_id": "r-1",
        "org": "Société",
    }


def test_the_time_is_rfc_3339_with_milliseconds_in_utc() -> None:
    record = logging.makeLogRecord({"created": 1_795_230_000.0004, "name": "x", "msg": "y"})
    assert orjson.loads(logs.as_line(record))["time"] == "2026-11-21T03:00:00.000Z"


def test_an_exception_is_logged_with_its_type_and_our_own_frames(lines: list[dict[str, Any]]) -> None:
    log_as_ours(f"try:\n    raise ValueError('{MARKER}')\nexcept ValueError:\n    log.exception('it failed')")
    assert lines[0]["exception"] == {
        "type": "builtins.ValueError",
        "frames": ["llm_service/elsewhere.py:2 <module>"],
        "caused_by": [],
    }
    assert MARKER not in str(lines)


@pytest.mark.parametrize("value", ["\ud800", 2**70, {1, 2}, object()])
def test_a_value_that_json_cannot_hold_still_gives_a_line(lines: list[dict[str, Any]], value: object) -> None:
    log_as_ours("log.info('x', extra={'fields': {'value': value}})", value=value)
    assert len(lines) == 1


def test_a_line_that_cannot_be_formatted_is_logged_without_its_arguments(capfd: pytest.CaptureFixture[str]) -> None:
    # The fixture cannot be used here: pytest installs its own handler again for the test, and that handler would raise.
    with captured_logs() as lines:
        log_as_ours(f"log.info('%d calls', '{MARKER}')")
    assert lines[0]["message"] == "a log record could not be formatted"
    assert lines[0]["at"] == "llm_service/elsewhere.py:1"
    assert MARKER not in str(lines) + "".join(capfd.readouterr())


def test_the_level_applies_to_our_own_lines() -> None:
    with captured_logs("WARNING") as captured:
        log_as_ours("log.info('no'); log.warning('yes')")
    assert [line["message"] for line in captured] == ["yes"]


# ---- libraries


def test_a_librarys_debug_and_info_lines_are_dropped_even_if_it_sets_its_own_level(
    lines: list[dict[str, Any]],
) -> None:
    for name in ("httpx2", "httpcore2", "anthropic", "openai._base_client", "sqlalchemy.engine", "werkzeug"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.DEBUG)
        try:
            logger.info("HTTP Request: %s", MARKER)
            logger.debug(MARKER)
        finally:
            logger.setLevel(logging.NOTSET)
    assert lines == []


def test_a_librarys_message_template_is_logged_without_its_arguments(lines: list[dict[str, Any]]) -> None:
    logging.getLogger("library").warning("Retrying %s after %d", MARKER, 3)
    assert lines[0]["message"] == "Retrying %s after %d"
    assert lines[0]["at"].startswith("observability/test_logs.py:")


def test_integers_in_a_librarys_message_template_are_logged(lines: list[dict[str, Any]]) -> None:
    logging.getLogger("library").warning("Worker (pid:%s) exited with %d", 17, 3)
    assert lines[0]["message"] == "Worker (pid:17) exited with 3"


def test_a_formatted_message_of_a_library_is_withheld(lines: list[dict[str, Any]]) -> None:
    logging.getLogger("library").error(f"bad value {MARKER}")
    logging.getLogger("library").error("bad value {}".format(MARKER))  # noqa: UP032
    logging.getLogger("library").error(f"bad {MARKER} of %s", 5)
    logging.getLogger("library").error(ValueError(MARKER))
    assert [line["message"] for line in lines] == [logs.WITHHELD] * 4
    assert lines[0]["at"].startswith("observability/test_logs.py:")
    assert MARKER not in str(lines)


def test_a_librarys_exception_text_is_never_logged(lines: list[dict[str, Any]]) -> None:
    try:
        raise RuntimeError(MARKER)
    except RuntimeError:
        logging.getLogger("library").exception("Failed to rate limit. Swallowing error")
    assert lines[0]["message"] == "Failed to rate limit. Swallowing error"
    assert lines[0]["exception"]["type"] == "builtins.RuntimeError"
    assert MARKER not in str(lines)


def test_a_withheld_message_names_the_exception_being_handled(lines: list[dict[str, Any]]) -> None:
    try:
        raise ConnectionResetError(MARKER)
    except ConnectionResetError as error:
        logging.getLogger("library").warning(f"lost: {error}")
    assert lines[0]["handling"] == "ConnectionResetError"


def test_a_framework_that_uses_our_logger_is_treated_as_a_library(lines: list[dict[str, Any]]) -> None:
    # Flask names the application's logger after the package and logs the request path with it.
    logging.getLogger("llm_service.app").error(f"Exception on /v1/models/{MARKER} [GET]")
    logging.getLogger("llm_service.app").error("constant", extra={"fields": {"path": MARKER}})
    assert [line["message"] for line in lines] == [logs.WITHHELD, "constant"]
    assert MARKER not in str(lines)


def test_handlers_that_libraries_installed_are_removed() -> None:
    logger = logging.getLogger("library.with.handler")
    messages: list[str] = []
    handler = logging.StreamHandler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logger.addHandler(handler)
    logger.propagate = False
    with captured_logs() as captured:
        logger.warning(MARKER)
    assert messages == []
    assert len(captured) == 1


def test_warnings_are_logged_with_category_and_position(lines: list[dict[str, Any]]) -> None:
    logs._show_warning(UserWarning(MARKER), UserWarning, "/somewhere/pydantic/main.py", 12)
    assert lines[0]["category"] == "UserWarning"
    assert lines[0]["at"] == "pydantic/main.py:12"
    assert MARKER not in str(lines)


def test_the_journals_logger_is_one_of_ours() -> None:
    assert journal.calls_log.name == "llm_service.calls"


# ---- whole processes: what is really written to stderr


def run(source: str, **environment: str) -> tuple[list[dict[str, Any]], str]:
    """Run ``source`` in a new process. Returns the JSON lines on stderr, and all output as text."""
    result = subprocess.run(
        [sys.executable, "-c", source],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=50,
    )
    return [orjson.loads(line) for line in result.stderr.splitlines()], result.stdout + result.stderr


SDKS = """
import http.server, threading
class Upstream(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        body = b'{{"error": {{"type": "api_error", "message": "{marker}"}}}}'
        self.send_response(500)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = "http://127.0.0.1:%d" % server.server_port
{first}
{second}
import logging
for client in (anthropic.Anthropic(api_key="sk-{marker}", base_url=url, max_retries=1),
               openai.OpenAI(api_key="sk-{marker}", base_url=url, max_retries=1)):
    try:
        client.post("/x", body={{"prompt": "{marker}"}}, cast_to=object)
    except Exception:
        logging.getLogger("openai").warning("seen %s", "{marker}", exc_info=True)
"""


@pytest.mark.parametrize("order", [0, 1], ids=["before the SDKs", "after the SDKs"])
def test_the_sdks_own_debug_switches_log_nothing(order: int) -> None:
    steps = ["from llm_service.observability import logs; logs.configure('DEBUG')", "import anthropic, openai"]
    first, second = steps if order == 0 else reversed(steps)
    source = SDKS.format(marker=MARKER, first=first, second=second)
    lines, output = run(source, ANTHROPIC_LOG="debug", OPENAI_LOG="debug", NO_PROXY="127.0.0.1")
    assert [line["message"] for line in lines] == ["seen %s"] * 2
    assert MARKER not in output


HOOKS = """
import sys, threading, warnings
import gevent
from llm_service.observability import logs
logs.configure("DEBUG")
logs.seal()
def fail():
    raise ValueError("{marker}")
thread = threading.Thread(target=fail)
thread.start()
thread.join()
gevent.spawn(fail).join()
class Finalized:
    def __del__(self):
        fail()
Finalized()
warnings.warn("{marker}")
fail()
"""


def test_the_text_of_uncaught_exceptions_and_warnings_is_not_logged() -> None:
    lines, output = run(HOOKS.format(marker=MARKER))
    assert [line["message"] for line in lines] == [
        "uncaught exception in a thread",
        "uncaught exception in a greenlet",
        "uncaught exception in a finalizer",
        "a library warned",
        "uncaught exception in the main thread",
    ]
    assert {line["exception"]["type"] for line in lines if "exception" in line} == {"builtins.ValueError"}
    assert MARKER not in output


SERVER = """
from flask import Flask, request
app = Flask("llm_service.app")
@app.get("/<path:path>")
def fail(path):
    raise ValueError(request.args["q"])
def wsgi(environ, start_response):
    if "/wsgi" in environ["PATH_INFO"]:
        raise ValueError(environ["QUERY_STRING"])
    return app(environ, start_response)
"""


def test_gunicorn_logs_its_start_and_stop_but_not_its_requests(tmp_path: Path) -> None:
    (tmp_path / "failing.py").write_text(SERVER)
    (tmp_path / "empty.conf.py").touch()
    command = [
        sys.executable,
        "-m",
        "gunicorn",
        "-c",
        "empty.conf.py",
        "-k",
        "gevent",
        "-b",
        "127.0.0.1:0",
        "--workers=1",
    ]
    command += [
        "--logger-class=llm_service.observability.logs.GunicornLogger",
        "--log-level=debug",
        "--access-logfile=-",
    ]
    command += ["--no-control-socket", "failing:wsgi"]
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stderr is not None
    assert process.stdout is not None
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.extend(process.stderr or ()), daemon=True)
    reader.start()
    try:
        port = _port(read)
        for request in (
            f"GET /flask/{MARKER}?q={MARKER} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            f"GET /wsgi?q={MARKER} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            f"GET / HTTP/1.1\r\nHost: x\r\nBad Header {MARKER}\r\n\r\n",
            f"{MARKER} {MARKER} {MARKER}\r\n\r\n",
        ):
            with socket.create_connection(("127.0.0.1", port), 5) as client:
                client.sendall(request.encode())
                while client.recv(65536):
                    pass
    finally:
        process.terminate()
        process.wait(20)
    reader.join(5)
    lines = [orjson.loads(line) for line in read]
    messages = [line["message"] for line in lines]
    assert any(message.startswith("Listening at: http://127.0.0.1:") for message in messages)
    assert any(message.startswith("Booting worker with pid: ") for message in messages)
    assert "Handling signal: term" in messages
    assert "Error handling request %s %s" in messages
    handled = [line.get("handling") for line in lines if line["message"] == logs.WITHHELD]
    assert len([name for name in handled if str(name).startswith("Invalid")]) == 2
    assert MARKER not in b"".join(read).decode()
    assert process.stdout.read() == b""
    process.stdout.close()
    process.stderr.close()


def _port(read: list[bytes]) -> int:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for line in list(read):
            message = orjson.loads(line)["message"]
            if message.startswith("Listening at: "):
                return int(message.split()[2].rpartition(":")[2])
        time.sleep(0.05)
    raise AssertionError(f"gunicorn did not start: {read}")
