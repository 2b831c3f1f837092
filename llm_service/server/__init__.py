"""Serving: the launch, the gunicorn worker and the embedded Redis."""
