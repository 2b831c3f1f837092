"""The client dialects by name, as ``Call.dialect`` names them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from llm_service.core.call import Call
from llm_service.core.errors import ServiceError
from llm_service.formats import (
    ClientDialect,
)
from llm_service.formats import (
    anthropic_messages as messages,
)
from llm_service.formats import (
    openai_chat as chat,
)
from llm_service.formats import (
    openai_responses as responses,
)
from llm_service.formats.small import completions, count_tokens, embeddings, input_tokens, simple

_CLIENT_DIALECTS: tuple[ClientDialect, ...] = (
    simple,
    chat,
    completions,
    embeddings,
    responses,
    input_tokens,
    messages,
    count_tokens,
)
BY_NAME: Mapping[str, ClientDialect] = MappingProxyType({module.NAME: module for module in _CLIENT_DIALECTS})


def status_of(dialect: str, error: ServiceError) -> int:
    """The HTTP status that clients of ``dialect`` expect for ``error``."""
    return BY_NAME[dialect].status(error)


def prompt_of(call: Call) -> Any:
    """The JSON values that hold the call's prompt, for its keyed hash."""
    return BY_NAME[call.dialect].prompt(call.body)
