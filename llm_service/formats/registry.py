"""The formats: those that clients speak, by the name that ``Call.format`` holds, and those that providers speak."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Protocol

from llm_service.core.call import Call
from llm_service.core.errors import ServiceError
from llm_service.core.target import Provider
from llm_service.formats import ClientFormat, RelayedFormat, StreamedFormat, UpstreamFormat
from llm_service.formats import anthropic_messages as messages
from llm_service.formats import openai_chat as chat
from llm_service.formats import openai_responses as responses
from llm_service.formats.small import completions, count_tokens, embeddings, input_tokens, simple

CLIENT_FORMATS: Final[tuple[ClientFormat, ...]] = (
    simple,
    chat,
    responses,
    input_tokens,
    completions,
    embeddings,
    messages,
    count_tokens,
)
UPSTREAM_FORMATS: Final[tuple[UpstreamFormat, ...]] = (chat, responses, messages, input_tokens, count_tokens)
STREAMED_FORMATS: Final[tuple[StreamedFormat, ...]] = (*UPSTREAM_FORMATS, completions)
RELAYED_FORMATS: Final[tuple[RelayedFormat, ...]] = (*STREAMED_FORMATS, embeddings)

NAMES: Final = tuple(format.NAME for format in CLIENT_FORMATS)
_BY_NAME: Final[Mapping[str, ClientFormat]] = MappingProxyType({format.NAME: format for format in CLIENT_FORMATS})
_BY_PATH: Final = sorted(
    ((path, format) for format in CLIENT_FORMATS for path in format.PATHS), key=lambda row: -len(row[0])
)
_UPSTREAM_BY_NAME: Final[Mapping[str, UpstreamFormat]] = MappingProxyType(
    {format.NAME: format for format in UPSTREAM_FORMATS}
)
# The most tokens that an image counts, by the kind of provider; OpenAI's count is the highest.
_IMAGE_TOKENS: Final[Mapping[str, int]] = {"anthropic": messages.IMAGE_TOKENS}


class HasFormat(Protocol):
    """A call, or what is known of a request before it is a call."""

    @property
    def format(self) -> str:
        """The name of the client's format."""
        ...


class Headers(Protocol):
    """A request's headers; their names are of any case."""

    def __contains__(self, name: str, /) -> bool: ...


def format_of(call: HasFormat) -> ClientFormat:
    """The format that the client of ``call`` speaks."""
    return _BY_NAME[call.format]


def upstream_format_of(call: HasFormat) -> UpstreamFormat:
    """The same for a call whose answer can be read in the client's own format."""
    return _UPSTREAM_BY_NAME[call.format]


def speaks(call: HasFormat, format: RelayedFormat) -> bool:
    """Whether the client of ``call`` speaks ``format``, so that its body travels verbatim."""
    return call.format == format.NAME


def format_of_path(path: str, headers: Headers) -> ClientFormat:
    """The format of a path, known or not, so that a 404 or a 405 has the shape of the routes beside it."""
    for prefix, format in _BY_PATH:
        if path == prefix or path.startswith(f"{prefix}/"):
            return format
    if path.startswith("/v1/"):  # a path of either vendor: only Anthropic's clients send a version
        return messages if "anthropic-version" in headers else chat
    return simple


def image_tokens(provider_kind: str) -> int:
    """The most tokens that a provider of this kind counts for an image."""
    return _IMAGE_TOKENS.get(provider_kind, chat.IMAGE_TOKENS)


def status_of(format: str, error: ServiceError) -> int:
    """The HTTP status that clients of ``format`` expect for ``error``."""
    return _BY_NAME[format].status(error)


def prompt_of(call: Call) -> list[Any]:
    """The JSON values that hold the call's prompt, for its keyed hash."""
    return format_of(call).prompt(call.body)


def paths(provider: Provider, format: RelayedFormat, default: str) -> tuple[str, str]:
    """The paths of plain and of streamed requests in ``format``: the row's own ones, or else ``default``."""
    plain = provider.paths.get(format.NAME, default)
    return plain, provider.paths.get(f"{format.NAME}_stream", plain)


def serves(provider: Provider, format: RelayedFormat) -> bool:
    """Whether the provider's row lists ``format``. A row without a list serves all formats of its kind."""
    return not provider.formats or format.NAME in provider.formats
