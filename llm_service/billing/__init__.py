"""The money: what a call may cost is held before it is sent, and settled when it ends.

1. ``admission`` computes an upper bound of what the call can cost (``upper_bound``) and holds it in Redis, together
   with the call's tokens and its parallel slot; if one limit has no room, nothing is held and the call is rejected.
2. ``settlement`` settles the call when it ends (``gateway`` shows when): its real cost is spent, and everything else
   that it held is free again.
3. The settled record stays in Redis until the log's writer has written its row, and only then is it forgotten.
4. ``reconciler`` repairs in each process what a death or an outage has left: it renews leases, settles the calls of
   dead workers, writes rows that are missing, and rebuilds lost counters from the log.
5. ``alerts`` looks at the budgets that written rows have changed, and announces the thresholds that they passed.
"""
