"""What may be asked for and what it costs: providers, aliases, models and their prices."""
