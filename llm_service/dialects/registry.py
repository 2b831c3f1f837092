"""The client dialects by name, as ``Call.dialect`` names them."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from llm_service.conversation import Call
from llm_service.dialects import chat, messages, simple
from llm_service.errors import ServiceError

BY_NAME: MappingProxyType[str, Any] = MappingProxyType({module.NAME: module for module in (simple, chat, messages)})


def status_of(dialect: str, error: ServiceError) -> int:
    """The HTTP status that clients of ``dialect`` expect for ``error``."""
    status: int = BY_NAME[dialect].status(error)
    return status


def prompt_of(call: Call) -> Any:
    """The JSON values that hold the call's prompt, for its keyed hash."""
    return BY_NAME[call.dialect].prompt(call.body)
