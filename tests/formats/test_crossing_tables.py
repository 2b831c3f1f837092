"""The fate of every field: docs/fields.md, the code's tables and the SDKs' own types say the same.

A release of an SDK that adds a field, a content part or a block fails here with its name.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anthropic.types as claude
import openai.types.chat as gpt
import pytest
from anthropic.types.content_block_param import ContentBlockParam
from anthropic.types.message_create_params import MessageCreateParamsBase
from openai.types.chat.chat_completion_assistant_message_param import ContentArrayOfContentPart
from openai.types.chat.chat_completion_content_part_image_param import ImageURL
from openai.types.chat.chat_completion_content_part_param import ChatCompletionContentPartParam, File, FileFile
from openai.types.chat.chat_completion_custom_tool_param import Custom
from openai.types.chat.completion_create_params import CompletionCreateParamsBase
from openai.types.chat.completion_create_params import Function as OlderFunction
from openai.types.shared_params.function_definition import FunctionDefinition
from openai.types.shared_params.response_format_json_schema import JSONSchema, ResponseFormatJSONSchema

from llm_service.formats.anthropic_messages import decode_messages as messages_parts
from llm_service.formats.anthropic_messages import decode_request as messages_client
from llm_service.formats.anthropic_messages import decode_tools as messages_tools
from llm_service.formats.openai_chat import (
    decode_messages as chat_parts,
)
from llm_service.formats.openai_chat import (
    decode_tools as chat_tools,
)
from llm_service.formats.openai_chat import (
    schema as chat_schema,
)
from llm_service.formats.rules import FieldRule

DOCUMENT = (Path(__file__).parents[2] / "docs" / "fields.md").read_text(encoding="utf-8")

TABLES: dict[str, Mapping[str, FieldRule]] = {
    "chat: request": chat_schema.CROSSING,
    "chat: message": chat_parts.MESSAGE_CROSSING,
    "chat: function message": chat_parts.FUNCTION_MESSAGE_CROSSING,
    **{f"chat: call of a {kind}": table for kind, table in chat_tools.CALL_CROSSING.items()},
    "chat: image_url": chat_parts.IMAGE_CROSSING,
    "chat: file": chat_parts.FILE_CROSSING,
    **{f"chat: tool {kind}": table for kind, table in chat_tools.TOOL_CROSSING.items()},
    "chat: function": chat_tools.FUNCTION_CROSSING,
    "chat: custom": chat_tools.CUSTOM_CROSSING,
    "chat: json_schema": chat_parts.SCHEMA_CROSSING,
    **{f"chat: part {kind}": table for kind, table in chat_parts.PART_CROSSING.items()},
    "messages: request": messages_client.CROSSING,
    "messages: metadata": messages_client.METADATA_CROSSING,
    "messages: message": messages_parts.MESSAGE_CROSSING,
    "messages: tool": messages_tools.TOOL_CROSSING,
    "messages: tool_choice": messages_tools.CHOICE_CROSSING,
    "messages: thinking": messages_client.THINKING_CROSSING,
    "messages: output_config": messages_client.CONFIG_CROSSING,
    "messages: output_config.format": messages_client.FORMAT_CROSSING,
    **{f"messages: block {kind}": table for kind, table in messages_parts.BLOCK_CROSSING.items()},
}


def documented() -> dict[str, dict[str, str]]:
    """Heading to field to fate."""
    found: dict[str, dict[str, str]] = {}
    for section in DOCUMENT.split("\n## ")[1:]:
        heading, _, text = section.partition("\n")
        rows = re.findall(r"^\| `([^`]+)` \| (translate|drop|reject) \|", text, re.MULTILINE)
        if rows:
            found[heading] = dict(rows)
    return found


def test_the_document_has_the_tables_of_the_code() -> None:
    told = documented()
    others = told.pop("Content of another kind")
    assert told == {name: {field: fate.how for field, fate in table.items()} for name, table in TABLES.items()}
    assert set(others.values()) == {"reject"}
    assert not set(others) & set(TABLES)


def fields_of(*types: Any) -> set[str]:
    """The fields of TypedDicts, and of those in a union."""
    kinds = [member for kind in types for member in typing.get_args(kind) or (kind,)]
    return {name for kind in kinds for name in typing.get_type_hints(kind)}


MESSAGES_OF_OPENAI = [
    getattr(gpt, f"ChatCompletion{role}MessageParam")
    for role in ("Developer", "System", "User", "Assistant", "Tool", "Function")
]
SDK: dict[str, set[str]] = {
    "chat: request": fields_of(CompletionCreateParamsBase) | {"stream"},
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
    "messages: request": fields_of(MessageCreateParamsBase) - {"user_profile_id", "workspace_id"} | {"stream"},
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
    "messages: block tool_use": fields_of(claude.ToolUseBlockParam),
    "messages: block tool_result": fields_of(claude.ToolResultBlockParam),
    "messages: block thinking": fields_of(claude.ThinkingBlockParam),
    "messages: block redacted_thinking": fields_of(claude.RedactedThinkingBlockParam),
}


@pytest.mark.parametrize("name", TABLES)
def test_every_field_of_the_sdk_has_a_fate(name: str) -> None:
    assert sorted(SDK[name] - set(TABLES[name])) == []


def kind_of(typed: Any) -> str:
    return str(typing.get_args(typing.get_type_hints(typed)["type"])[0])


def parts_of(typed: Any) -> set[str]:
    """The ``type`` of every TypedDict in a union."""
    return {kind_of(kind) for kind in typing.get_args(typed)}


def test_every_kind_of_content_has_a_fate() -> None:
    others = set(documented()["Content of another kind"])
    parts = parts_of(ChatCompletionContentPartParam) | parts_of(ContentArrayOfContentPart)
    chat = {f"chat: part {kind}" for kind in parts}
    blocks = {f"messages: block {kind}" for kind in parts_of(ContentBlockParam)}
    assert sorted((chat | blocks) - set(TABLES) - others) == []
    assert sorted(others - chat - blocks) == []


def test_formats_have_no_more_fields() -> None:
    assert fields_of(ResponseFormatJSONSchema) <= set(chat_parts.FORMAT_CROSSING)
