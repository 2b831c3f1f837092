"""The client dialects by name, as ``Call.dialect`` names them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from llm_service.conversation import Call
from llm_service.dialects import (
    ClientDialect,
    chat,
    completions,
    count_tokens,
    embeddings,
    input_tokens,
    messages,
    responses,
    simple,
)
from llm_service.errors import ServiceError

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
