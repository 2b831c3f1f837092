"""Tokens per minute, parallel calls and money: held before a call is made, settled once after it.

Invariants (each has a test of its name in tests/billing/ledger/test_invariants.py):

1. A hold is all or nothing over every limit that applies, before any upstream byte.
2. ``held`` is an upper bound of what the admitted calls can still cost, and spent + held never
   exceeds a budget, under any concurrency.
3. A call is settled exactly once, however often settling, aborting or reaping it is repeated.
4. After its settlement nothing of a call is held: money and parallel calls are free again.
5. A call whose worker died is settled by one reaper, once, at its last known tokens, with one row.
6. ``spent`` is the sum of the costs of the scope's rows in the period, whatever Redis went through.
7. No balance becomes negative by our doing, and no number leaves what Lua counts exactly (2^53).
8. Time is Redis' own. A jump of its clock settles no live call, and frees no money and no parallel call.

The hold is also the record of the intent: kept in Redis with a lease that its worker renews. What
is settled is kept there until the row is durable. So a call of a killed worker has its row.

What the owner does (``Ledger`` has the details):

* a call: ``hold`` before anything is sent; ``settle`` when it has ended and BEFORE its row is handed
  to the log; ``settle`` says whether the row is this worker's to write.
* the log's writer, after each commit: ``written`` of the rows' ids.
* every worker, every ``TICK`` seconds::

      lost = ledger.lost()
      writer.flush()                              # every row handed over so far is committed
      ledger.recover(lost)
      ledger.renew({call id: output tokens seen}) # of the calls that live here
      for reaped in ledger.reap():                # a row the log has already wins: settle at ITS cost and tokens
          ledger.settle(reaped.call_id, cost, tokens, record, claimed=True)
      rows = ledger.unwritten(10)                 # write those (ON CONFLICT DO NOTHING); a row was there, at
                                                  # another cost: ledger.recount(); only then ledger.written(rows)
      if ledger.is_empty(): the rebuild below

* a rebuild, when Redis is empty or an operator asks::

      if ledger.begin_rebuild(epoch := new_id()):
          time.sleep(1.5 * TICK)                  # only if is_empty(): all workers hold again what they held
          with one snapshot of the log:           # one read transaction (REPEATABLE READ)
              spent = sums by (scope, period)
              included = the ids among ledger.counted() that the snapshot has
          ledger.rebuild(epoch, spent, included)  # a call in included is over: nothing of it is held any more

* a new budget, which counts what was spent before it: ``recount`` and ``recover``, store it, rebuild.

Until the counters are built, budgets are treated as Redis away (``without_redis``). A Redis that has started again
is empty in this sense too, unless it has an append-only file, and so is a replica that took over: nobody knows what
they missed.

What it cannot know: calls of a worker that died while Redis was away or lost leave no trace; what a worker
holds that stays cut off from a Redis that was lost and is back. Redis must not evict (``noeviction``). A call id
is used once. What an append-only file had not put on disk when its machine lost power. A process has one connection
(``redis_pipe``), made when it is first needed: after a fork, another.
"""

from llm_service.billing.ledger.breaker import PATIENCE, client
from llm_service.billing.ledger.core import TICK, Ledger
from llm_service.billing.ledger.values import MOST, Check, Held, Lost, Reaped, Settlement, bounded

__all__ = ["MOST", "PATIENCE", "TICK", "Check", "Held", "Ledger", "Lost", "Reaped", "Settlement", "bounded", "client"]
