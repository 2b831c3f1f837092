"""Plays one step on one connection: sends the answer with the step's delays and faults."""

from __future__ import annotations

import gzip
import time
import zlib
from collections.abc import Iterable
from dataclasses import replace
from email.utils import formatdate

from tests.upstream.answer import Event, describe
from tests.upstream.http1 import Connection, chunk, head
from tests.upstream.ledger import Bill, Ledger, SeenRequest
from tests.upstream.rejection import Rejected
from tests.upstream.steps import Step
from tests.upstream.wire import Vendor

HANG_LIMIT = 120.0  # seconds, which is longer than any test waits


class StepPlayer:
    """Answers one request.

    The outcome is recorded in the ledger just before the last bytes are sent. So a test that has read the whole answer
    finds the finished entry.
    """

    def __init__(self, connection: Connection, seen: SeenRequest, ledger: Ledger, vendor: Vendor, step: Step) -> None:
        self.connection, self.seen, self.ledger = connection, seen, ledger
        self.vendor, self.step = vendor, step
        self.prompt = ""
        self.key = seen.headers.get("x-api-key") or seen.headers.get("authorization", "").removeprefix("Bearer ")

    # ---- plain answers and errors

    def plain(self, status: int, headers: dict[str, str], body: bytes, outcome: str, bill: Bill | None = None) -> None:
        """Send a response with one body. ``step.after`` is a number of its bytes."""
        step = self.step
        self._before_status_line()
        if step.gzip:
            body, headers = gzip.compress(body), {**headers, "content-encoding": "gzip"}
        sent, declared = body, len(body)
        if step.fault in ("end", "malformed", "close", "reset", "hang", "stall"):
            sent = body[: max(step.after, 0)]
            declared = len(sent) if step.fault in ("end", "malformed") else declared
        self.seen.billed = bill
        block = self._head(status, self._plain_headers(headers, declared))
        if step.fault == "inject":
            sent = step.data.encode() + sent
        if not sent and step.fault not in ("close", "reset", "hang", "stall"):
            self._end(outcome)
        self._send_head(block)
        self.connection.wait(step.before_first)
        if step.fault in ("close", "reset", "hang", "stall"):
            self._body(sent)
            self._play_fault()
            sent = body[max(step.after, 0) :]
        self._end(outcome)
        self._body(sent)
        if step.chunked:
            self.connection.send(chunk(b""))
        self._after_answer()

    def _plain_headers(self, headers: dict[str, str], length: int) -> list[tuple[str, str]]:
        pairs = list(headers.items())
        if self.step.chunked:
            return [*pairs, ("transfer-encoding", "chunked")]
        if self.step.duplicate_length:
            pairs.append(("content-length", str(length + 10)))
        return [*pairs, ("content-length", str(length))]

    def _body(self, data: bytes) -> None:
        if not data:
            return
        size = max(1, -(-len(data) // 8)) if self.step.between else len(data)
        for start in range(0, len(data), size):
            if start:
                self.connection.wait(self.step.between)
            piece = data[start : start + size]
            self.seen.bytes_sent += len(piece)
            self.connection.send(chunk(piece) if self.step.chunked else piece, self.step.split)

    # ---- streams

    def stream(self, headers: dict[str, str], events: list[Event], bill: Bill) -> None:
        """Send server-sent events in a chunked body. ``step.after`` is a number of events."""
        step = self.step
        self._before_status_line()
        events = self._events_with_fault(events)
        compressor = zlib.compressobj(wbits=31) if step.gzip else None
        if step.gzip:
            headers = {**headers, "content-encoding": "gzip"}
        fault_at = self._fault_position(events)
        self.seen.billed = replace(bill, output_tokens=0, reasoning_tokens=0)
        self._send_head(self._head(200, [*headers.items(), ("transfer-encoding", "chunked")]))
        for number, event in enumerate(events):
            if number == fault_at and not self._play_fault():
                break
            self.connection.wait(step.between if number else step.before_first)
            self._count(event, number == len(events) - 1 and fault_at != len(events), bill)
            data = event.data if step.newline == "\n" else event.data.replace(b"\n", step.newline.encode())
            self._chunk(compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH) if compressor else data)
        else:
            if fault_at == len(events):
                self._play_fault()
        if compressor:
            self._chunk(compressor.flush())
        self.connection.send(chunk(b""), step.split)
        self._after_answer()

    def _chunk(self, data: bytes) -> None:
        self.connection.send(chunk(data), self.step.split)
        self.seen.bytes_sent += len(data)

    def _count(self, event: Event, last: bool, bill: Bill) -> None:
        seen = self.seen
        if not seen.events_sent:
            seen.first_event_at = time.monotonic()
        seen.events_sent += 1
        seen.text_sent += event.text
        if last:
            seen.billed = bill
            self._end("answered")
        elif seen.billed is not None:
            seen.billed.output_tokens += event.tokens

    def _fault_position(self, events: list[Event]) -> int:
        """The index of the event before which the fault is played.

        ``len(events)`` means after the last event, and -1 means that no fault interrupts the stream.
        """
        step = self.step
        if step.fault not in ("hang", "stall", "reset", "close", "end", "error") or step.after < 0:
            return -1
        last = len(events)
        if step.fault in ("end", "error") and events and self.vendor.terminal(events[-1].data):
            last -= 1
        return min(step.after, last)

    def _events_with_fault(self, events: list[Event]) -> list[Event]:
        """The events with the faults that change events but do not interrupt the stream."""
        step, position = self.step, min(max(self.step.after, 0), max(len(events) - 1, 0))
        if step.fault == "disorder":
            rest = [*events[:position], *events[position + 1 :]]
            return [*rest[: position + 2], *events[position : position + 1], *rest[position + 2 :]]
        extra: bytes | None = None
        if step.fault == "duplicate":
            extra = events[position].data
        elif step.fault == "malformed":
            extra = self.vendor.event("content_block_delta", b'{"type":"content_block_delta","index":0,"delta":{"te')
        elif step.fault == "unknown":
            extra = self.vendor.event("shiny_new_event", b'{"type":"shiny_new_event","choices":[],"shiny":true}')
        elif step.fault == "inject":
            extra = step.data.encode("utf-8", "surrogateescape")
        return events if extra is None else [*events[:position], Event(extra), *events[position:]]

    # ---- faults of plain answers and streams

    def _before_status_line(self) -> None:
        """Play what comes before the status line: the delay, a fault and the interim statuses."""
        self.connection.wait(self.step.before_headers)
        if self.step.after < 0 and self.step.fault in ("hang", "stall", "reset", "close"):
            self._play_fault()
        for status in self.step.interim:
            extra = {"link": "</style.css>; rel=preload"} if status == 103 else {}
            self.connection.send(head(status, extra))

    def _play_fault(self) -> bool:
        """Play the fault that interrupts the answer here. Returns whether the answer continues afterwards.

        Raises:
            ClientGone: the client disconnected while this side waited.
            ConnectionAbortedError: this side closed the connection.
        """
        step = self.step
        if step.fault == "stall":
            self.connection.wait(step.pause)
            return True
        if step.fault == "hang":
            self.connection.wait(HANG_LIMIT)
        self._end(step.fault or "")
        if step.fault == "error":
            rejected = self.rejection(step.status or 500)
            data = self.vendor.error_event(rejected, self.seen.request_id)
            self.seen.events_sent += 1
            self._chunk(data)
            return False
        if step.fault == "end":
            return False
        if step.fault == "reset":
            self.connection.reset()
        else:
            self.connection.close()
        raise ConnectionAbortedError

    def rejection(self, status: int) -> Rejected:
        """The error for this status with the vendor's type, message and code, or those that the step sets."""
        step = self.step
        kind, message, code = self.vendor.error_of(status)
        if step.message is not None:
            message = describe(step.message, self.prompt, self.seen.text_sent, self.key)
        return Rejected(status, step.error_type or kind, message, step.error_param, step.error_code or code)

    def _head(self, status: int, pairs: Iterable[tuple[str, str]]) -> bytes:
        self.seen.status = status
        connection = "close" if self.connection.closing else "keep-alive"
        return head(status, [("date", formatdate(usegmt=True)), *pairs, ("connection", connection)])

    def _send_head(self, block: bytes) -> None:
        if not self.step.slow_headers:
            self.connection.send(block, self.step.split)
            return
        size = -(-len(block) // 100)
        for position in range(0, len(block), size):
            self.connection.send(block[position : position + size])
            self.connection.wait(self.step.slow_headers / 100)

    def _end(self, outcome: str) -> None:
        self.ledger.end(self.seen, outcome)

    def _after_answer(self) -> None:
        """Close a connection that was announced as kept alive, if the step says so."""
        if self.step.then == "close":
            self.connection.close()
        elif self.step.then == "close_on_next":
            self.connection.close_on_next = True
