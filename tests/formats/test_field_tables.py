"""The tables of fields: the documents print the code's tables, and the code knows every field of the installed SDKs.

A release of an SDK that adds a field, a content part or a block fails here with its name.
"""

from __future__ import annotations

import re
import typing
from typing import Any

import anthropic.types as claude
import openai.types.chat as gpt
import openai.types.responses as gpt_responses
import pytest
from anthropic.types.content_block_param import ContentBlockParam
from anthropic.types.message_count_tokens_params import MessageCountTokensParams
from anthropic.types.message_count_tokens_tool_param import MessageCountTokensToolParam
from anthropic.types.message_create_params import MessageCreateParamsBase, MessageCreateParamsStreaming
from anthropic.types.tool_union_param import ToolUnionParam
from openai.types.chat.chat_completion_assistant_message_param import ContentArrayOfContentPart
from openai.types.chat.chat_completion_content_part_image_param import ImageURL
from openai.types.chat.chat_completion_content_part_param import ChatCompletionContentPartParam, File, FileFile
from openai.types.chat.chat_completion_custom_tool_param import Custom
from openai.types.chat.completion_create_params import CompletionCreateParamsBase
from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming as ChatParams
from openai.types.chat.completion_create_params import Function as OlderFunction
from openai.types.completion_create_params import CompletionCreateParamsStreaming
from openai.types.embedding_create_params import EmbeddingCreateParams
from openai.types.responses import input_token_count_params
from openai.types.responses.input_token_count_params import InputTokenCountParams
from openai.types.responses.response_create_params import ResponseCreateParamsStreaming
from openai.types.shared_params.function_definition import FunctionDefinition
from openai.types.shared_params.response_format_json_schema import JSONSchema, ResponseFormatJSONSchema

from llm_service.core.call import Call, Caller
from llm_service.core.conversation import Conversation
from llm_service.core.errors import InvalidRequest, UnsupportedParameter
from llm_service.core.target import Provider, Target, Timeouts
from llm_service.formats import UpstreamFormat, anthropic_messages, openai_chat, openai_responses, registry
from llm_service.formats.small import count_tokens, input_tokens, simple
from scripts import field_notes
from scripts.print_field_tables import COUNTED, DOCUMENTS, LISTED, NESTED, REQUESTS, TARGETS, places, printed, tables

# ---- the documents


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_a_document_has_the_tables_of_the_code(path: Any) -> None:
    document = path.read_text(encoding="utf-8")
    assert document == printed(document), "run scripts/print_field_tables.py"


def test_every_table_has_one_place_in_the_documents() -> None:
    found = [name for path in DOCUMENTS for name in places(path.read_text(encoding="utf-8"))]
    assert sorted(found) == sorted(tables())


def test_every_note_belongs_to_a_field() -> None:
    for name, fields in field_notes.REQUESTS.items():
        assert set(fields) <= set(REQUESTS[name].fields())
        assert all(set(notes) <= set(REQUESTS[name].targets) for notes in fields.values())
    for name, notes in field_notes.NESTED.items():
        assert set(notes) <= set(NESTED[name]), name
    for name, notes in field_notes.COUNTED.items():
        assert set(notes) <= set(COUNTED[name][2] if name in COUNTED else LISTED[name][1]), name


def test_a_table_that_differs_from_the_code_is_replaced() -> None:
    document = "a\n<!-- fields: simple -->\nold\n<!-- end -->\nb"
    assert printed(document) == f"a\n<!-- fields: simple -->\n\n{tables()['simple']}\n\n<!-- end -->\nb"


# ---- the SDKs


def fields_of(*types: Any) -> set[str]:
    """The fields of TypedDicts, and of those in a union."""
    kinds = [member for kind in types for member in typing.get_args(kind) or (kind,)]
    return {name for kind in kinds for name in typing.get_type_hints(kind)}


MESSAGES_OF_OPENAI = [
    getattr(gpt, f"ChatCompletion{role}MessageParam")
    for role in ("Developer", "System", "User", "Assistant", "Tool", "Function")
]
SDK: dict[str, set[str]] = {
    "chat": fields_of(CompletionCreateParamsBase) | {"stream"},
    "chat: message": fields_of(*MESSAGES_OF_OPENAI),
    "chat: function message": fields_of(gpt.ChatCompletionFunctionMessageParam),
    "chat: call of a function": fields_of(gpt.ChatCompletionMessageFunctionToolCallParam),
    "chat: call of a custom": fields_of(gpt.ChatCompletionMessageCustomToolCallParam),
    "chat: image_url": fields_of(ImageURL),
    "chat: file": fields_of(FileFile),
    "chat: tool function": fields_of(gpt.ChatCompletionFunctionToolParam),
    "chat: tool custom": fields_of(gpt.ChatCompletionCustomToolParam),
    "chat: function": fields_of(FunctionDefinition, OlderFunction),
    "chat: custom": fields_of(Custom),
    "chat: json_schema": fields_of(JSONSchema),
    "chat: part text": fields_of(gpt.ChatCompletionContentPartTextParam),
    "chat: part image_url": fields_of(gpt.ChatCompletionContentPartImageParam),
    "chat: part file": fields_of(File),
    "chat: part refusal": fields_of(gpt.ChatCompletionContentPartRefusalParam),
    # Two are sent as headers.
    "messages": fields_of(MessageCreateParamsBase) - {"user_profile_id", "workspace_id"} | {"stream"},
    "messages: metadata": fields_of(claude.MetadataParam),
    "messages: message": fields_of(claude.MessageParam),
    "messages: tool": fields_of(claude.ToolParam),
    "messages: tool_choice": fields_of(
        claude.ToolChoiceAutoParam, claude.ToolChoiceAnyParam, claude.ToolChoiceToolParam, claude.ToolChoiceNoneParam
    ),
    "messages: thinking": fields_of(claude.ThinkingConfigEnabledParam, claude.ThinkingConfigAdaptiveParam),
    "messages: output_config": fields_of(claude.OutputConfigParam),
    "messages: output_config.format": fields_of(claude.JSONOutputFormatParam),
    "messages: block text": fields_of(claude.TextBlockParam),
    "messages: block image": fields_of(claude.ImageBlockParam),
    "messages: block document": fields_of(claude.DocumentBlockParam),
    "messages: block search_result": fields_of(claude.SearchResultBlockParam),
    "messages: block tool_reference": fields_of(claude.ToolReferenceBlockParam),
    "messages: block tool_use": fields_of(claude.ToolUseBlockParam),
    "messages: block tool_result": fields_of(claude.ToolResultBlockParam),
    "messages: block thinking": fields_of(claude.ThinkingBlockParam),
    "messages: block redacted_thinking": fields_of(claude.RedactedThinkingBlockParam),
    "responses": fields_of(ResponseCreateParamsStreaming),
    "completions": fields_of(CompletionCreateParamsStreaming),
    "embeddings": fields_of(EmbeddingCreateParams),
    "messages/count_tokens": fields_of(MessageCountTokensParams) - {"user_profile_id", "workspace_id"},
    "responses/input_tokens": fields_of(InputTokenCountParams),
}

KNOWN: dict[str, set[str]] = {
    **{name: set(request.fields()) for name, request in REQUESTS.items()},
    **{name: set(table) for name, table in NESTED.items()},
    **{name: set(fields) for name, (_, _, fields) in COUNTED.items()},
    "embeddings": set(LISTED["embeddings"][1]),
}


@pytest.mark.parametrize("name", SDK)
def test_every_field_of_the_sdk_has_a_rule(name: str) -> None:
    assert sorted(SDK[name] - KNOWN[name]) == []


# The types of completions do not have it, but the API accepts it for most models.
NOT_IN_THE_SDK = {"completions": ["service_tier"]}


@pytest.mark.parametrize("name", ["completions", "embeddings", "messages/count_tokens", "responses/input_tokens"])
def test_no_rule_is_for_a_field_that_the_sdk_does_not_have(name: str) -> None:
    assert sorted(KNOWN[name] - SDK[name]) == NOT_IN_THE_SDK.get(name, [])


def kind_of(typed: Any) -> str:
    return str(typing.get_args(typing.get_type_hints(typed)["type"])[0])


def parts_of(typed: Any) -> set[str]:
    """The ``type`` of every TypedDict in a union."""
    return {kind_of(kind) for kind in typing.get_args(typed)}


def test_every_kind_of_content_has_a_rule() -> None:
    row = r"^\| `((?:chat|messages): (?:part|block) \w+)` \| (?:reject|drop) \|$"
    rows = re.findall(row, DOCUMENTS[0].read_text(), re.M)
    parts = parts_of(ChatCompletionContentPartParam) | parts_of(ContentArrayOfContentPart)
    chat = {f"chat: part {kind}" for kind in parts}
    blocks = {f"messages: block {kind}" for kind in parts_of(ContentBlockParam)}
    assert sorted((chat | blocks) - set(NESTED) - set(rows)) == []
    assert sorted(set(rows) - chat - blocks) == []
    assert not set(rows) & set(NESTED)


def test_formats_and_counters_have_no_more_fields() -> None:
    assert fields_of(ResponseFormatJSONSchema) <= {"type", "json_schema"}
    assert fields_of(input_token_count_params.Text) <= set(NESTED["responses: text"])
    assert set(typing.get_args(MessageCountTokensToolParam)) <= set(typing.get_args(ToolUnionParam))
    assert fields_of(gpt_responses.FunctionToolParam) <= set(NESTED["responses: tool function"])


# ---- what the tables say is done

TURNS = [{"role": "user", "content": "Hello"}]
BODIES: dict[str, dict[str, Any]] = {
    "chat": {"model": "m", "messages": TURNS},
    "messages": {"model": "m", "messages": TURNS, "max_tokens": 99},
    "responses": {"model": "m", "input": "Hello"},
    "completions": {"model": "m", "prompt": "Hello"},
}
WRITERS: dict[str, UpstreamFormat] = {
    "chat": openai_chat,
    "responses": openai_responses,
    "messages": anthropic_messages,
}
ROWS = [
    (name, target, field)
    for name, request in REQUESTS.items()
    for target in request.targets
    for field in sorted(request.extras)
    if "." not in field
]


def crossed(name: str, target: str, body: dict[str, Any]) -> tuple[str, ...]:
    """The names of the fields that are dropped when the body is written for a model of the format ``target``."""
    call = Call("c", "r", "/", name, "m", False, body, Caller("k"))
    conversation: Conversation = registry.format_of(call).read_request(body)
    kind = "anthropic" if target == "messages" else "openai"
    model = Target(Provider("one", kind, responses=target == "responses"), "m", Timeouts(), max_output=999)
    return (*conversation.dropped, *WRITERS[target].write_request(call, conversation, model)[1])


@pytest.mark.parametrize(("name", "target", "field"), ROWS)
def test_a_field_is_rejected_or_dropped_as_its_row_says(name: str, target: str, field: str) -> None:
    request = REQUESTS[name]
    rule = request.rule(field, target)
    for value in (None, *request.extras[field].neutral, *(() if field in request.rewritten else rule.neutral)):
        assert field not in crossed(name, target, {**BODIES[name], field: value})
    if rule.how == "drop":
        assert field in crossed(name, target, {**BODIES[name], field: "strange"})
    elif rule.how == "reject":
        with pytest.raises(UnsupportedParameter) as caught:
            crossed(name, target, {**BODIES[name], field: "strange"})
        assert caught.value.param == field


@pytest.mark.parametrize(
    ("name", "target"), [(name, to) for name, request in REQUESTS.items() for to in request.targets]
)
def test_a_field_that_nobody_knows_is_rejected(name: str, target: str) -> None:
    assert all("shiny" not in rules for _, rules in TARGETS.values())
    with pytest.raises(UnsupportedParameter) as caught:
        crossed(name, target, {**BODIES[name], "shiny": 1})
    assert caught.value.param == "shiny"


@pytest.mark.parametrize(("format", "target"), [(count_tokens, "responses"), (input_tokens, "messages")])
def test_a_counter_rejects_or_drops_what_its_table_says(format: Any, target: str) -> None:
    heading = format.PATHS[0].removeprefix("/v1/")
    request, _, fields = COUNTED[heading]
    body = BODIES["messages" if target == "responses" else "responses"]
    for field in sorted(set(fields) & set(request.extras)):
        with_field = {**body, field: "strange"}
        if request.rule(field, target).how == "drop":
            assert field in crossed(format.NAME, target, with_field)
        else:
            with pytest.raises(UnsupportedParameter) as caught:
                crossed(format.NAME, target, with_field)
            assert caught.value.param == field


def test_the_simple_api_rejects_every_field_of_a_vendor_that_is_not_its_own() -> None:
    vendors = (ChatParams, CompletionCreateParamsStreaming, ResponseCreateParamsStreaming, MessageCreateParamsStreaming)
    names = fields_of(*vendors) - set(LISTED["simple"][1])
    assert len(names) > 40
    for name in sorted(names):
        with pytest.raises(InvalidRequest) as caught:
            simple.check({"prompt": "Hello", name: 1})
        assert caught.value.param == name
