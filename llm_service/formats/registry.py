"""The client formats by name, as ``Call.format`` names them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, cast

from llm_service.core.call import Call
from llm_service.core.errors import ServiceError
from llm_service.core.target import Provider
from llm_service.formats import (
    ClientFormat,
    RelayedFormat,
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

_CLIENT_FORMATS: tuple[ClientFormat, ...] = (
    simple,
    chat,
    completions,
    embeddings,
    responses,
    input_tokens,
    messages,
    count_tokens,
)
BY_NAME: Mapping[str, ClientFormat] = MappingProxyType({module.NAME: module for module in _CLIENT_FORMATS})


def format_of(call: Call) -> ClientFormat:
    """The format that the client of ``call`` speaks."""
    return BY_NAME[call.format]


def status_of(format: str, error: ServiceError) -> int:
    """The HTTP status that clients of ``format`` expect for ``error``."""
    return BY_NAME[format].status(error)


def prompt_of(call: Call) -> Any:
    """The JSON values that hold the call's prompt, for its keyed hash."""
    return BY_NAME[call.format].prompt(call.body)


def speaks(provider: Provider, format: RelayedFormat) -> bool:
    """Whether the provider's row lists ``format``; a row without a list speaks all formats of its kind."""
    return not provider.formats or format.NAME in provider.formats


def is_same(own: ClientFormat, other: RelayedFormat) -> bool:
    """Whether a client's format and a lane's are one, so that bodies can travel verbatim."""
    return own is cast(object, other)
