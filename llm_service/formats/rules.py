"""What happens to the fields of a request that is sent to another format: translate, drop and name, or reject."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from llm_service.core.conversation import Extra
from llm_service.core.identifiers import field_name
from llm_service.formats import validation

# Writes an extra field into the target's body. It may raise InvalidRequest with the path of the extra field.
Write: TypeAlias = Callable[[dict[str, Any], Extra], None]


@dataclass(frozen=True, slots=True)
class FieldRule:
    """What happens to a field of a request.

    ``neutral`` values mean the same as leaving the field out, so they are left out. A rule that translates may
    name the target's ``field``, as a path (``text.verbosity``), where it differs from the field's own name. A rule
    with ``write`` calls it in place of copying the value; ``field`` then only says in the documentation what it writes.
    ``why`` is the reason that the error of a rejected field gives.
    """

    how: Literal["translate", "drop", "reject"]
    neutral: tuple[Any, ...] = ()
    field: str | None = None
    write: Write | None = None
    why: str = validation.NO_COUNTERPART


TRANSLATE = FieldRule("translate")
DROP = FieldRule("drop")
REJECT = FieldRule("reject")


def translate_to(field: str, write: Write | None = None, *, neutral: tuple[Any, ...] = ()) -> FieldRule:
    """The target calls the field ``field``, a path in its body; ``write`` writes another shape there."""
    return FieldRule("translate", neutral, field, write)


def drop_unless(*neutral: Any) -> FieldRule:
    """A hint: the answer is the same in kind without it. Dropped and named, unless it says nothing."""
    return FieldRule("drop", neutral)


def reject_unless(*neutral: Any, why: str = validation.NO_COUNTERPART) -> FieldRule:
    return FieldRule("reject", neutral, why=why)


# What every client's format has a field of its own for: these names are the other formats' names of it.
EVERY_ROUTE_HAS: Final[Mapping[str, FieldRule]] = dict.fromkeys(
    ("input", "max_completion_tokens", "max_output_tokens", "max_tokens", "messages"),
    reject_unless(why="this route has a field of its own for it"),
)

# Fields of any client's request that say something about the client or the work of a server, and nothing about the
# answer. They are dropped and named, whichever API has them.
HINTS: Final[Mapping[str, FieldRule]] = dict.fromkeys(
    (
        # OpenAI's, about the client and how to keep images.
        *("access_programs", "client_metadata", "image", "request_country"),
        # Anthropic's headers and its fields for accounts, as some clients write them into the body.
        *("anthropic_beta", "anthropic_version", "betas", "user_profile_id", "workspace_id"),
        *("billing_policy", "diagnostics", "fallback_credit_token"),
        # What a client or a router reports about itself.
        *("request_id", "session_id", "tags", "trace", "trace_id", "usage"),
        *("litellm_call_id", "litellm_metadata", "litellm_session_id", "litellm_trace_id"),
        # How a server that runs the model itself uses its memory: Ollama, llama.cpp, vLLM.
        *("cache_prompt", "cache_salt", "id_slot", "keep_alive", "priority"),
    ),
    DROP,
)

# Members of a message and of its parts in which clients note things for themselves: which message it is, when it was
# written, by what. They say nothing to the model, in any format and in any turn.
NOTES: Final[Mapping[str, FieldRule]] = dict.fromkeys(
    (
        *("id", "_id", "uuid", "index", "key", "object", "type", "status", "metadata", "tags", "model", "usage"),
        *("created", "created_at", "createdAt", "updated_at", "updatedAt", "date", "time", "timestamp"),
        *("parent_id", "parentId", "message_id", "messageId", "conversation_id", "session_id", "thread_id", "run_id"),
        # Of LangChain and of the AI SDK.
        *("additional_kwargs", "example", "response_metadata", "usage_metadata"),
        *("experimental_providerMetadata", "providerMetadata", "providerOptions"),
    ),
    DROP,
)


def is_neutral(value: Any, neutral: tuple[Any, ...]) -> bool:
    """Whether ``neutral`` has ``value``. A boolean is not a number here, unlike in Python: ``True`` is not 1."""
    return any(value == other and isinstance(value, bool) == isinstance(other, bool) for other in neutral)


def cross(
    given: Mapping[str, Any], rules: Mapping[str, FieldRule], path: str = "", unknown: FieldRule = REJECT
) -> list[str]:
    """The names of the fields of ``given`` that are dropped by ``rules``.

    ``path`` is the path of ``given`` in the body, with its dot, and empty at the top. ``unknown`` is the rule for a
    field that ``rules`` does not list. Raises UnsupportedParameter for a field that is rejected.
    """
    dropped = []
    for name, value in given.items():
        rule = rules.get(name, unknown)
        if rule.how == "translate" or value is None or is_neutral(value, rule.neutral):
            continue
        if rule.how == "drop":
            dropped.append(field_name(name))
        else:
            validation.unsupported(path + field_name(name), rule.why)
    return dropped


def cross_turn(given: Mapping[str, Any], rules: Mapping[str, FieldRule], path: str, *, answered: bool) -> list[str]:
    """As ``cross``, for a message or a part of one.

    What ``rules`` does not list is dropped if the turn is the assistant's (``answered``): an earlier answer may have
    whatever its server sent, and is the same without it. In other turns only ``NOTES`` are.
    """
    if answered or NOTES.keys().isdisjoint(given):
        return cross(given, rules, path, DROP if answered else REJECT)
    return cross(given, {**NOTES, **rules}, path)


def name_dropped(dropped: dict[str, None], holder: str, names: Collection[str]) -> None:
    """Add the members ``names`` of ``holder`` (``tools[]``) to ``dropped``. A text that is not a name is not shown."""
    dropped.update((f"{holder}.{field_name(name)}", None) for name in names)


@dataclass(frozen=True, slots=True)
class ExtraField:
    """A field of a client's format that not every format knows.

    ``name`` is what all formats call it in ``Conversation.extras``; ``neutral``
    values mean the same as leaving the field out.
    """

    name: str
    neutral: tuple[Any, ...] = ()


def add_extra(extras: dict[str, Extra], name: str, extra: Extra) -> None:
    """Add ``extra``. Raises InvalidRequest if another field of the client says something else about ``name``."""
    other = extras.setdefault(name, extra)
    if other.value != extra.value:
        validation.contradiction(extra.path, other.path)


def read_extras(
    given: Mapping[str, Any], common: Collection[str], table: Mapping[str, ExtraField], path: str = ""
) -> dict[str, Extra]:
    """The fields of ``given`` that are not ``common`` to all formats, for the target to translate, drop or reject.

    A field that ``table`` does not list keeps its own name: the target's format may know it.
    ``path`` is the path of ``given`` in the body, with its dot, and empty at the top.
    """
    extras: dict[str, Extra] = {}
    for name, value in given.items():
        if value is None or name in common:
            continue
        field = table.get(name)
        if field is None:
            extras[name] = Extra(value, path + field_name(name))
        elif not is_neutral(value, field.neutral):
            extras[field.name] = Extra(value, path + name)
    return extras
