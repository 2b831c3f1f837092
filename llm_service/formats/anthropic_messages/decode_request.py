"""Anthropic Messages, the client's side: a request as a conversation, for a model of another format.

``schema`` says which fields become fields of ``Conversation``. The tables here say what happens to the members of
nested objects.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_service.core import errors
from llm_service.core.content import Effort, JsonFormat, Reasoning
from llm_service.core.conversation import Conversation, Extra
from llm_service.formats import media, reasoning, rules, tool_calls, validation
from llm_service.formats.anthropic_messages import decode_messages, decode_tools
from llm_service.formats.anthropic_messages.schema import COMMON, EXTRAS, FIELD_NAMES
from llm_service.formats.rules import DROP, TRANSLATE, FieldRule

# From this API version on, Anthropic rejects sampling parameters (its migration-2026-10-21).
_NO_SAMPLING_SINCE = "2026-10-21"
_SAMPLING = ("temperature", "top_p", "top_k")
_NO_HEADERS: Mapping[str, str] = {}


# What happens to the members of these. Any other member of the first, the third and the last is a hint, and is dropped.
CONFIG_CROSSING: Mapping[str, FieldRule] = {"effort": TRANSLATE, "format": TRANSLATE, "task_budget": DROP}
FORMAT_CROSSING: Mapping[str, FieldRule] = {"type": TRANSLATE, "schema": TRANSLATE}
THINKING_CROSSING: Mapping[str, FieldRule] = dict.fromkeys(("type", "budget_tokens", "display"), TRANSLATE)
METADATA_CROSSING: Mapping[str, FieldRule] = {"user_id": TRANSLATE}
_TIERS: Mapping[str, str] = {"auto": "auto", "standard_only": "standard"}


def read_request(body: Mapping[str, Any], headers: Mapping[str, str] = _NO_HEADERS) -> Conversation:
    """The conversation in a checked body. ``headers`` are the client's.

    Raises InvalidRequest naming what is malformed, or a sampling parameter that the API version of the client does not
    have, and UnsupportedParameter naming what other formats cannot express.
    """
    _check_version(body, headers)
    dropped: decode_messages.Dropped = {}
    if body["max_tokens"] == 0:
        validation.unsupported("max_tokens", "0 only fills Anthropic's own cache")
    metadata = body.get("metadata") or {}
    rules.name_dropped(dropped, "metadata", rules.cross(metadata, METADATA_CROSSING, "metadata.", DROP))
    user, tier = metadata.get("user_id"), body.get("service_tier")
    if tier is not None and tier not in tuple(_TIERS):
        validation.invalid("service_tier", f"must be {' or '.join(_TIERS)}")
    choice, parallel = decode_tools.read_choice(body.get("tool_choice"), dropped)
    format, effort = read_output(body.get("output_config"), dropped)
    hint = body.get("cache_control")
    conversation = Conversation(
        messages=decode_messages.read_messages(body["messages"], dropped),
        system=decode_messages.read_system(body.get("system"), dropped),
        max_tokens=body["max_tokens"],
        temperature=body.get("temperature"),
        top_p=body.get("top_p"),
        top_k=body.get("top_k"),
        stop=tuple(body.get("stop_sequences") or ()),
        user=None if user is None else validation.text_of(metadata, "metadata", "user_id"),
        tools=decode_tools.read_tools(body.get("tools"), choice, dropped),
        tool_choice=choice,
        parallel_tool_calls=parallel,
        format=format,
        reasoning=read_thinking(body.get("thinking"), effort, dropped),
        tier=None if tier is None else _TIERS[tier],
        cache=media.read_cache(hint, media.EPHEMERAL, media.ANTHROPIC_TTL, "cache_control", dropped),
        dropped=tuple(dropped),
        extras=_read_extras(body),
        field_names=FIELD_NAMES,
    )
    tool_calls.check_choice(conversation, "tool_choice")
    return conversation


def _read_extras(body: Mapping[str, Any]) -> dict[str, Extra]:
    """The fields that not every format knows.

    ``context_management`` that only clears old thinking says nothing to another vendor's model: it gets none of it.
    """
    extras = rules.read_extras(body, COMMON, EXTRAS)
    match extras.get("context_management"):
        case Extra({"edits": list(edits)}) if all(map(_clears_thinking, edits)):
            del extras["context_management"]
    match extras.get("container"):
        case Extra({"skills": [_, *_]}):
            validation.unsupported("container.skills", "only Anthropic's models have skills")
    return extras


def _clears_thinking(edit: Any) -> bool:
    return isinstance(edit, dict) and str(edit.get("type")).startswith("clear_thinking_")


def _check_version(body: Mapping[str, Any], headers: Mapping[str, str]) -> None:
    if headers.get("anthropic-version", "") < _NO_SAMPLING_SINCE:
        return
    for name in _SAMPLING:
        if body.get(name) is not None:
            raise errors.InvalidRequest(f"{name}: Extra inputs are not permitted", param=name)


def read_output(given: Any, dropped: decode_messages.Dropped) -> tuple[JsonFormat | None, Effort | None]:
    """The format of the answer and the effort, from ``output_config``."""
    if not given:
        return None, None
    rules.name_dropped(dropped, "output_config", rules.cross(given, CONFIG_CROSSING, "output_config.", DROP))
    effort, format = given.get("effort"), given.get("format")
    if effort is not None and effort not in reasoning.EFFORTS[2:]:
        validation.invalid("output_config.effort", f"must be one of {', '.join(reasoning.EFFORTS[2:])}")
    if format is None:
        return None, effort
    path = "output_config.format"
    if not isinstance(format, dict) or format.get("type") != "json_schema":
        validation.invalid(f"{path}.type", "must be json_schema")
    rules.cross(format, FORMAT_CROSSING, f"{path}.")
    return JsonFormat(validation.object_at(format, path, "schema"), path=f"{path}.schema"), effort


def read_thinking(given: Any, effort: Effort | None, dropped: decode_messages.Dropped) -> Reasoning | None:
    """The reasoning that ``thinking`` and the effort ask for; None if neither is given."""
    if given is None:
        return None if effort is None else Reasoning(effort)
    rules.name_dropped(dropped, "thinking", rules.cross(given, THINKING_CROSSING, "thinking.", DROP))
    display = given.get("display")
    if display not in (None, "summarized", "omitted"):
        validation.invalid("thinking.display", "must be summarized or omitted")
    summary = None if display is None else display == "summarized"
    match given.get("type"):
        case "disabled":
            return Reasoning("none")
        case "adaptive":
            return Reasoning(effort, summary=summary)
        case "enabled":
            budget = given.get("budget_tokens")
            if budget is None:  # Anthropic wants one. Without it the model of another vendor decides.
                return Reasoning(effort, summary=summary)
            if type(budget) is not int or budget < reasoning.MIN_BUDGET:
                validation.invalid("thinking.budget_tokens", f"must be an integer of at least {reasoning.MIN_BUDGET}")
            return Reasoning(effort, budget, summary)
        case "between_tools":  # only Claude can think there and nowhere else
            dropped["thinking"] = None
            return None if effort is None else Reasoning(effort)
    validation.invalid("thinking.type", "must be adaptive, enabled, disabled or between_tools")
