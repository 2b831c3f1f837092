"""Which models callers may ask for and what they cost: providers, aliases, models and their prices."""
