"""The load generator: plain sockets and one selector. Each connection sends the next request after each reply.

It needs about 15 us of processor time per request, so it can send several times more requests than a gateway answers.
Its own limit, measured against the upstream, is printed with the results.
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
# Seconds to wait for a reply. Requests that run when the time is up are waited for, but not counted.
_REPLY_TIMEOUT = 5.0


class LoadError(RuntimeError):
    """A reply was wrong. The message quotes its beginning."""


@dataclass(frozen=True)
class LoadRequest:
    """A complete HTTP request (``data``), and how its reply is measured.

    ``end`` is in the last bytes of a complete reply. ``chunk`` appears once in each chunk of a stream, so chunks are
    counted by it. ``first`` appears in the first token, so the time to the first token is measured with it.
    """

    port: int
    data: bytes
    end: bytes
    chunk: bytes = b""
    first: bytes = b""


@dataclass
class Sample:
    """The results of ``seconds`` of load. Times are in seconds.

    ``answered`` also counts the requests that still ran at the end. No other number includes them.
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
        """Chunks per second. Of streams that still ran at the end, the chunks until then are counted."""
        return self.chunks / self.seconds

    def quantile(self, share: float) -> float:
        return quantile(self.latencies, share)


def quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("nan")


class _Connection:
    __slots__ = ("_answer", "_first_seen", "_length", "_request", "_sent_at", "sock")

    def __init__(self, request: LoadRequest) -> None:
        self._request = request
        self.sock = socket.create_connection(("127.0.0.1", request.port), timeout=_REPLY_TIMEOUT)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._answer = bytearray()

    def ask(self) -> None:
        self._answer.clear()
        self._length: int | None = None
        self._first_seen = not self._request.first
        self._sent_at = time.perf_counter()
        self.sock.sendall(self._request.data)

    def receive(self, sample: Sample) -> bool:
        """Read what has arrived. Returns whether the reply is complete."""
        data = self.sock.recv(_READ)
        now = time.perf_counter()
        answer = self._answer
        answer += data
        if not data:
            raise self._error("the connection was closed inside a reply")
        if self._request.chunk:
            sample.chunks += data.count(self._request.chunk)
        if not self._first_seen and self._request.first in answer:
            self._first_seen = True
            sample.firsts.append(now - self._sent_at)
        if not self._is_complete():
            return False
        if not answer.startswith(b"HTTP/1.1 200") or self._request.end not in answer[-1024:]:
            raise self._error("the reply is not the expected one")
        sample.latencies.append(now - self._sent_at)
        return True

    def _is_complete(self) -> bool:
        answer = self._answer
        if self._length is None:
            head_end = answer.find(b"\r\n\r\n")
            if head_end < 0:
                return False
            length = _LENGTH.search(answer, 0, head_end + 2)
            self._length = head_end + 4 + int(length[1]) if length else -1
        if self._length >= 0:
            return len(answer) >= self._length
        return answer.endswith(b"\r\n0\r\n\r\n")  # the last chunk; events contain no CR

    def _error(self, what: str) -> LoadError:
        return LoadError(f"{what}: {bytes(self._answer[:600])!r}")


def run(request: LoadRequest, connections: int, seconds: float) -> Sample:
    """Send requests over this number of connections for this time.

    Raises:
        LoadError: a reply was wrong or did not come in time.
    """
    sample = Sample(seconds)
    selector = selectors.DefaultSelector()
    opened = [_Connection(request) for _ in range(connections)]
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
            ready = selector.select(_REPLY_TIMEOUT)
            if not ready:
                raise LoadError(f"no reply within {_REPLY_TIMEOUT:g} s")
            if counted is sample and time.perf_counter() > until:
                counted = Sample(seconds)  # replies from now on are waited for, but not counted
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
