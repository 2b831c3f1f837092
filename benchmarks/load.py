"""The load generator: plain sockets and one selector, each connection asking again as soon as it was answered.

About 15 us of this process per request, so it can ask several times more than a
gateway answers (its own limit, against the upstream, is printed with the results).
"""

from __future__ import annotations

import gc
import re
import selectors
import socket
import time
from dataclasses import dataclass, field

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_READ = 256 * 1024
# What is under way when the time is up may take this long to end, uncounted.
_PATIENCE = 5.0


class LoadError(RuntimeError):
    """A reply was not what it should be; the message quotes its beginning."""


@dataclass(frozen=True)
class Question:
    """A whole HTTP request, and by what its reply is known to be whole: ``end`` is in its last bytes.

    ``chunk``: what the chunks of a stream are counted by. ``first``: what the time to the first token is taken by.
    """

    port: int
    request: bytes
    end: bytes
    chunk: bytes = b""
    first: bytes = b""


@dataclass
class Sample:
    """What ``seconds`` of asking gave. Times are in seconds.

    ``answered`` counts also those that were still under way at the end, which are in no other number.
    """

    seconds: float
    answered: int = 0
    latencies: list[float] = field(default_factory=list)
    firsts: list[float] = field(default_factory=list)
    chunks: int = 0

    @property
    def rate(self) -> float:
        return len(self.latencies) / self.seconds

    @property
    def chunk_rate(self) -> float:
        """Streams that were cut by the end of the time count as far as they came."""
        return self.chunks / self.seconds

    def quantile(self, share: float) -> float:
        return quantile(self.latencies, share)


def quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("nan")


class _Connection:
    __slots__ = ("_answer", "_first_seen", "_length", "_question", "_sent_at", "sock")

    def __init__(self, question: Question) -> None:
        self._question = question
        self.sock = socket.create_connection(("127.0.0.1", question.port), timeout=_PATIENCE)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._answer = bytearray()

    def ask(self) -> None:
        self._answer.clear()
        self._length: int | None = None
        self._first_seen = not self._question.first
        self._sent_at = time.perf_counter()
        self.sock.sendall(self._question.request)

    def receive(self, sample: Sample) -> bool:
        """Take what has arrived; whether the reply is whole."""
        data = self.sock.recv(_READ)
        now = time.perf_counter()
        answer = self._answer
        answer += data
        if not data:
            raise self._wrong("the connection was closed inside a reply")
        if self._question.chunk:
            sample.chunks += data.count(self._question.chunk)
        if not self._first_seen and self._question.first in answer:
            self._first_seen = True
            sample.firsts.append(now - self._sent_at)
        if not self._is_whole():
            return False
        if not answer.startswith(b"HTTP/1.1 200") or self._question.end not in answer[-1024:]:
            raise self._wrong("not the reply that was expected")
        sample.latencies.append(now - self._sent_at)
        return True

    def _is_whole(self) -> bool:
        answer = self._answer
        if self._length is None:
            head_end = answer.find(b"\r\n\r\n")
            if head_end < 0:
                return False
            length = _LENGTH.search(answer, 0, head_end + 2)
            self._length = head_end + 4 + int(length[1]) if length else -1
        if self._length >= 0:
            return len(answer) >= self._length
        return answer.endswith(b"\r\n0\r\n\r\n")  # the last chunk; events have no CR

    def _wrong(self, what: str) -> LoadError:
        return LoadError(f"{what}: {bytes(self._answer[:600])!r}")


def run(question: Question, connections: int, seconds: float) -> Sample:
    """Ask over that many connections for that long.

    Raises:
        LoadError: a wrong reply, or none in time.
    """
    sample = Sample(seconds)
    selector = selectors.DefaultSelector()
    opened = [_Connection(question) for _ in range(connections)]
    gc.disable()
    try:
        for connection in opened:
            selector.register(connection.sock, selectors.EVENT_READ, connection)
        until = time.perf_counter() + seconds
        for connection in opened:
            connection.ask()
        waiting = connections
        counted = sample
        while waiting:
            ready = selector.select(_PATIENCE)
            if not ready:
                raise LoadError(f"no reply within {_PATIENCE:g} s")
            if counted is sample and time.perf_counter() > until:
                counted = Sample(seconds)  # what comes from now on is waited for, not counted
            for key, _ in ready:
                if not key.data.receive(counted):
                    continue
                sample.answered += 1
                if counted is sample:
                    key.data.ask()
                else:
                    waiting -= 1
    except OSError as error:
        raise LoadError(f"{type(error).__name__}: {error}") from error
    finally:
        gc.enable()
        selector.close()
        for connection in opened:
            connection.sock.close()
    return sample
