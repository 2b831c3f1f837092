"""What a call may take and what it took: upper bounds, admission, the ledger, reconciliation and alerts."""
