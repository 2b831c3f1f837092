"""OpenAI Chat Completions, the upstream's side: what happens to the fields that not every format knows."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

from llm_service.core.conversation import Extra
from llm_service.formats import validation
from llm_service.formats.encoding import write_field
from llm_service.formats.rules import (
    DROP,
    EVERY_ROUTE_HAS,
    HINTS,
    REJECT,
    TRANSLATE,
    FieldRule,
    drop_unless,
    reject_unless,
    translate_to,
)

# The SDK says that safety_identifier takes 128 characters, the OpenAPI file says 64.
_LONGEST_USER: Final = 64


def end_user(user: str) -> str:
    """The end user's name. A name that is too long becomes its digest, which is still stable and unique."""
    return user if len(user) <= _LONGEST_USER else hashlib.sha256(user.encode()).hexdigest()


def _write_top_logprobs(body: dict[str, Any], extra: Extra) -> None:
    write_field(body, "top_logprobs", extra)
    body.setdefault("logprobs", True)  # OpenAI rejects ``top_logprobs`` alone


def _user_in(field: str) -> FieldRule:
    def write(body: dict[str, Any], extra: Extra) -> None:
        if not isinstance(extra.value, str):
            validation.invalid(extra.path, "must be a string")
        write_field(body, field, Extra(end_user(extra.value), extra.path))

    return translate_to(field, write)


ONLY_CLAUDE: Final = "only Claude models take this field"
NO_REGIONS: Final = "this service cannot choose the region of that model: choose a model of Anthropic, or send global"
_NO_ROOM: Final = "the answers of this route cannot carry what it asks for"

# What happens to the fields that not all formats know, whichever client sends them. A field without a row is rejected.
EXTRA_RULES: Final[Mapping[str, FieldRule]] = {
    "frequency_penalty": FieldRule("translate", (0,)),
    "logit_bias": FieldRule("translate", ({},)),
    "logprobs": FieldRule("translate", (False,), why=_NO_ROOM),
    "metadata": FieldRule("translate", ({},)),
    "moderation": TRANSLATE,
    "n": FieldRule("translate", (1,), why=_NO_ROOM),
    "parallel_tool_calls": TRANSLATE,
    "prediction": TRANSLATE,
    "presence_penalty": FieldRule("translate", (0,)),
    "prompt_cache_key": TRANSLATE,
    "prompt_cache_options": FieldRule("translate", ({},)),
    "prompt_cache_retention": TRANSLATE,
    "reasoning_effort": TRANSLATE,
    "response_format": TRANSLATE,
    "safety_identifier": _user_in("safety_identifier"),
    "seed": TRANSLATE,
    "stop": TRANSLATE,
    "store": FieldRule("translate", (False,)),
    "top_logprobs": FieldRule("translate", (0,), write=_write_top_logprobs, why=_NO_ROOM),
    "user": _user_in("safety_identifier"),
    "verbosity": FieldRule("translate", ("medium",)),
    # Hints of other APIs, and what servers of Anthropic's offer the model: the answer is of the same kind without them.
    **dict.fromkeys(("compaction", "container", "context_management"), DROP),
    **dict.fromkeys(("fallbacks", "mcp_servers"), drop_unless([])),
    "inference_geo": reject_unless("global", why=NO_REGIONS),
    "max_tool_calls": drop_unless(),
    "speed": drop_unless("standard"),
    "stream_options": drop_unless(),
    "truncation": drop_unless("disabled"),
    **HINTS,
    # The chat API has these, but their results are not part of a translated answer.
    "audio": reject_unless(why=_NO_ROOM),
    "function_call": reject_unless("none", "auto", why=_NO_ROOM),
    "functions": reject_unless([], why=_NO_ROOM),
    "modalities": reject_unless(["text"], why=_NO_ROOM),
    "tool_choice": reject_unless("none", "auto", why=_NO_ROOM),
    "tools": reject_unless([], why=_NO_ROOM),
    "web_search_options": reject_unless(why=_NO_ROOM),
    **EVERY_ROUTE_HAS,
    **dict.fromkeys(("output_config", "system", "thinking"), reject_unless(why=ONLY_CLAUDE)),
}
# A server that still wants ``max_tokens`` may not know the newer fields. The hints among them are dropped and named.
OLDER_SERVERS: Final[Mapping[str, FieldRule]] = {
    "metadata": drop_unless({}),
    "moderation": REJECT,
    "prediction": drop_unless(),
    "prompt_cache_key": drop_unless(),
    "prompt_cache_options": drop_unless({}),
    "prompt_cache_retention": drop_unless(),
    "safety_identifier": drop_unless(),
    "store": drop_unless(False),
    "user": _user_in("user"),
    "verbosity": drop_unless("medium"),
}
# The client formats whose answers can carry several choices and log probabilities.
CARRIED_BY: Final[Mapping[str, tuple[str, ...]]] = {
    "n": ("completions",),
    "logprobs": ("completions", "responses"),
    "top_logprobs": ("completions", "responses"),
}
