"""OpenAI Responses, the client's side: what a request must look like, and how it becomes a conversation."""

from __future__ import annotations

import base64
import typing
from typing import Any

import pytest
from openai.types.responses import (
    easy_input_message_param,
    function_tool_param,
    response_create_params,
    response_input_file_param,
    response_input_image_param,
    response_input_item_param,
    response_input_text_param,
    response_reasoning_item_param,
    response_text_config_param,
)
from openai.types.shared_params import reasoning as reasoning_param

from llm_service.core import errors
from llm_service.core.content import (
    Document,
    Image,
    JsonFormat,
    Message,
    Reasoning,
    RedactedThinking,
    Refusal,
    Text,
    Thinking,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from llm_service.core.conversation import Conversation, Extra
from llm_service.formats import openai_responses as responses
from llm_service.formats.openai_responses import decode_messages, decode_parts, decode_request, decode_tools, schema
from tests.formats.openai_responses.wire import body, message, reasoning, tool_call

PIXEL = "iVBORw0KGgo="
SCHEMA = {"type": "object", "properties": {"q": {"type": "string"}}}
TOOL = {"type": "function", "name": "look", "parameters": SCHEMA, "strict": False}


def read(**extra: Any) -> Conversation:
    return responses.read_request(responses.check(body(**extra)))


# ---- what a request must look like


@pytest.mark.parametrize(
    ("wrong", "path"),
    [
        ({"model": None}, "model"),
        ({"model": ""}, "model"),
        ({"input": None}, "input"),
        ({"input": 5}, "input"),
        ({"input": [5]}, "input[0]"),
        ({"input": [{"type": 5}]}, "input[0].type"),
        ({"input": [{"role": "tool", "content": "x"}]}, "input[0].role"),
        ({"input": [{"content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": 5}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": [5]}]}, "input[0].content[0]"),
        ({"input": [{"role": "user", "content": [{"text": "x"}]}]}, "input[0].content[0].type"),
        ({"instructions": 5}, "instructions"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"max_output_tokens": "5"}, "max_output_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"stream": "yes"}, "stream"),
        ({"store": "yes"}, "store"),
        ({"background": 1}, "background"),
        ({"tools": {}}, "tools"),
        ({"tool_choice": []}, "tool_choice"),
        ({"text": "json"}, "text"),
        ({"reasoning": "high"}, "reasoning"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"metadata": []}, "metadata"),
    ],
)
def test_a_wrong_field_is_named(wrong: dict[str, Any], path: str) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        responses.check(body(**wrong))
    assert caught.value.param == path


def test_a_request_with_a_stored_input_needs_no_input_field() -> None:
    for name, value in {"prompt": {"id": "p"}, "previous_response_id": "resp_1", "conversation": "conv_1"}.items():
        given = {"model": "m", name: value}
        assert responses.check(given) is given


def test_unknown_fields_and_items_pass_the_check() -> None:
    given = body(input=[{"type": "shiny", "x": 1}, {"role": "user", "content": "x"}], field_of_tomorrow={"a": [1]})
    assert responses.check(given) is given


# ---- what becomes of a request


def test_instructions_and_leading_system_messages_are_the_system_prompt() -> None:
    conversation = read(
        instructions="Be brief.",
        input=[
            {"role": "developer", "content": [{"type": "input_text", "text": "Be kind."}]},
            {"role": "system", "content": "Be true."},
            {"role": "user", "content": "Hello"},
            {"role": "system", "content": "Now be long."},
            {"role": "user", "content": "Go on"},
        ],
    )
    assert conversation.system == (Text("Be brief."), Text("Be kind."), Text("Be true."))
    assert [(turn.role, turn.text) for turn in conversation.messages] == [
        ("user", "Hello"),
        ("system", "Now be long."),
        ("user", "Go on"),
    ]


def test_a_string_is_one_message_of_the_user() -> None:
    assert read(input="Hello").messages == (Message("user", (Text("Hello"),)),)


def test_items_become_turns() -> None:
    conversation = read(
        tools=[TOOL],
        input=[
            {"role": "user", "content": "Hello"},
            reasoning("Well", "now"),
            message("Let me see"),
            tool_call('{"q":1}', 1),
            tool_call("", 2),
            {"type": "function_call_output", "call_id": "call_1", "output": "found"},
            {
                "type": "function_call_output",
                "call_id": "call_2",
                "output": [
                    {"type": "input_text", "text": "a"},
                    {"type": "input_image", "image_url": "https://x/y.png"},
                ],
            },
            {"role": "user", "content": "And?"},
            {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "No"}]},
            {"role": "user", "content": "A"},
            {"role": "user", "content": "B"},
        ],
    )
    assert conversation.messages == (
        Message("user", (Text("Hello"),)),
        Message(
            "assistant",
            (
                Thinking("Well\n\nnow", "rs_1:gAAAA", "responses"),
                Text("Let me see"),
                ToolCall("call_1", "look", '{"q":1}'),
                ToolCall("call_2", "look", ""),
            ),
        ),
        Message(
            "user",
            (
                ToolResult("call_1", (Text("found"),)),
                ToolResult("call_2", (Text("a"), Image(url="https://x/y.png"))),
                Text("And?"),
            ),
        ),
        Message("assistant", (Refusal("No"),)),
        Message("user", (Text("A"),)),
        Message("user", (Text("B"),)),
    )
    assert conversation.messages[1].path_of(2) == "input[3]"
    assert conversation.messages[2].path_of(2) == "input[7].content"


def test_a_tool_result_comes_before_the_user_s_own_text() -> None:
    items = [
        {"role": "user", "content": "Hello"},
        tool_call(),
        {"role": "user", "content": "Hurry"},
        {"type": "function_call_output", "call_id": "call_1", "output": ""},
    ]
    last = read(input=items).messages[-1]
    assert last.parts == (ToolResult("call_1", (Text(""),)), Text("Hurry"))


def test_reasoning_keeps_the_name_of_the_vendor_that_made_it() -> None:
    items = [
        {"role": "user", "content": "Hello"},
        reasoning("Hm", encrypted="carried:messages:EqQ=="),
        reasoning(encrypted="carried:messages:redacted:Zm9v"),
        reasoning("aloud", encrypted=None),
        message(),
        {"role": "user", "content": "Go on"},
    ]
    assert read(input=items).messages[1].parts[:3] == (
        Thinking("Hm", "EqQ==", "messages"),
        RedactedThinking("Zm9v", "messages"),
        Thinking("aloud"),
    )


def test_images_and_files_are_read() -> None:
    text = base64.b64encode("grüß".encode()).decode()
    parts = [
        {"type": "input_image", "image_url": f"data:image/png;base64,{PIXEL}", "detail": "high"},
        {"type": "input_image", "image_url": "https://x/y.png", "prompt_cache_breakpoint": {"mode": "explicit"}},
        {"type": "input_file", "file_data": f"data:application/pdf;base64,{PIXEL}", "filename": "a.pdf"},
        {"type": "input_file", "file_url": "https://x/a.pdf"},
        {"type": "input_file", "file_data": f"data:text/plain;base64,{text}", "filename": "a.txt"},
        {"type": "input_text", "text": "?"},
    ]
    conversation = read(input=[{"role": "user", "content": parts}])
    assert conversation.messages[0].parts == (
        Image(data=PIXEL, media_type="image/png"),
        Image(url="https://x/y.png", cache=0),
        Document(data=PIXEL, media_type="application/pdf", title="a.pdf"),
        Document(url="https://x/a.pdf"),
        Document(text="grüß", title="a.txt"),
        Text("?"),
    )
    assert conversation.dropped == ("input[].content[].detail",)


def test_tools_and_choices_are_read() -> None:
    conversation = read(
        tools=[{**TOOL, "description": "Looks."}, {"type": "function", "name": "wait", "parameters": None}],
        tool_choice={"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "wait"}]},
        parallel_tool_calls=False,
    )
    look, wait = conversation.tools
    assert (look.name, look.description, look.schema, look.strict) == ("look", "Looks.", SCHEMA, False)
    assert (wait.schema, wait.strict, wait.path) == (None, None, "tools[1].parameters")
    assert conversation.tool_choice == ToolChoice("required", allowed=("wait",))
    assert conversation.parallel_tool_calls is False
    for choice in ("auto", "none", "required"):
        assert read(tools=[TOOL], tool_choice=choice).tool_choice == ToolChoice(choice)
    forced = read(tools=[TOOL], tool_choice={"type": "function", "name": "look"})
    assert forced.tool_choice == ToolChoice("tool", "look")


def test_formats_are_read() -> None:
    given = {"type": "json_schema", "name": "n", "schema": SCHEMA, "strict": True, "description": "d"}
    conversation = read(text={"format": given, "verbosity": "low"})
    assert conversation.format == JsonFormat(SCHEMA, "n", "d", True)
    assert conversation.format.path == "text.format.schema"
    assert conversation.extras == {"verbosity": Extra("low", "text.verbosity")}
    assert conversation.dropped == ()
    assert read(text={"format": {"type": "json_object"}}).format == JsonFormat()
    assert read(text={"format": {"type": "text"}}).format is None
    assert read(text={}).format is None


def test_settings_are_read() -> None:
    conversation = read(
        max_output_tokens=50,
        temperature=0.5,
        top_p=0.9,
        user="old",
        safety_identifier="new",
        service_tier="default",
        reasoning={"effort": "high", "summary": "auto"},
        include=["reasoning.encrypted_content"],
        store=False,
        background=False,
        truncation="disabled",
        metadata={},
        top_logprobs=0,
        stream_options={"include_obfuscation": True},
    )
    assert (conversation.max_tokens, conversation.temperature, conversation.top_p) == (50, 0.5, 0.9)
    assert (conversation.user, conversation.tier) == ("new", "standard")
    assert conversation.reasoning == Reasoning("high", summary=True)
    assert conversation.dropped == ("user",)
    assert conversation.extras == {}
    assert read(user="old").user == "old"
    assert read(reasoning={"effort": None}).reasoning is None


def test_hints_that_only_this_format_has_are_dropped_and_named() -> None:
    conversation = read(
        include=["web_search_call.results"],
        tools=[{**TOOL, "output_schema": {}}],
        input=[{"role": "user", "content": "x", "phase": "commentary"}],
        reasoning={"context": "all_turns"},
    )
    assert set(conversation.dropped) == {"include", "tools[].output_schema", "input[].phase", "reasoning.context"}


# ---- what is rejected

REJECT: list[tuple[dict[str, Any], str]] = [
    ({"store": True}, "store"),
    ({"background": True}, "background"),
    ({"previous_response_id": "resp_1"}, "previous_response_id"),
    ({"conversation": "conv_1"}, "conversation"),
    ({"prompt": {"id": "p"}}, "prompt"),
    ({"input": None, "prompt": {"id": "p"}}, "prompt"),
    ({"tool_choice": {"type": "web_search"}}, "tool_choice"),
    ({"text": {"grammar": "x"}}, "text.grammar"),
    ({"reasoning": {"mode": "pro"}}, "reasoning.mode"),
    ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0]"),
    ({"input": [{"type": "web_search_call", "id": "x"}]}, "input[0]"),
    ({"input": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "input[0].content[0]"),
    (
        {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
        "input[0].content[0].file_id",
    ),
    ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]}, "input[0].content[0].file_id"),
    (
        {"input": [{"role": "system", "content": [{"type": "input_image", "image_url": "https://x/y"}]}]},
        "input[0].content[0]",
    ),
]
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"input": [{"type": "function_call", "name": "n", "arguments": ""}]}, "input[0].call_id"),
    ({"input": [{"type": "function_call", "call_id": "c", "name": "n", "arguments": {}}]}, "input[0].arguments"),
    ({"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]}, "input[0].call_id"),
    ({"input": [tool_call()]}, "input[0]"),
    ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png,x"}]}]},
     "input[0].content[0].image_url"),
    ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "data:image/bmp;base64,x"}]}]},
     "input[0].content[0].image_url"),
    ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "file:///etc"}]}]},
     "input[0].content[0].image_url"),
    ({"input": [{"role": "user", "content": [{"type": "input_file", "file_data": "data:video/mp4;base64,x"}]}]},
     "input[0].content[0].file_data"),
    ({"input": [{"role": "user", "content": [{"type": "input_file", "file_data": "data:text/plain;base64,?"}]}]},
     "input[0].content[0].file_data"),
    ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content[0].text"),
    ({"tools": [5]}, "tools[0]"),
    ({"tools": [{"type": "function"}]}, "tools[0].name"),
    ({"tools": [{**TOOL, "parameters": "x"}]}, "tools[0].parameters"),
    ({"tools": [TOOL, TOOL]}, "tools[1].name"),
    ({"tools": [TOOL], "tool_choice": "maybe"}, "tool_choice"),
    ({"tools": [TOOL], "tool_choice": {"type": "function", "name": "other"}}, "tool_choice"),
    ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format.schema"),
    ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format.name"),
    ({"text": {"format": {"type": "grammar"}}}, "text.format.type"),
    ({"reasoning": {"effort": "enormous"}}, "reasoning.effort"),
    ({"service_tier": 5}, "service_tier"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "path"), REJECT)
def test_what_no_other_format_can_express_is_rejected_by_its_path(given: dict[str, Any], path: str) -> None:
    with pytest.raises(errors.UnsupportedParameter) as caught:
        read(**given)
    assert caught.value.param == path


@pytest.mark.parametrize(("given", "path"), WRONG)
def test_a_malformed_member_is_named_by_its_path(given: dict[str, Any], path: str) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        read(**given)
    assert caught.value.param == path


# ---- the tables know every field of the SDK's types


def keys(*types: Any) -> set[str]:
    return {name for kind in types for name in typing.get_type_hints(kind)}


def item(name: str) -> Any:
    return getattr(response_input_item_param, name)


TABLES = {
    "request": (
        {*schema.COMMON, *schema.EXTRAS},
        keys(response_create_params.ResponseCreateParamsStreaming),
    ),
    "message": (
        decode_messages.ITEM_CROSSING["message"],
        keys(easy_input_message_param.EasyInputMessageParam, item("Message"), item("ResponseOutputMessageParam")),
    ),
    "function_call": (decode_messages.ITEM_CROSSING["function_call"], keys(item("ResponseFunctionToolCallParam"))),
    "function_call_output": (
        decode_messages.ITEM_CROSSING["function_call_output"],
        keys(item("FunctionCallOutput")),
    ),
    "reasoning": (
        decode_messages.ITEM_CROSSING["reasoning"],
        keys(response_reasoning_item_param.ResponseReasoningItemParam),
    ),
    "function tool": (decode_tools.TOOL_CROSSING["function"], keys(function_tool_param.FunctionToolParam)),
    "text": (decode_request.TEXT_CROSSING, keys(response_text_config_param.ResponseTextConfigParam)),
    "reasoning settings": (decode_request.REASONING_CROSSING, keys(reasoning_param.Reasoning)),
    "input_text": (decode_parts.PART_CROSSING["input_text"], keys(response_input_text_param.ResponseInputTextParam)),
    "input_image": (
        decode_parts.PART_CROSSING["input_image"],
        keys(response_input_image_param.ResponseInputImageParam),
    ),
    "input_file": (decode_parts.PART_CROSSING["input_file"], keys(response_input_file_param.ResponseInputFileParam)),
}


@pytest.mark.parametrize("name", TABLES)
def test_every_field_of_the_sdk_has_a_rule(name: str) -> None:
    table, known = TABLES[name]
    assert sorted(known - set(table)) == []
