"""One model for each kind of target, by the names that people use."""

from __future__ import annotations

import os

from tests.support.server import ROOT
from tests.upstream import Upstream

GPT = "gpt-4.1-mini"  # takes tools in chat completions
REASONING = "gpt-6.1-terra"  # reasons, and takes tools only at /v1/responses
CLAUDE = "claude-sonnet-4-6"
COMPAT = "compat/any"  # a server that speaks only chat completions
TARGETS = (GPT, REASONING, CLAUDE, COMPAT)

# `make test-clients` sets this. Otherwise only those tests run that need few packages and little time.
EVERYTHING = os.environ.get("CLIENT_TESTS") == "all"

_COMPAT = """
[providers.compat]
kind = "openai"
base_url = "{url}"
keyless = true
max_tokens_field = "max_tokens"
"""
# LlamaIndex accepts only names of Claude's that it knows, so its other models have such names: aliases of the service.
CLAUDE_NAMES = {GPT: "claude-opus-4-0", REASONING: "claude-sonnet-4-0", COMPAT: "claude-3-haiku-20240307"}
_ALIAS = '\n[aliases."{name}"]\ntargets = ["{target}"]\n'


def catalogue(upstream: Upstream) -> str:
    """The service's own catalogue, a server that is only compatible, and the aliases. The vendor serves them all."""
    upstream.serve(REASONING)
    text = (ROOT / "llm_service/catalog/models.toml").read_text() + _COMPAT.format(url=upstream.compatible_url)
    for target, name in CLAUDE_NAMES.items():
        text += _ALIAS.format(name=name, target=target if "/" in target else f"openai/{target}")
    return text
