"""A scripted stand-in for api.anthropic.com and api.openai.com: faithful to what was recorded, hostile when told so.

``Upstream`` is the server, ``Step`` says what it does next, ``Seen`` is one request in its ledger.
"""

from tests.upstream.ledger import Bill, Seen
from tests.upstream.server import ANTHROPIC_KEY, OPENAI_KEY, Upstream
from tests.upstream.steps import PRESETS, Step, redirect

__all__ = ["ANTHROPIC_KEY", "OPENAI_KEY", "PRESETS", "Bill", "Seen", "Step", "Upstream", "redirect"]
