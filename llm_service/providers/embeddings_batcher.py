"""Small embedding requests of one moment as one request to the vendor.

An index of a folder, or a page of search boxes, asks for one short text at a time;
a vendor takes 2,048 at once, counts requests per minute and takes as long for one as
for many. So a request waits a few milliseconds for others of its kind: same model,
dimensions, encoding and end user.

* Each caller keeps its own journal entry, limits, deadline and way to leave. One that
  leaves does not disturb the others; when all have left the vendor's answer is not
  waited for.
* A refusal of the gathered request is the fault of one of them: each is asked alone
  then, and only that one is refused. Every other failure is the failure of all, and
  each tries again by itself (routing).
* The vendor counts tokens for the whole, so each has its share, by bytes, and
  ``Usage.exact`` False. Who finds no company is asked, and counted, alone.

The request is sent from a greenlet (thread) of its own, since any caller may leave.
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

# Larger requests go at once: they gain nothing, and would make the others wait for their answer.
SMALL_INPUTS: Final = 64
SMALL_WEIGHT: Final = 32_000
_FIELDS: Final = frozenset({"model", "input", "dimensions", "encoding_format", "user"})
# Beyond the time-outs of the request itself, which end it in good time.
_SLACK: Final = 5.0


@dataclass(eq=False, slots=True)
class _Member:
    """One call in a batch. ``departed``: it is known whether others come along; ``ended``: its ``outcome`` is there.

    ``outcome`` None: ask alone.
    """

    call: Call
    inputs: list[Any]
    departed: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    together: bool = False
    outcome: Answer | Exception | None = None


@dataclass(eq=False, slots=True)
class _Batch:
    target: Target
    members: list[_Member] = field(default_factory=list)
    full: threading.Event = field(default_factory=threading.Event)
    cancel: Cancel = field(default_factory=Cancel)
    inputs: int = 0
    weight: int = 0
    departed: bool = False
    over: bool = False

    def fits(self, inputs: int, weight: int) -> bool:
        return self.inputs + inputs <= embeddings.MAX_INPUTS and self.weight + weight <= embeddings.MAX_TOKENS


class EmbeddingsBatcher:
    """``seconds`` 0: every request goes alone."""

    def __init__(self, vendor: exchange.Lane, seconds: float) -> None:
        self._vendor, self._seconds = vendor, seconds
        self._open: dict[tuple[Any, ...], _Batch] = {}
        self._lock = threading.Lock()

    def events(self, call: Call, target: Target, cancel: Cancel) -> Iterator[Event]:
        """As a provider's."""
        inputs = embeddings.inputs(call.body)
        weight = sum(map(embeddings.weight, inputs))
        small = len(inputs) <= SMALL_INPUTS and weight <= SMALL_WEIGHT and _FIELDS.issuperset(call.body)
        if self._seconds and small:
            member = _Member(call, inputs)
            batch = self._join(member, target, weight)
            try:
                cancel.wait(member.departed, self._seconds + _SLACK)
                if member.together:
                    yield Attempt(target.provider.name, target.model, target.price)
                    answer = _outcome(member, target, cancel)
                    if answer is not None:
                        yield Finished(answer)
                        return
            finally:
                self._leave(member, batch)
        yield from exchange.events(self._vendor, call, target, cancel)

    def _join(self, member: _Member, target: Target, weight: int) -> _Batch:
        body = member.call.body
        tokens = isinstance(member.inputs[0], list)
        given = (body.get("dimensions"), body.get("encoding_format"), body.get("user"))
        kind = (target.name, tokens, *given)
        with self._lock:
            batch = self._open.get(kind)
            if batch is None or not batch.fits(len(member.inputs), weight):
                if batch is not None:
                    batch.full.set()
                batch = self._open[kind] = _Batch(target)
                threading.Thread(target=self._run, args=(kind, batch), daemon=True).start()
            batch.members.append(member)
            batch.inputs += len(member.inputs)
            batch.weight += weight
        return batch

    def _leave(self, member: _Member, batch: _Batch) -> None:
        with self._lock:
            if member in batch.members:
                batch.members.remove(member)
            nobody = batch.departed and not batch.members  # before, others may still come
        if nobody and not batch.over:
            batch.cancel.set(ClientClosed("Every client closed the connection."))

    def _run(self, kind: tuple[Any, ...], batch: _Batch) -> None:
        batch.full.wait(self._seconds)
        with self._lock:
            if self._open.get(kind) is batch:
                del self._open[kind]
            members = list(batch.members)
            batch.departed = True
        for member in members:
            member.together = len(members) > 1
            member.departed.set()
        if len(members) < 2:
            return
        outcomes: list[Any]
        try:
            outcomes = self._ask(members, batch)
        except UpstreamRejected as error:
            outcomes = [None if _may_be_one_s_fault(error) else copy.copy(error) for _ in members]
        except ServiceError as error:  # each its own: routing writes on it, and it grows a traceback
            outcomes = [copy.copy(error) for _ in members]
        except Exception:  # noqa: BLE001 - nobody else would tell those who wait
            outcomes = [InternalError("The service failed.") for _ in members]
        batch.over = True
        for member, outcome in zip(members, outcomes, strict=True):
            member.outcome = outcome
            member.ended.set()

    def _ask(self, members: list[_Member], batch: _Batch) -> list[Answer]:
        first = members[0].call
        body = {**first.body, "input": [given for member in members for given in member.inputs]}
        gathered = replace(first, body=body, body_bytes=sum(member.call.body_bytes for member in members))
        for event in exchange.events(self._vendor, gathered, batch.target, batch.cancel):
            if type(event) is Finished:
                return embeddings.split(event.answer, [member.inputs for member in members])
        raise InternalError("A provider's answer has no end.")


def _outcome(member: _Member, target: Target, cancel: Cancel) -> Answer | None:
    if not cancel.wait(member.ended, target.timeouts.total + _SLACK):
        raise UpstreamTimeout("The provider went over the total time-out.", code="upstream_total_timeout")
    if isinstance(member.outcome, Exception):
        raise member.outcome
    return member.outcome


def _may_be_one_s_fault(error: UpstreamRejected) -> bool:
    """Not what is wrong with the model, or with the service's own key."""
    return error.status not in (401, 403, 404)
