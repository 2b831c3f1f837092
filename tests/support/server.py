"""The service under test: gunicorn as a separate process with its own instance folder, port and databases."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import openai
from flask import Flask
from sqlalchemy import NullPool, create_engine, inspect, select, text

from llm_service import store
from llm_service.extensions import db
from llm_service.settings import Settings
from llm_service.store import keys
from llm_service.store.tables import RequestRow
from tests.support.processes import children, end_with_parent, free_port
from tests.support.raw import Raw
from tests.support.wait import wait_until

ROOT = Path(__file__).resolve().parents[2]
SECRET = "a-secret-of-the-tests-0123456789"
# The environment variables that a child inherits. None of them configures the service, the SDKs or pytest.
INHERITED = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "VIRTUAL_ENV",
    "LD_LIBRARY_PATH",
)
HIGH_RPM = 10_000_000
# A client would load the machine's certificates for itself, which takes 10 to 25 ms, and asks nothing over TLS.
TLS = ssl.create_default_context()


class StartFailed(RuntimeError):
    """The service did not start. The message ends with the service's own output."""


class Server:
    """A service. ``folder`` is an empty folder for it alone; ``environ`` has its settings as environment variables.

    Use it as a context manager, or call ``start`` and ``stop``. It can be started again with the same port, databases
    and keys.
    """

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self.folder = folder
        self.instance = folder / "instance"
        self.instance.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.environ = {name: os.environ[name] for name in INHERITED if name in os.environ} | {
            "HOST": "127.0.0.1",
            "PORT": str(free_port()),
            "LLM_SERVICE_INSTANCE": str(self.instance),
            "LLM_SERVICE_SECRET": SECRET,
            "PYTHONFAULTHANDLER": "1",
            **environ,
        }
        self.process: subprocess.Popen[bytes] | None = None
        self._clients: list[Any] = []
        self._app: Flask | None = None
        self._key: str | None = None

    # ---- start and stop

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.environ['PORT']}"

    @property
    def settings(self) -> Settings:
        """The settings as the service reads them."""
        return Settings.load(self.environ)

    def start(self, timeout: float = 30.0) -> Server:
        """Start the service and wait until /health answers.

        Raises:
            StartFailed: the process ended, or it did not answer in time.
        """
        assert self.process is None, "already started"
        with (self.folder / "stdout.log").open("ab") as out, (self.folder / "stderr.log").open("ab") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gunicorn", "-c", str(ROOT / "gunicorn.conf.py"), "wsgi:app"],
                cwd=ROOT,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                preexec_fn=end_with_parent(),
            )
        try:
            wait_until(self._is_up, timeout, "the service answers /health", 0.02)
        except TimeoutError as error:
            self.kill()
            raise StartFailed(f"{error}\n{self.log_text()[-4000:]}") from None
        return self

    def _is_up(self) -> bool:
        assert self.process is not None
        code = self.process.poll()
        if code is not None:
            self.process = None
            raise StartFailed(f"exit code {code}\n{self.log_text()[-4000:]}")
        try:
            with Raw(self.url, timeout=2) as raw:
                raw.request("GET", "/health", headers={"Connection": "close"})
                return raw.read_reply().status == 200
        except (OSError, EOFError):
            return False

    def send_signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self, timeout: float = 20.0) -> int:
        """Wait for the end of the process. Returns its exit code.

        Raises:
            subprocess.TimeoutExpired: the process still runs; it is not ended.
        """
        assert self.process is not None
        code = self.process.wait(timeout)
        self.process = None
        return code

    def stop(self, number: int = signal.SIGTERM, timeout: float = 20.0) -> int:
        """Send a signal and wait for the end of the process. Returns its exit code.

        Raises:
            AssertionError: the process did not end in time. It was killed.
        """
        self.close_clients()
        if self.process is None:
            return 0
        self.send_signal(number)
        try:
            return self.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(
                f"the service still ran {timeout} s after signal {number}\n{self.log_text()[-4000:]}"
            ) from None

    def kill(self) -> None:
        """Send SIGKILL to the arbiter and its workers, as if the machine lost its power."""
        self.close_clients()
        process, self.process = self.process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)

    def workers(self) -> list[int]:
        """The process ids of the workers."""
        assert self.process is not None
        return [pid for pid, command in children(self.process.pid).items() if "gunicorn" in command]

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # ---- callers

    @property
    def key(self) -> str:
        """A key whose limits no test reaches. It is made at the first use."""
        if self._key is None:
            self._key = self.create_key(name="tests", rpm=HIGH_RPM).text
        return self._key

    def create_key(self, name: str = "test", **options: Any) -> keys.Issued:
        """Make a key with the options of ``store.keys.issue``. ``.text`` is the key itself, ``.stored.id`` its id.

        The key is written directly into the database, because a command would take a second and a half. The command has
        its own tests.
        """
        if self._app is None:
            self._app = Flask("tests")
            store.configure(self._app, self.settings)
        with self._app.app_context():
            try:
                return keys.issue(self.settings.hmac_key, name=name, **options)
            finally:
                db.engine.dispose()

    def openai(self, key: str | None = None, **options: Any) -> openai.OpenAI:
        """The official client of this service, without retries. It is closed when the server stops."""
        values: dict[str, Any] = {"max_retries": 0, "timeout": 30, **options}
        return self._keep(openai.OpenAI(base_url=f"{self.url}/v1", api_key=key or self.key, **values))

    def anthropic(self, key: str | None = None, **options: Any) -> anthropic.Anthropic:
        values: dict[str, Any] = {"max_retries": 0, "timeout": 30, **options}
        return self._keep(anthropic.Anthropic(base_url=self.url, api_key=key or self.key, **values))

    def http(self, key: str | None = None, **options: Any) -> httpx2.Client:
        """A plain HTTP client that sends the key. ``key=""`` sends no key."""
        key = self.key if key is None else key
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return self._keep(httpx2.Client(base_url=self.url, headers=headers, timeout=30, verify=TLS, **options))

    def raw(self, timeout: float = 10.0, receive_buffer: int | None = None) -> Raw:
        """A new raw connection. The caller closes it."""
        return Raw(self.url, timeout, receive_buffer)

    def _keep(self, client: Any) -> Any:
        self._clients.append(client)
        return client

    def close_clients(self) -> None:
        while self._clients:
            self._clients.pop().close()

    def cli(self, *arguments: str, timeout: float = 30.0, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run ``flask --app wsgi ARGUMENTS`` with the service's settings."""
        return subprocess.run(
            [sys.executable, "-m", "flask", "--app", "wsgi", *arguments],
            cwd=ROOT,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=check,
        )

    def cli_json(self, *arguments: str) -> Any:
        return json.loads(self.cli(*arguments, "--json").stdout)

    # ---- what the service wrote

    def log_text(self) -> str:
        path = self.folder / "stderr.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def log_lines(self, **fields: Any) -> list[dict[str, Any]]:
        """The JSON lines of the log that have all these field values."""
        lines = [json.loads(line) for line in self.log_text().splitlines() if line.startswith("{")]
        return [line for line in lines if all(line.get(name) == value for name, value in fields.items())]

    def stray_lines(self) -> list[str]:
        """The lines on stderr that are not JSON."""
        return [line for line in self.log_text().splitlines() if line.strip() and not line.startswith("{")]

    def output(self) -> str:
        """The text on stdout: the first key and the welcome."""
        return (self.folder / "stdout.log").read_text(errors="replace")

    def rows(self, **columns: Any) -> list[dict[str, Any]]:
        """The rows of the request log that have all these column values, oldest first."""
        table = RequestRow.metadata.tables[RequestRow.__tablename__]
        statement = select(table).order_by(table.c.created_at, table.c.id)
        for name, value in columns.items():
            statement = statement.where(table.c[name] == value)
        engine = create_engine(self.settings.sqlalchemy_url, poolclass=NullPool)
        with engine.connect() as connection:
            return [dict(row) for row in connection.execute(statement).mappings()]

    def wait_rows(self, count: int = 1, timeout: float = 5.0, **columns: Any) -> list[dict[str, Any]]:
        """Wait until the log has ``count`` rows with these values, because rows are written after the answers are sent.

        Raises:
            TimeoutError: the rows did not appear in time.
        """

        def enough() -> list[dict[str, Any]]:
            rows = self.rows(**columns)
            return rows if len(rows) >= count else []

        return wait_until(enough, timeout, f"{count} rows with {columns}", 0.02)

    def row(self, request_id: str, timeout: float = 5.0) -> dict[str, Any]:
        """The only row of a call. ``request_id`` is the reply's X-Request-Id."""
        rows = self.wait_rows(1, timeout, request_id=request_id)
        assert len(rows) == 1, rows
        return rows[0]

    def places_with(self, marker: str) -> list[str]:
        """Where ``marker`` is found: files of the service's folder, logs, tables of an external database, /metrics."""
        wanted = marker.encode()
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        found = [str(path.relative_to(self.folder)) for path in files if wanted in path.read_bytes()]
        if self.settings.database_url is not None:
            engine = create_engine(self.settings.sqlalchemy_url, poolclass=NullPool)
            with engine.connect() as connection:
                for table in inspect(connection).get_table_names():
                    rows = connection.execute(text(f'SELECT * FROM "{table}"'))
                    found += [f"table {table}"] if any(marker in repr(row) for row in rows) else []
        if self.process is not None:
            found += ["/metrics"] if marker in self.http(key="").get("/metrics").text else []
        return found
