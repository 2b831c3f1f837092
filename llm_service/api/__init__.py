"""The HTTP edge: it turns requests into calls, and events into replies. Only app.py imports it."""
