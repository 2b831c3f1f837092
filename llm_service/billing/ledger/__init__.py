"""Tokens per minute, parallel calls and money: held before a call is sent, settled once after it.

Invariants (tests/billing/ledger/test_invariants.py has a test with the number of each):

1. A hold takes what the call needs from every limit that applies, or nothing, before any byte is sent upstream.
2. ``held`` is an upper bound of what the admitted calls can still cost, and spent + held never
   exceeds a budget, under any concurrency.
3. A call is settled exactly once, however often it is settled, aborted or reaped.
4. After a call is settled, nothing of it is held: its money and its parallel call are free again.
5. If the worker of a call dies, one reaper settles the call, once, at its last known tokens, with one row.
6. ``spent`` is the sum of the costs of the scope's rows in the period, whatever happened to Redis.
7. The ledger makes no balance negative, and no number exceeds what Lua counts exactly (2^53).
8. Time is Redis' own. A jump of its clock settles no live call, and frees no money and no parallel call.

A hold also records what is needed for the call's row. It is kept in Redis with a lease that its worker
renews. A settled record is kept there until the row is durable. So even a call of a killed worker gets its row.

What the owner of a ledger does (``Ledger`` has the details):

* for a call: ``hold`` before anything is sent; ``settle`` when it has ended and BEFORE its row is handed
  to the log. ``settle`` returns whether this worker must write the row.
* in the log's writer, after each commit: ``written`` with the ids of the rows.
* in every worker, every ``TICK`` seconds::

      lost = ledger.lost()
      writer.flush()                              # commits every row that was handed over so far
      ledger.recover(lost)
      ledger.renew({call id: output tokens seen}) # the calls of this worker
      for reaped in ledger.reap():                # if the log already has the row: settle at ITS cost and tokens
          ledger.settle(reaped.call_id, cost, tokens, record, claimed=True)
      rows = ledger.unwritten(10)                 # write these rows (ON CONFLICT DO NOTHING). If a row exists with
                                                  # another cost: ledger.recount(); only then ledger.written(rows)
      if ledger.is_empty(): rebuild as below

* for a rebuild, if Redis is empty or an operator asks for it::

      if ledger.begin_rebuild(epoch := new_id()):
          time.sleep(1.5 * TICK)                  # only if is_empty(): until all workers have renewed their holds
          with one snapshot of the log:           # one read transaction (REPEATABLE READ)
              spent = sums by (scope, period)
              included = the ids among ledger.counted() that the snapshot has
          ledger.rebuild(epoch, spent, included)  # a call in included is over: nothing of it is held any more

* for a new budget, which also counts what was spent before: ``recount`` and ``recover``, store it, rebuild.

Until the counters are built, budgets are treated as if Redis were unavailable (``without_redis``). A Redis that was
restarted also counts as empty, unless it has an append-only file, and so does a replica that took over: it is unknown
which writes they missed.

Limits of this design:

* If a worker dies while Redis is unavailable or has lost its data, its running calls leave no trace.
* If Redis lost its data and a worker cannot reach it afterwards, the holds of that worker are unknown.
* If the machine loses power, writes that the append-only file had not put on the disk are lost.
* Redis must not evict keys (``noeviction``), and a call id is used only once.

A process has one connection (``redis_pipe``), opened when it is first needed. A forked process opens another.
"""

from llm_service.billing.ledger.core import TICK, Ledger
from llm_service.billing.ledger.redis_gate import REDIS_TIMEOUT, client
from llm_service.billing.ledger.values import MAX_AMOUNT, Check, Held, Lost, Reaped, Settlement, bounded

__all__ = [
    "MAX_AMOUNT",
    "REDIS_TIMEOUT",
    "TICK",
    "Check",
    "Held",
    "Ledger",
    "Lost",
    "Reaped",
    "Settlement",
    "bounded",
    "client",
]
