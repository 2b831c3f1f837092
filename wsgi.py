"""The WSGI application. ``gunicorn`` (with gunicorn.conf.py) serves it; ``flask --app wsgi`` runs its commands."""

from __future__ import annotations

import sys

from llm_service import create_app
from llm_service.settings import SettingsError

try:
    app = create_app()
except SettingsError as error:
    sys.exit(f"llm_service: {error}")
