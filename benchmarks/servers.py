"""The three servers of a benchmark, which are started and stopped together.

If there are two or more processor cores and the system can pin processes to cores, then the gateway, its Valkey and the
bare endpoint run on one core, and the upstream and the load generator on another.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parent.parent
_START_SECONDS, _STOP_SECONDS = 30.0, 15.0
# Far above the number of requests, but far below "unlimited", so that every call is counted.
_RPM = "1000000"


class ServerError(RuntimeError):
    """A server did not start. The message ends with the server's output."""


@dataclass(frozen=True)
class Cores:
    """The core of each side, or None if processes cannot be pinned."""

    service: int | None
    load: int | None

    def __str__(self) -> str:
        if self.service is None:
            return "not pinned to cores: there is only one core, or the system cannot pin processes"
        return f"service on core {self.service}, load and upstream on core {self.load}"


@dataclass(frozen=True)
class Servers:
    gateway: int
    bare: int
    upstream: int
    key: str
    gateway_worker: int | None
    bare_worker: int | None


def cores() -> Cores:
    if not hasattr(os, "sched_getaffinity"):
        return Cores(None, None)
    usable = sorted(os.sched_getaffinity(0))
    return Cores(usable[-1], usable[0]) if len(usable) > 1 else Cores(None, None)


@contextmanager
def running(where: Cores) -> Iterator[Servers]:
    """Start the servers and wait until they answer. Stops them and removes their files afterwards."""
    with TemporaryDirectory(prefix="llm-service-bench-") as folder, _Processes(Path(folder)) as processes:
        vendor = processes.start("upstream", ["benchmarks.upstream"], {}, where.load, stdout=subprocess.PIPE)
        assert vendor.stdout is not None
        upstream = int(vendor.stdout.readline() or 0)
        gateway, bare = _free_port(), _free_port()
        url = f"http://127.0.0.1:{upstream}"
        settings = {
            "PORT": str(gateway),
            "WEB_CONCURRENCY": "1",
            "LLM_SERVICE_INSTANCE": str(Path(folder) / "instance"),
            "OPENAI_API_KEY": "sk-benchmark",
            "OPENAI_BASE_URL": f"{url}/v1",
            "ANTHROPIC_API_KEY": "sk-ant-benchmark",
            "ANTHROPIC_BASE_URL": url,
        }
        arbiter = processes.start("gateway", ["gunicorn", "wsgi:app"], settings, where.service)
        # gunicorn's own gevent worker with the gateway's settings.
        options = "-k gevent -w 1 --worker-connections 2000 --keep-alive 75 --no-control-socket --log-level warning"
        command = ["gunicorn", "-c", os.devnull, *options.split(), "-b", f"127.0.0.1:{bare}", "benchmarks.bare:app"]
        bare_arbiter = processes.start("bare", command, {}, where.service)
        processes.wait_for("gateway", gateway)
        processes.wait_for("bare", bare)
        key = _make_key(settings)
        yield Servers(gateway, bare, upstream, key, _worker_of(arbiter.pid), _worker_of(bare_arbiter.pid))


class _Processes:
    """Starts processes and stops them in reverse order."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: dict[str, subprocess.Popen[str]] = {}

    def __enter__(self) -> _Processes:
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._started.values()):
            if process.stdin is not None:
                process.stdin.close()
            else:
                process.terminate()
        for process in self._started.values():
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def start(
        self, name: str, module: Sequence[str], settings: dict[str, str], core: int | None, stdout: int | None = None
    ) -> subprocess.Popen[str]:
        with open(self._folder / f"{name}.log", "w", encoding="utf-8") as log, _pinned(core):
            process = subprocess.Popen(
                [sys.executable, "-m", *module],
                cwd=ROOT,
                env={**_environment(), **settings},
                stdin=subprocess.PIPE if stdout else None,
                stdout=stdout or log,
                stderr=log,
                text=True,
                start_new_session=True,  # Ctrl-C reaches only this process, which then stops the servers in order
            )
        self._started[name] = process
        return process

    def wait_for(self, name: str, port: int) -> None:
        """Wait until the server answers on this port with any reply. Raises ServerError."""
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and self._started[name].poll() is None:
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=_START_SECONDS) as connection:
                    connection.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                    if connection.recv(1):
                        return
            except OSError:
                time.sleep(0.05)
        output = (self._folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")
        raise ServerError(f"{name} did not start:\n{output[-2000:]}")


@contextmanager
def _pinned(core: int | None) -> Iterator[None]:
    """Processes that are started inside, and their children, stay on ``core``."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def pin_this_process(where: Cores) -> None:
    if where.load is not None:
        os.sched_setaffinity(0, {where.load})


def _environment() -> dict[str, str]:
    """This process' environment without variables that would change a server: settings, proxies, databases."""
    ours = ("LLM_SERVICE_", "OPENAI_", "ANTHROPIC_", "GUNICORN_", "PROMETHEUS_")
    others = {"HOST", "PORT", "WEB_CONCURRENCY", "DATABASE_URL", "REDIS_URL", "API_KEYS"}
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(ours) and name not in others and not name.lower().endswith("_proxy")
    }


def _make_key(settings: dict[str, str]) -> str:
    command = [sys.executable, "-m", "flask", "--app", "wsgi", "keys", "create", "--name", "benchmark", "--json"]
    made = subprocess.run(
        [*command, "--rpm", _RPM],
        cwd=ROOT,
        env={**_environment(), **settings},
        capture_output=True,
        text=True,
        timeout=_START_SECONDS,
        check=False,
    )
    if made.returncode != 0:
        raise ServerError(f"the key could not be created: {made.stderr[-2000:]}")
    return str(json.loads(made.stdout)["key"])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _worker_of(arbiter: int) -> int | None:
    """The arbiter's child process that is gunicorn (the other is Valkey). None if the system has no /proc."""
    try:
        children = Path(f"/proc/{arbiter}/task/{arbiter}/children").read_text().split()
        return next(int(child) for child in children if b"gunicorn" in Path(f"/proc/{child}/cmdline").read_bytes())
    except (OSError, StopIteration):
        return None


def memory(process: int | None) -> float | None:
    """The resident memory in megabytes. None if the system has no /proc."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return None
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS"))


def processor_seconds(process: int | None) -> float | None:
    """The processor time that ``process`` has used. None if the system has no /proc."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
