"""Values that every other part shares. They import nothing of this service but each other, and do no I/O."""
