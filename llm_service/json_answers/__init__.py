"""Checking and repairing JSON that a caller asked for."""
