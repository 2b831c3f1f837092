"""A scripted stand-in for api.anthropic.com and api.openai.com.

It answers as the vendors' recorded answers do, and misbehaves when a test scripts it to. ``Upstream`` is the server,
``Step`` says what it does next, and ``SeenRequest`` is one request in its ledger.
"""

from tests.upstream.ledger import Bill, SeenRequest
from tests.upstream.server import ANTHROPIC_KEY, OPENAI_KEY, Upstream
from tests.upstream.steps import PRESETS, Step, redirect

__all__ = ["ANTHROPIC_KEY", "OPENAI_KEY", "PRESETS", "Bill", "SeenRequest", "Step", "Upstream", "redirect"]
