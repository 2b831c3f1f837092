"""The ledger as one worker uses it. What it promises: the package's docstring."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import orjson
from redis import Redis

from llm_service.billing.ledger.breaker import Gate, RedisAway
from llm_service.billing.ledger.local import LocalShare
from llm_service.billing.ledger.values import (
    Check,
    Held,
    Lost,
    Reaped,
    Settlement,
    bounded,
    encode,
    money_place,
    refusal,
)
from llm_service.core.errors import Rejected, Unavailable
from llm_service.core.ids import new_id

TICK: Final = 2.0  # seconds between two renewals
_BATCH: Final = 100  # calls in one script call: Redis serves nobody else meanwhile


@dataclass(slots=True, eq=False)
class _Live:
    """A call of this worker: enough to hold it again should Redis forget it."""

    checks: tuple[Check, ...]
    encoded: bytes
    record: bytes
    held: bool = False  # Redis has said so
    maybe_held: bool = False  # Redis was asked, and did not answer

    @property
    def money(self) -> bool:
        return any(check.kind == "money" for check in self.checks)


class Ledger:
    """Give each worker its own, with a ``worker_id`` never used before; greenlets and threads may share it.
    One that was made before a fork is another worker's in each process, under an id and on a connection of its own.

    ``redis``: as ``ledger.client`` makes it (bytes, short time-outs, no retries). ``workers``: how many share a
    quota while Redis is away. ``without_redis``: whether a call that has a budget is then refused (``closed``) or
    made (``open``), counted when Redis is back. ``retry_seconds``: how often a dead Redis is tried. ``now_ms`` is
    for tests: None is Redis' own clock.
    """

    def __init__(
        self,
        redis: Redis,
        worker_id: str,
        lease_seconds: float = 10,
        *,
        workers: int = 1,
        without_redis: Literal["closed", "open"] = "closed",
        prefix: str = "{llm}",
        retry_seconds: float = 1.0,
        now_ms: Callable[[], int] | None = None,
    ) -> None:
        self.without_redis = without_redis
        self._worker_id, self._process = worker_id, os.getpid()
        self.admitted_without_redis = 0
        self.refused_without_redis = 0
        self._gate = Gate(redis, prefix, now_ms, retry_seconds)
        self._lease_ms = int(lease_seconds * 1000)
        self._share = LocalShare(workers)
        self._live: dict[str, _Live] = {}
        self._lost: set[str] = set()
        self._uncounted = 0
        self._lock = threading.Lock()

    @property
    def worker_id(self) -> str:
        """Who owns this process' claims."""
        process = os.getpid()
        if process != self._process:
            self._worker_id, self._process = new_id(), process
        return self._worker_id

    @property
    def available(self) -> bool:
        """Whether Redis answered when it was asked last."""
        return self._gate.available

    @property
    def failures(self) -> int:
        """How often Redis did not answer."""
        return self._gate.failures

    # -- a call --

    def hold(self, call_id: str, checks: Iterable[Check], record: bytes) -> Held:
        """Take what the call may need of every limit, or of none. One round trip; a repeat is harmless.

        ``record`` comes back from ``reap`` should this worker die: what its row needs, free of content.

        Raises:
            BudgetExceeded, RateLimited: the first check that does not admit it.
            Unavailable: it has a budget, and Redis is away or its counters are not built yet.
            ValueError: two checks of one kind, scope and period.
        """
        checks = tuple(checks)
        known = self._live.get(call_id)
        if known is not None:
            return Held(call_id, known.held, checks)
        live = _Live(checks, encode(checks), record)
        try:
            reply = self._hold(call_id, live, "open" if self.without_redis == "open" else "check")
        except RedisAway as away:
            return self._hold_without_redis(call_id, live, away)
        if reply[0] == 0:
            raise refusal(checks[int(reply[1]) - 1], int(reply[2]), int(reply[3]))
        if reply[0] == 2:
            raise self._closed()
        self._share.clear()
        live.held = True
        self._live[call_id] = live
        return Held(call_id, True, checks, tuple(map(int, reply[1:])))

    def _hold(self, call_id: str, live: _Live, mode: str) -> Any:
        return self._gate.run("hold", call_id, self.worker_id, self._lease_ms, live.record, live.encoded, mode)

    def _hold_without_redis(self, call_id: str, live: _Live, away: RedisAway) -> Held:
        live.maybe_held = away.asked
        try:
            for check in live.checks:
                if check.amount > check.quota:
                    raise refusal(check, check.quota, -1)
            if live.money and self.without_redis == "closed":
                raise self._closed()
            with self._lock:
                self._share.take(live.checks, self._parallel)
                self._live[call_id] = live
        except Rejected:
            if live.maybe_held:
                with self._lock:
                    self._lost.add(call_id)
            raise
        self.admitted_without_redis += 1
        return Held(call_id, False, live.checks)

    def _closed(self) -> Unavailable:
        self.refused_without_redis += 1
        return Unavailable("The budget of this call cannot be checked at the moment.", retry_after=1)

    def _parallel(self, scope: str) -> int:
        return sum(
            any(check.kind == "slots" and check.scope == scope for check in live.checks)
            for live in list(self._live.values())
        )

    def settle(self, call_id: str, cost_nanousd: int, tokens: int, record: bytes, *, claimed: bool = False) -> bool:
        """As ``settle_many``, of one call."""
        return self.settle_many([Settlement(call_id, cost_nanousd, tokens, record, claimed)])[0]

    def settle_many(self, settlements: Sequence[Settlement]) -> list[bool]:
        """Give back what the calls held and count what they cost. One round trip for each 100; a repeat is harmless.

        Of each: True if its row is to be written, with that very cost; False if it was settled before, by
        whoever writes its row, or is neither held by this worker nor claimed. Redis away: True, and ``lost``
        remembers it.
        """
        told = [False] * len(settlements)
        due: list[tuple[int, Settlement, _Live | None]] = []
        for index, item in enumerate(settlements):
            live = None if item.claimed else self._live.pop(item.call_id, None)
            # What this worker has settled already it does not send again: Redis may not have heard of it yet.
            if live is not None or item.claimed:
                due.append((index, item, live))
        for start in range(0, len(due), _BATCH):
            batch = due[start : start + _BATCH]
            for (index, _, _), mine in zip(batch, self._settle_batch(batch), strict=True):
                told[index] = mine
        return told

    def _settle_batch(self, batch: Sequence[tuple[int, Settlement, _Live | None]]) -> list[bool]:
        arguments: list[str | bytes | int] = []
        for _, item, live in batch:
            arguments += (item.call_id, bounded(item.cost_nanousd), bounded(item.tokens), item.record)
            arguments += ("1" if item.claimed else "", live.encoded if live else "")
            arguments.append(orjson.dumps(item.exempt) if item.exempt else "")
        try:
            return [reply == 1 for reply in self._gate.run("settle", self.worker_id, *arguments)]
        except RedisAway as away:
            for _, item, live in batch:
                if live is not None:
                    self._lose(item, live, away)
            return [live is not None for _, _, live in batch]

    def _lose(self, item: Settlement, live: _Live, away: RedisAway) -> None:
        with self._lock:
            if live.held or live.maybe_held or away.asked:
                self._lost.add(item.call_id)
            self._uncounted += live.money and item.cost_nanousd > 0

    # -- every few seconds --

    def lost(self) -> Lost:
        """What could not be settled so far. Their rows must be durable before ``recover``."""
        with self._lock:
            return Lost(frozenset(self._lost), self._uncounted)

    def recount(self) -> None:
        """Have the counters built again: the log has a row that says another cost than was settled here.

        Before the call is reported as ``written``: should this worker die in between, another finds it out again.
        """
        try:
            self._gate.run("forget", "1")
        except RedisAway:
            with self._lock:
                self._uncounted += 1

    def recover(self, lost: Lost) -> bool:
        """Free what lost calls still hold. The log knows what they cost: if that was money, ``is_empty`` is
        true from now on, in every worker, until a rebuild. False: Redis is (still) away."""
        if not lost.ids and not lost.uncounted:
            return True
        ids = sorted(lost.ids)
        try:
            # An empty batch when only money is missing. Freed and recounted in one step: never is too little held.
            for start in range(0, max(1, len(ids)), _BATCH):
                self._gate.run("forget", "1" if lost.uncounted else "", *ids[start : start + _BATCH])
        except RedisAway:
            return False
        with self._lock:
            self._lost -= lost.ids
            self._uncounted -= lost.uncounted
        return True

    def renew(self, seen: Mapping[str, int]) -> None:
        """Keep the leases of this worker's calls, with the output tokens each has had; those not named too.

        One round trip for each 100. What Redis has forgotten, or never knew, is held there again, whatever the quotas.
        """
        live = list(self._live)
        for start in range(0, len(live), _BATCH):
            self._renew_batch(live[start : start + _BATCH], seen)

    def _renew_batch(self, ids: Sequence[str], seen: Mapping[str, int]) -> None:
        pairs = [value for call_id in ids for value in (call_id, bounded(seen.get(call_id, 0)))]
        try:
            missing = self._gate.run("renew", self.worker_id, self._lease_ms, *pairs)
            for call_id in map(bytes.decode, missing):
                live = self._live.get(call_id)
                if live is not None:
                    self._hold_again(call_id, live)
        except RedisAway:
            return

    def _hold_again(self, call_id: str, live: _Live) -> None:
        """Redis has lost it, or a reaper has settled it: then the script does nothing."""
        live.maybe_held = True
        try:
            self._hold(call_id, live, "force")
            live.held = True
            if call_id not in self._live:  # settled in the meantime: this hold would be nobody's
                self._gate.run("forget", "", call_id)
        except RedisAway:
            if call_id not in self._live:
                with self._lock:
                    self._lost.add(call_id)
            raise

    def reap(self, limit: int = _BATCH) -> list[Reaped]:
        """Calls whose lease has ended, claimed by this worker: no other reaper gets them for another lease.

        Settle each with ``claimed=True``: nothing happens if its own worker came back, or was slow and settled it.
        Of a call whose row the log has already, settle the row's own cost and tokens. Redis away: none.
        """
        try:
            flat = self._gate.run("claim", self.worker_id, self._lease_ms, limit)
        except RedisAway:
            return []
        return [
            Reaped(flat[at].decode(), flat[at + 1], int(flat[at + 2]), int(flat[at + 3]))
            for at in range(0, len(flat), 4)
        ]

    def unwritten(self, older_than: float, limit: int = 1_000) -> dict[str, bytes]:
        """Records settled at least ``older_than`` seconds ago and not reported as ``written``, oldest first."""
        try:
            flat = self._gate.run("unwritten", int(older_than * 1000), limit)
        except RedisAway:
            return {}
        return {flat[at].decode(): flat[at + 1] for at in range(0, len(flat), 2)}

    def written(self, ids: Iterable[str]) -> bool:
        """The rows of these calls are durable. False: Redis is away; ``unwritten`` will name them again."""
        given = list(ids)
        try:
            for start in range(0, len(given), _BATCH):
                self._gate.run("written", *given[start : start + _BATCH])
        except RedisAway:
            return False
        return True

    # -- counters --

    def balances(self, scope: str, period: str) -> tuple[int, int]:
        """(spent, held) in nano-dollars. Raises Unavailable."""
        spent, held = self._asked("balance", money_place(scope, period))
        return int(spent), int(held)

    def is_empty(self) -> bool:
        """Whether the counters have to be built: Redis is new, came back empty, or misses costs. Raises Unavailable."""
        return not self._asked("epoch")

    def begin_rebuild(self, epoch: str, seconds: int = 60) -> bool:
        """Become the one process that builds the counters, for at most ``seconds``; call it before the log is read.
        ``epoch`` is a new id. False: another does. Raises Unavailable."""
        return bool(self._asked("begin", epoch, seconds))

    def counted(self) -> set[str]:
        """Calls that are held or cost something here, whose rows a snapshot of the log, begun before, may or may not
        have. Raises Unavailable."""
        return {call_id.decode() for call_id in self._asked("counted")}

    def rebuild(
        self,
        epoch: str,
        spent: Mapping[tuple[str, str], int],
        included: Collection[str] = (),
        resets_at_ms: Mapping[tuple[str, str], int] | None = None,
    ) -> bool:
        """Make ``spent`` of (scope, period), as a snapshot of the log has it, the truth; others become 0.

        Untouched: what live calls hold. Costs of calls in ``counted`` but not in ``included`` are added; of those in
        ``included`` nothing is held any more.
        ``resets_at_ms``: when a period ends, so that its counter is not kept for ever.
        False: ``begin_rebuild`` of this epoch has run out, or was never called. Raises Unavailable.
        """
        places = dict.fromkeys(self._counters(), (0, ""))
        for (scope, period), nanodollars in spent.items():
            ends = (resets_at_ms or {}).get((scope, period))
            places[money_place(scope, period)] = bounded(nanodollars), "" if ends is None else str(ends)
        rows = [value for place, pair in places.items() for value in (place, *pair)]
        return bool(self._asked("rebuild", epoch, len(places), *rows, *included))

    def _counters(self) -> Iterator[str]:
        """Places of money that Redis counts; of some more than once."""
        cursor = b"0"
        while True:
            cursor, *places = self._asked("places", cursor)
            yield from map(bytes.decode, places)
            if cursor == b"0":
                return

    def _asked(self, operation: str, *arguments: str | bytes | int) -> Any:
        try:
            return self._gate.run(operation, *arguments)
        except RedisAway as away:
            raise Unavailable("Redis did not answer.") from away
