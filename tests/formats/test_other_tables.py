"""The fate of every field of the smaller routes: docs/fields_others.md, the code and the SDKs' own types say the same.

A release of an SDK that adds a field to one of them fails here with its name.
"""

from __future__ import annotations

import json
import re
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from anthropic.types.message_count_tokens_params import MessageCountTokensParams
from anthropic.types.message_count_tokens_tool_param import MessageCountTokensToolParam
from anthropic.types.message_create_params import MessageCreateParamsStreaming
from anthropic.types.tool_union_param import ToolUnionParam
from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming as ChatParams
from openai.types.completion_create_params import CompletionCreateParamsStreaming
from openai.types.embedding_create_params import EmbeddingCreateParams
from openai.types.responses import input_token_count_params
from openai.types.responses.input_token_count_params import InputTokenCountParams
from openai.types.responses.response_create_params import ResponseCreateParamsStreaming

from llm_service.core.errors import InvalidRequest, UnsupportedParameter
from llm_service.formats.anthropic_messages import decode_request as messages_client
from llm_service.formats.openai_responses import decode_request as responses_request
from llm_service.formats.rules import REJECT, TRANSLATE, FieldRule
from llm_service.formats.small import completions, count_tokens, embeddings, input_tokens, simple

DOCUMENT = (Path(__file__).parents[2] / "docs" / "fields_others.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `([^`]+)` \| (\w+) \| ([^|]*?) \| [^|]*\|$", re.MULTILINE)

# The counters read a request by the tables of the format they count for.
TABLES: dict[str, Mapping[str, FieldRule]] = {
    "completions": completions.CROSSING,
    "messages/count_tokens": {name: messages_client.CROSSING.get(name, REJECT) for name in count_tokens.FIELDS},
    "responses/input_tokens": {name: responses_request.CROSSING.get(name, REJECT) for name in input_tokens.FIELDS},
    "simple": dict.fromkeys(simple.RequestSchema().fields, TRANSLATE),
}


def documented() -> dict[str, dict[str, tuple[str, str]]]:
    """Heading to field to fate and the values that say nothing."""
    found: dict[str, dict[str, tuple[str, str]]] = {}
    for section in DOCUMENT.split("\n## ")[1:]:
        heading, _, text = section.partition("\n")
        found[heading] = {field: (fate, unless.strip()) for field, fate, unless in ROW.findall(text)}
        assert len(found[heading]) == text.count("\n| `"), heading
    return found


def test_the_document_has_the_tables_of_the_code() -> None:
    told = documented()
    assert told.pop("embeddings") == dict.fromkeys(embeddings.RequestSchema().fields, ("passes", ""))
    assert told == {
        heading: {
            field: (fate.how, ", ".join(f"`{json.dumps(value)}`" for value in fate.neutral))
            for field, fate in table.items()
        }
        for heading, table in TABLES.items()
    }


def fields_of(typed: Any) -> set[str]:
    return set(typing.get_type_hints(typed))


SDK: dict[str, set[str]] = {
    "completions": fields_of(CompletionCreateParamsStreaming),
    "embeddings": fields_of(EmbeddingCreateParams),
    # Two are sent as headers.
    "messages/count_tokens": fields_of(MessageCountTokensParams) - {"user_profile_id", "workspace_id"},
    "responses/input_tokens": fields_of(InputTokenCountParams),
}


@pytest.mark.parametrize("heading", SDK)
def test_every_field_of_the_sdk_has_a_fate_and_no_other(heading: str) -> None:
    told = set(documented()[heading])
    assert (sorted(SDK[heading] - told), sorted(told - SDK[heading])) == ([], [])


def test_what_is_counted_has_the_parts_of_what_is_answered() -> None:
    assert fields_of(input_token_count_params.Text) <= set(responses_request.TEXT_CROSSING)
    assert set(typing.get_args(MessageCountTokensToolParam)) <= set(typing.get_args(ToolUnionParam))


# ---- what the tables say is done

TURNS = [{"role": "user", "content": "Hello"}]
READERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "completions": (completions, {"model": "m", "prompt": "Hello"}),
    "messages/count_tokens": (count_tokens, {"model": "m", "messages": TURNS}),
    "responses/input_tokens": (input_tokens, {"model": "m", "input": "Hello"}),
}
# Sorted: every test process must have them in one order.
FATES = [
    (heading, name, fate)
    for heading in READERS
    for name, fate in sorted(TABLES[heading].items(), key=lambda item: item[0])
    if fate != TRANSLATE
]


@pytest.mark.parametrize(("heading", "name", "fate"), FATES, ids=lambda value: value if isinstance(value, str) else "")
def test_a_field_is_refused_or_dropped_by_its_name(heading: str, name: str, fate: FieldRule) -> None:
    format, body = READERS[heading]
    for value in (None, *fate.neutral):
        assert format.read_request({**body, name: value}).dropped == ()
    if fate.how == "drop":
        assert format.read_request({**body, name: "strange"}).dropped == (name,)
        return
    with pytest.raises(UnsupportedParameter) as caught:
        format.read_request({**body, name: "strange"})
    assert caught.value.param == name


@pytest.mark.parametrize("heading", READERS)
def test_a_field_of_tomorrow_does_not_cross(heading: str) -> None:
    format, body = READERS[heading]
    with pytest.raises(UnsupportedParameter) as caught:
        format.read_request({**body, "shiny": 1})
    assert caught.value.param == "shiny"


def test_the_simple_api_refuses_every_vendor_s_field_that_is_not_its_own() -> None:
    vendors = (ChatParams, CompletionCreateParamsStreaming, ResponseCreateParamsStreaming, MessageCreateParamsStreaming)
    names = set().union(*map(fields_of, vendors)) - set(TABLES["simple"])
    assert len(names) > 40
    for name in sorted(names):
        with pytest.raises(InvalidRequest) as caught:
            simple.check({"prompt": "Hello", name: 1})
        assert caught.value.param == name
