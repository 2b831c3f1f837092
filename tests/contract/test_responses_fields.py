"""The official OpenAI client at ``/v1/responses``, for models that only chat completions serve: which fields are kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.conftest import MakeService
from tests.contract.cases import CLAUDE, fixture
from tests.support.server import Server
from tests.upstream import Step, Upstream

CATALOGUE = """
[tiers.default]
[providers.hosted]
kind = "openai"
key_env = "OPENAI_API_KEY"
base_url_env = "OPENAI_BASE_URL"
responses = false
[providers.older]
kind = "openai"
base_url = "{url}"
keyless = true
responses = false
max_tokens_field = "max_tokens"
"""
HOSTED, OLDER = "hosted/gpt-4o-mini", "older/llama"
LOGPROBS: Any = ["message.output_text.logprobs"]
RECORDED = "openai/chat_stream/logprobs.sse"
TOKENS = [
    {"token": "Foo", "logprob": -0.0025094282, "bytes": [70, 111, 111], "top_logprobs": []},
    {"token": "!", "logprob": -0.26638845, "bytes": [33], "top_logprobs": []},
]
both = pytest.mark.parametrize("stream", [False, True])


@pytest.fixture(scope="module")
def chat_only(upstream_server: Upstream, make_module_service: MakeService) -> Server:
    return make_module_service(models=CATALOGUE.format(url=upstream_server.compatible_url))
