"""The ledger as one worker uses it. Its invariants are in the package's docstring."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import orjson
from redis import Redis

from llm_service.billing.ledger.redis_gate import Gate, RedisAway
from llm_service.billing.ledger.values import (
    Check,
    Held,
    Lost,
    Reaped,
    Settlement,
    bounded,
    encode,
    money_key,
    rejection,
)
from llm_service.billing.ledger.without_redis import LocalShare
from llm_service.core.errors import Rejected, Unavailable
from llm_service.core.ids import new_id

TICK: Final = 2.0  # seconds between two renewals
_BATCH: Final = 100  # calls in one run of the script; Redis serves no other client meanwhile


@dataclass(slots=True, eq=False)
class _Live:
    """A call of this worker, with what is needed to hold it again if Redis loses the hold."""

    checks: tuple[Check, ...]
    encoded: bytes
    record: bytes
    held: bool = False  # Redis has confirmed the hold
    maybe_held: bool = False  # Redis was asked but did not answer

    @property
    def money(self) -> bool:
        return any(check.kind == "money" for check in self.checks)


class Ledger:
    """Each worker has one, with a ``worker_id`` that was never used before. Greenlets and threads may share it.

    A ledger that was created before a fork acts as another worker in each process, with another id and connection.

    ``redis``: from ``ledger.client`` (bytes, short time-outs, no retries). ``workers``: how many workers share a
    quota while Redis is unavailable. ``without_redis``: whether a call with a budget is then rejected (``closed``)
    or sent (``open``) and counted when Redis is back. ``retry_seconds``: how often a dead Redis is probed.
    ``now_ms`` is for tests; None means Redis' own clock.
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
        """The owner of this process' claims. It changes after a fork."""
        process = os.getpid()
        if process != self._process:
            self._worker_id, self._process = new_id(), process
        return self._worker_id

    @property
    def available(self) -> bool:
        """Whether Redis answered the last command."""
        return self._gate.available

    @property
    def failures(self) -> int:
        """How often Redis did not answer."""
        return self._gate.failures

    # -- a call --

    def hold(self, call_id: str, checks: Iterable[Check], record: bytes) -> Held:
        """Take what the call may need of every limit, or take nothing. One round trip; a repeat is harmless.

        ``record`` is what the call's row needs, without content. If this worker dies, ``reap`` returns it.

        Raises:
            BudgetExceeded, RateLimited: a check does not admit the call; the first such check is reported.
            Unavailable: the call has a budget, and Redis is unavailable or its counters are not built yet.
            ValueError: two checks have the same kind, scope and period.
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
            raise rejection(checks[int(reply[1]) - 1], int(reply[2]), int(reply[3]))
        if reply[0] == 2:
            raise self._budget_unavailable()
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
                    raise rejection(check, check.quota, -1)
            if live.money and self.without_redis == "closed":
                raise self._budget_unavailable()
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

    def _budget_unavailable(self) -> Unavailable:
        self.refused_without_redis += 1
        return Unavailable("The budget of this call cannot be checked at the moment.", retry_after=1)

    def _parallel(self, scope: str) -> int:
        return sum(
            any(check.kind == "slots" and check.scope == scope for check in live.checks)
            for live in list(self._live.values())
        )

    def settle(self, call_id: str, cost_nanousd: int, tokens: int, record: bytes, *, claimed: bool = False) -> bool:
        """``settle_many`` for one call."""
        return self.settle_many([Settlement(call_id, cost_nanousd, tokens, record, claimed)])[0]

    def settle_many(self, settlements: Sequence[Settlement]) -> list[bool]:
        """Release what the calls held and count what they cost. One round trip per 100 calls; a repeat is harmless.

        Returns for each call whether this worker must write its row, with exactly this cost. False means that it was
        settled before, by a worker that writes its row, or that this worker neither holds nor claimed it. If Redis is
        unavailable the result is True, and ``lost`` reports the call.
        """
        results = [False] * len(settlements)
        due: list[tuple[int, Settlement, _Live | None]] = []
        for index, item in enumerate(settlements):
            live = None if item.claimed else self._live.pop(item.call_id, None)
            # A call that this worker has already settled is not sent again: Redis may not know of that yet.
            if live is not None or item.claimed:
                due.append((index, item, live))
        for start in range(0, len(due), _BATCH):
            batch = due[start : start + _BATCH]
            for (index, _, _), settled in zip(batch, self._settle_batch(batch), strict=True):
                results[index] = settled
        return results

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
        """Return the calls that could not be settled so far. Their rows must be durable before ``recover``."""
        with self._lock:
            return Lost(frozenset(self._lost), self._uncounted)

    def recount(self) -> None:
        """Request a rebuild, because the log has a row with another cost than the one settled here.

        Call it before the call is reported as ``written``: if this worker dies in between, another worker finds the
        difference again.
        """
        try:
            self._gate.run("forget", "1")
        except RedisAway:
            with self._lock:
                self._uncounted += 1

    def recover(self, lost: Lost) -> bool:
        """Free what lost calls still hold. Return False while Redis is unavailable.

        The log knows what these calls cost. If they cost money, ``is_empty`` is true from now on, in every worker,
        until a rebuild.
        """
        if not lost.ids and not lost.uncounted:
            return True
        ids = sorted(lost.ids)
        try:
            # The batch is empty if only money is missing. Freeing and recounting happen in one step, so that spent and
            # held together are never too small.
            for start in range(0, max(1, len(ids)), _BATCH):
                self._gate.run("forget", "1" if lost.uncounted else "", *ids[start : start + _BATCH])
        except RedisAway:
            return False
        with self._lock:
            self._lost -= lost.ids
            self._uncounted -= lost.uncounted
        return True

    def renew(self, seen: Mapping[str, int]) -> None:
        """Renew the leases of all calls of this worker. ``seen``: output tokens so far; calls may be missing in it.

        One round trip per 100 calls. A call that Redis has lost or never knew is held there again, whatever the
        quotas are.
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
        """Hold a call that Redis does not know. If a reaper has settled it, the script does nothing."""
        live.maybe_held = True
        try:
            self._hold(call_id, live, "force")
            live.held = True
            if call_id not in self._live:  # it was settled meanwhile, so no worker would release this hold
                self._gate.run("forget", "", call_id)
        except RedisAway:
            if call_id not in self._live:
                with self._lock:
                    self._lost.add(call_id)
            raise

    def reap(self, limit: int = _BATCH) -> list[Reaped]:
        """Claim the calls whose lease has ended and return them. No other reaper gets them before the claim ends.

        A claim lasts as long as a lease. Settle each call with ``claimed=True``: nothing happens if its own worker
        came back or settled it late. If the log already has the row of a call, settle the row's own cost and tokens.
        Returns no calls while Redis is unavailable.
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
        """Return records settled at least ``older_than`` seconds ago and not reported as ``written``, oldest first."""
        try:
            flat = self._gate.run("unwritten", int(older_than * 1000), limit)
        except RedisAway:
            return {}
        return {flat[at].decode(): flat[at + 1] for at in range(0, len(flat), 2)}

    def written(self, ids: Iterable[str]) -> bool:
        """Report that these calls' rows are durable. False without Redis; ``unwritten`` then returns them again."""
        given = list(ids)
        try:
            for start in range(0, len(given), _BATCH):
                self._gate.run("written", *given[start : start + _BATCH])
        except RedisAway:
            return False
        return True

    # -- counters --

    def balances(self, scope: str, period: str) -> tuple[int, int]:
        """Return (spent, held) in nano-dollars. Raises Unavailable."""
        spent, held = self._run("balance", money_key(scope, period))
        return int(spent), int(held)

    def is_empty(self) -> bool:
        """Whether the counters must be built: Redis is new, was emptied, or lacks costs. Raises Unavailable."""
        return not self._run("epoch")

    def begin_rebuild(self, epoch: str, seconds: int = 60) -> bool:
        """Become the one process that builds the counters, for at most ``seconds``. Call it before the log is read.

        ``epoch`` is a new id. Returns False if another process builds them. Raises Unavailable.
        """
        return bool(self._run("begin", epoch, seconds))

    def counted(self) -> set[str]:
        """Return the calls that are held or have a cost in Redis. A snapshot of the log that began before may or may
        not have their rows. Raises Unavailable."""
        return {call_id.decode() for call_id in self._run("counted")}

    def rebuild(
        self,
        epoch: str,
        spent: Mapping[tuple[str, str], int],
        included: Collection[str] = (),
        resets_at_ms: Mapping[tuple[str, str], int] | None = None,
    ) -> bool:
        """Set the spent amounts to ``spent``, by (scope, period), from a snapshot of the log. All others become 0.

        What live calls hold does not change. The costs of calls in ``counted`` but not in ``included`` are added.
        Calls in ``included`` hold nothing any more. ``resets_at_ms`` is the end of each period, so that its counter
        is not kept for ever.
        Returns False if ``begin_rebuild`` of this epoch has expired or was never called. Raises Unavailable.
        """
        counters = dict.fromkeys(self._money_keys(), (0, ""))
        for (scope, period), nanodollars in spent.items():
            ends = (resets_at_ms or {}).get((scope, period))
            counters[money_key(scope, period)] = bounded(nanodollars), "" if ends is None else str(ends)
        rows = [value for counter_key, pair in counters.items() for value in (counter_key, *pair)]
        return bool(self._run("rebuild", epoch, len(counters), *rows, *included))

    def _money_keys(self) -> Iterator[str]:
        """Yield the counter keys of money that Redis has. Some may be repeated."""
        cursor = b"0"
        while True:
            cursor, *counter_keys = self._run("money_keys", cursor)
            yield from map(bytes.decode, counter_keys)
            if cursor == b"0":
                return

    def _run(self, operation: str, *arguments: str | bytes | int) -> Any:
        try:
            return self._gate.run(operation, *arguments)
        except RedisAway as away:
            raise Unavailable("Redis did not answer.") from away
