"""Sends small embeddings requests that arrive at the same time as one request to the vendor (a batch).

A program that indexes a folder, or a page with many search boxes, asks for one short
text at a time. A vendor accepts 2,048 texts in a request, limits requests per minute,
and takes as long for one text as for many. So a request waits a few milliseconds for
others with the same model, dimensions, encoding and end user.

* Each caller keeps its own journal entry, limits, deadline and cancellation. A caller
  that leaves does not disturb the others. When all have left, the request is cancelled.
* If the vendor rejects the batch, probably only one caller's request is wrong. Then
  each is sent alone, and only the wrong one is rejected. Any other failure is the
  failure of all, and each caller retries by itself (``routing``).
* The vendor counts the tokens of the whole batch, so each caller gets a share, by
  bytes, with ``Usage.exact`` False. A request that no other joins is sent, and
  counted, alone.

A batch is sent from a greenlet (thread) of its own, because every caller may leave.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final

from llm_service.core.call import Call
from llm_service.core.cancellation import Cancel
from llm_service.core.errors import ClientClosed, InternalError, ServiceError, UpstreamRejected, UpstreamTimeout
from llm_service.core.events import Answer, Attempt, Event, Finished
from llm_service.core.target import Target
from llm_service.formats.small import embeddings
from llm_service.providers import exchange

# Larger requests are sent at once: batching gains nothing for them, and the others would wait for their longer answer.
SMALL_INPUTS: Final = 64
SMALL_WEIGHT: Final = 32_000
_FIELDS: Final = frozenset({"model", "input", "dimensions", "encoding_format", "user"})
# Seconds that a caller waits longer than the request may take; the request's own time-outs should end it before.
_SLACK: Final = 5.0


@dataclass(eq=False, slots=True)
class _Member:
    """One call in a batch.

    ``batch_closed`` is set when no more calls can join; then ``shared`` says whether
    any other call did. ``done`` is set when ``outcome`` is there; if that is None, the
    call must be sent alone.
    """

    call: Call
    inputs: list[Any]
    batch_closed: threading.Event = field(default_factory=threading.Event)
    done: threading.Event = field(default_factory=threading.Event)
    shared: bool = False
    outcome: Answer | Exception | None = None


@dataclass(eq=False, slots=True)
class _Batch:
    target: Target
    members: list[_Member] = field(default_factory=list)
    full: threading.Event = field(default_factory=threading.Event)
    cancel: Cancel = field(default_factory=Cancel)
    inputs: int = 0
    weight: int = 0
    closed: bool = False
    answered: bool = False

    def fits(self, inputs: int, weight: int) -> bool:
        return self.inputs + inputs <= embeddings.MAX_INPUTS and self.weight + weight <= embeddings.MAX_TOKENS


class EmbeddingsBatcher:
    """Sends embeddings requests to ``lane``. ``window``: seconds that a batch stays open; 0 turns batching off."""

    def __init__(self, lane: exchange.Lane, window: float) -> None:
        self._lane, self._window = lane, window
        self._open: dict[tuple[Any, ...], _Batch] = {}
        self._lock = threading.Lock()

    def events(self, call: Call, target: Target, cancel: Cancel) -> Iterator[Event]:
        """The events of one call, as a provider yields them."""
        inputs = embeddings.inputs(call.body)
        weight = sum(map(embeddings.weight, inputs))
        small = len(inputs) <= SMALL_INPUTS and weight <= SMALL_WEIGHT and _FIELDS.issuperset(call.body)
        if self._window and small:
            member = _Member(call, inputs)
            batch = self._join(member, target, weight)
            try:
                cancel.wait(member.batch_closed, self._window + _SLACK)
                if member.shared:
                    yield Attempt(target.provider.name, target.model, target.price)
                    answer = _outcome(member, target, cancel)
                    if answer is not None:
                        yield Finished(answer)
                        return
            finally:
                self._leave(member, batch)
        yield from exchange.events(self._lane, call, target, cancel)

    def _join(self, member: _Member, target: Target, weight: int) -> _Batch:
        body = member.call.body
        tokens = isinstance(member.inputs[0], list)
        key = (target.name, tokens, body.get("dimensions"), body.get("encoding_format"), body.get("user"))
        with self._lock:
            batch = self._open.get(key)
            if batch is None or not batch.fits(len(member.inputs), weight):
                if batch is not None:
                    batch.full.set()
                batch = self._open[key] = _Batch(target)
                threading.Thread(target=self._run, args=(key, batch), daemon=True).start()
            batch.members.append(member)
            batch.inputs += len(member.inputs)
            batch.weight += weight
        return batch

    def _leave(self, member: _Member, batch: _Batch) -> None:
        with self._lock:
            if member in batch.members:
                batch.members.remove(member)
            abandoned = batch.closed and not batch.members  # while the batch is open, others may still join
        if abandoned and not batch.answered:
            batch.cancel.set(ClientClosed("Every client closed the connection."))

    def _run(self, key: tuple[Any, ...], batch: _Batch) -> None:
        batch.full.wait(self._window)
        with self._lock:
            if self._open.get(key) is batch:
                del self._open[key]
            members = list(batch.members)
            batch.closed = True
        for member in members:
            member.shared = len(members) > 1
            member.batch_closed.set()
        if len(members) < 2:
            return
        outcomes: list[Any]
        try:
            outcomes = self._send(members, batch)
        except UpstreamRejected as error:
            outcomes = [None if _may_concern_one_member(error) else copy.copy(error) for _ in members]
        except ServiceError as error:  # one copy for each: routing sets its fields, and raising adds to its traceback
            outcomes = [copy.copy(error) for _ in members]
        except Exception:  # noqa: BLE001 - otherwise the members would wait for nothing
            outcomes = [InternalError("The service failed.") for _ in members]
        batch.answered = True
        for member, outcome in zip(members, outcomes, strict=True):
            member.outcome = outcome
            member.done.set()

    def _send(self, members: list[_Member], batch: _Batch) -> list[Answer]:
        first = members[0].call
        body = {**first.body, "input": [item for member in members for item in member.inputs]}
        combined = replace(first, body=body, body_bytes=sum(member.call.body_bytes for member in members))
        for event in exchange.events(self._lane, combined, batch.target, batch.cancel):
            if type(event) is Finished:
                return embeddings.split(event.answer, [member.inputs for member in members])
        raise InternalError("The provider's answer has no end.")


def _outcome(member: _Member, target: Target, cancel: Cancel) -> Answer | None:
    if not cancel.wait(member.done, target.timeouts.total + _SLACK):
        raise UpstreamTimeout("The provider's answer exceeded the total time-out.", code="upstream_total_timeout")
    if isinstance(member.outcome, Exception):
        raise member.outcome
    return member.outcome


def _may_concern_one_member(error: UpstreamRejected) -> bool:
    """Whether the rejection may be about one member's input. One about the model or our own key concerns all."""
    return error.status not in (403, 404)
