"""The HTTP edge: requests to calls, events to replies. Only create_app imports it."""
