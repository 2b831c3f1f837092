"""OpenAI Responses, the client's side: which tools another vendor's model is offered, and which of them it must use."""

from __future__ import annotations

import typing
from typing import Any

import pytest
from openai.types.responses import custom_tool_param, namespace_tool_param, tool_param

from llm_service.core import errors
from llm_service.core.content import Tool, ToolChoice
from llm_service.core.conversation import Conversation
from llm_service.formats import anthropic_messages as messages
from llm_service.formats import custom_tools
from llm_service.formats import openai_responses as responses
from llm_service.formats.openai_responses.decode_tools import TOOL_CROSSING
from llm_service.formats.openai_responses.tool_names import ToolName, ToolNames
from tests.formats.examples import call, target
from tests.formats.openai_responses.wire import body

SCHEMA = {"type": "object", "properties": {"q": {"type": "string"}}}
TOOL = {"type": "function", "name": "look", "parameters": SCHEMA, "strict": False}
PATCH = {"type": "custom", "name": "patch", "description": "Patches."}
SEARCH = {"type": "web_search", "external_web_access": False}
GRAMMAR = {"type": "grammar", "syntax": "lark", "definition": 'start: "a"'}
FILES = {"type": "namespace", "name": "files", "description": "Files.", "tools": [TOOL, PATCH]}
MAIL = {"type": "namespace", "name": "mail", "description": "", "tools": [TOOL]}


def read(**extra: Any) -> Conversation:
    return responses.read_request(responses.check(body(**extra)))


def types_of(*unions: Any) -> set[str]:
    """The values of ``type`` in the members of unions of TypedDicts."""
    found: set[str] = set()
    for kind in (member for union in unions for member in typing.get_args(union) or (union,)):
        hint = typing.get_type_hints(kind)["type"]
        found |= {value for value in typing.get_args(hint) if isinstance(value, str)}
    return found


OPENAIS_OWN = types_of(tool_param.ToolParam) - set(TOOL_CROSSING)


def test_the_sdk_s_tools_are_known() -> None:
    assert set(TOOL_CROSSING) <= types_of(tool_param.ToolParam)
    assert {"web_search", "mcp", "local_shell", "shell", "apply_patch", "tool_search", "computer"} <= OPENAIS_OWN


@pytest.mark.parametrize("kind", [*sorted(OPENAIS_OWN), "tool_of_tomorrow"])
@pytest.mark.parametrize("choice", [None, "auto", "none", {"type": "function", "name": "look"}])
def test_a_tool_of_openai_s_is_left_out_and_named_unless_it_is_forced(kind: str, choice: Any) -> None:
    conversation = read(tools=[{"type": kind, "server_label": "x"}, TOOL], tool_choice=choice)
    assert [tool.name for tool in conversation.tools] == ["look"]
    assert conversation.dropped == (f"tools[].{kind}",)


@pytest.mark.parametrize("kind", [*sorted(OPENAIS_OWN), "tool_of_tomorrow"])
@pytest.mark.parametrize(
    ("offered", "choice"),
    [
        ([TOOL], {"type": "KIND", "name": "x"}),
        ([], "required"),
        ([TOOL], {"type": "allowed_tools", "mode": "required", "tools": [{"type": "KIND"}]}),
    ],
)
def test_a_tool_of_openai_s_that_is_forced_is_rejected_by_the_choice(kind: str, offered: Any, choice: Any) -> None:
    if isinstance(choice, dict):
        tools = [{"type": kind} for _ in choice.get("tools", ())]
        choice = {**choice, "type": kind} if choice["type"] == "KIND" else {**choice, "tools": tools}
    with pytest.raises(errors.UnsupportedParameter, match="functions and custom tools") as caught:
        read(tools=[{"type": kind}, *offered], tool_choice=choice)
    assert caught.value.param == "tool_choice"


def test_allowed_tools_keep_what_the_model_has() -> None:
    allowed = [{"type": "web_search"}, {"type": "function", "name": "look"}, {"type": "custom", "name": "patch"}]
    for mode in ("auto", "required"):
        choice = {"type": "allowed_tools", "mode": mode, "tools": allowed}
        conversation = read(tools=[SEARCH, TOOL, PATCH], tool_choice=choice)
        assert conversation.tool_choice == ToolChoice(mode, allowed=("look", "patch"))
    only_search = {"type": "allowed_tools", "mode": "auto", "tools": allowed[:1]}
    assert read(tools=[SEARCH, TOOL], tool_choice=only_search).tool_choice == ToolChoice("none")
    whole = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "namespace", "name": "files"}]}
    assert read(tools=[FILES, TOOL], tool_choice=whole).tool_choice == ToolChoice(
        "auto", allowed=("files__look", "files__patch")
    )


def test_a_custom_tool_is_a_tool_with_one_text() -> None:
    [tool] = read(tools=[{**PATCH, "format": {"type": "text"}}], tool_choice={"type": "custom", "name": "patch"}).tools
    assert tool == Tool("patch", "Patches.", custom_tools.SCHEMA)
    assert tool.path == "tools[0]"


@pytest.mark.parametrize("about", ["Patches.", None])
def test_a_grammar_is_told_to_the_model_and_named(about: str | None) -> None:
    conversation = read(tools=[{**PATCH, "description": about, "format": GRAMMAR}])
    assert conversation.tools[0].description == (
        ("Patches.\n\n" if about else "") + 'The text must match this lark grammar:\nstart: "a"'
    )
    assert conversation.dropped == ("tools[].format",)


def test_tools_in_namespaces_get_joined_names() -> None:
    conversation = read(tools=[FILES, MAIL, TOOL])
    assert [tool.name for tool in conversation.tools] == ["files__look", "files__patch", "mail__look", "look"]
    assert [tool.path for tool in conversation.tools[:3]] == [
        "tools[0].tools[0].parameters",
        "tools[0].tools[1]",
        "tools[1].tools[0].parameters",
    ]
    assert conversation.tools[1].schema == custom_tools.SCHEMA
    assert conversation.dropped == ("tools[].description",)


def test_joined_names_come_back_as_the_client_s_own() -> None:
    names = ToolNames({"tools": [FILES, MAIL, TOOL], "input": "x"})
    assert names.given("files__patch") == ToolName("patch", "files", custom=True)
    assert names.given("mail__look") == ToolName("look", "mail")
    assert names.given("look") == ToolName("look")
    assert names.given("nobody_s") == ToolName("nobody_s")
    assert names.flat("look", "mail") == "mail__look"
    assert names.flat("gone", "mail") == "mail__gone"


def test_a_joined_name_is_never_the_name_of_another_tool() -> None:
    alike = [
        {"type": "namespace", "name": "a", "description": "", "tools": [{**TOOL, "name": "b__c"}]},
        {"type": "namespace", "name": "a__b", "description": "", "tools": [{**TOOL, "name": "c"}]},
        {**TOOL, "name": "a__b__c"},
    ]
    offered = [tool.name for tool in read(tools=alike).tools]
    assert offered == ["a__b__c_", "a__b__c__", "a__b__c"]
    names = ToolNames({"tools": alike})
    assert [(names.given(name).namespace, names.given(name).name) for name in offered] == [
        ("a", "b__c"),
        ("a__b", "c"),
        (None, "a__b__c"),
    ]


@pytest.mark.parametrize(
    ("choice", "name"),
    [
        ({"type": "function", "name": "look", "namespace": "mail"}, "mail__look"),
        ({"type": "custom", "name": "patch"}, "files__patch"),
        ({"type": "function", "name": "wait"}, "wait"),
    ],
)
def test_a_choice_finds_a_tool_in_a_namespace(choice: dict[str, Any], name: str) -> None:
    tools = [FILES, MAIL, {**TOOL, "name": "wait"}]
    assert read(tools=tools, tool_choice=choice).tool_choice == ToolChoice("tool", name)


def test_the_input_may_offer_more_tools_and_may_offer_a_tool_again() -> None:
    found = {"type": "tool_search_output", "call_id": "c", "execution": "client", "tools": [MAIL, TOOL]}
    more = {"type": "additional_tools", "role": "developer", "tools": [FILES]}
    conversation = read(tools=[TOOL], input=[more, found, {"role": "user", "content": "Go"}])
    assert [tool.name for tool in conversation.tools] == ["look", "files__look", "files__patch", "mail__look"]
    assert conversation.tools[3].path == "input[1].tools[0].tools[0].parameters"
    assert conversation.dropped == ("tools[].description", "input[].tool_search_output")


@pytest.mark.parametrize(
    "hint", [{"defer_loading": True}, {"allowed_callers": ["programmatic"]}, {"async": True}, {"new_hint": {"a": 1}}]
)
@pytest.mark.parametrize("tool", [TOOL, PATCH])
def test_hints_of_a_tool_are_dropped_and_named(tool: dict[str, Any], hint: dict[str, Any]) -> None:
    conversation = read(tools=[{**tool, **hint}])
    assert conversation.tools == read(tools=[tool]).tools
    assert conversation.dropped == (f"tools[].{next(iter(hint))}",)


def test_a_hint_that_says_nothing_is_not_named() -> None:
    silent = {"defer_loading": False, "allowed_callers": ["direct"], "async": False, "output_schema": None}
    assert read(tools=[{**TOOL, **silent}]).dropped == ()


def test_text_that_is_not_a_name_is_not_shown() -> None:
    conversation = read(tools=[{"type": "a secret"}, {**TOOL, "another secret": 1}])
    assert conversation.dropped == ("tools[].(unnamed)",)


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ({"tools": [{"name": "x"}]}, "tools[0].type"),
        ({"tools": [{"type": []}]}, "tools[0].type"),
        ({"tools": [{"type": "custom"}]}, "tools[0].name"),
        ({"tools": [{**PATCH, "format": "x"}]}, "tools[0].format"),
        ({"tools": [{**PATCH, "format": {"type": "grammar"}}]}, "tools[0].format"),
        ({"tools": [{**FILES, "name": 5}]}, "tools[0].name"),
        ({"tools": [{**FILES, "tools": {}}]}, "tools[0].tools"),
        ({"tools": [{**FILES, "tools": [5]}]}, "tools[0].tools[0]"),
        ({"tools": [{**FILES, "tools": [TOOL, TOOL]}]}, "tools[0].tools[1].name"),
        ({"tools": [MAIL, MAIL]}, "tools[1].tools[0].name"),
        ({"tools": [PATCH, {**TOOL, "name": "patch"}]}, "tools[1].name"),
        ({"tools": [TOOL], "tool_choice": {"type": []}}, "tool_choice.type"),
        ({"tools": [TOOL], "tool_choice": {"type": "custom", "name": "other"}}, "tool_choice"),
        ({"tools": [FILES, MAIL], "tool_choice": {"type": "function", "name": "look"}}, "tool_choice"),
        (
            {"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [5]}},
            "tool_choice.tools[0]",
        ),
        ({"input": [{"type": "additional_tools", "tools": [{"type": "function"}]}]}, "input[0].tools[0].name"),
    ],
)
def test_a_malformed_tool_is_named_by_its_path(given: dict[str, Any], path: str) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        read(**given)
    assert caught.value.param == path


@pytest.mark.parametrize(
    ("kind", "types"),
    [
        ("function", [namespace_tool_param.ToolFunction]),
        ("custom", [custom_tool_param.CustomToolParam]),
        ("namespace", [namespace_tool_param.NamespaceToolParam]),
    ],
)
def test_every_field_of_a_tool_has_a_rule(kind: str, types: list[Any]) -> None:
    known = {name for each in types for name in typing.get_type_hints(each)}
    assert known <= set(TOOL_CROSSING[kind])


def test_a_wrong_schema_is_named_by_its_own_path() -> None:
    outside = {"$ref": "https://a.example/b"}
    asked = {"type": "json_schema", "name": "n", "schema": {"type": "object", "properties": {"a": outside}}}
    for extra, path in (
        ({"tools": [{**TOOL, "parameters": outside}]}, "tools[0].parameters"),
        ({"text": {"format": asked}}, "text.format.schema.properties.a"),
    ):
        given = call("responses", {"model": "m", "input": "x", **extra})
        with pytest.raises((errors.InvalidRequest, errors.UnsupportedParameter)) as caught:
            messages.write_request(given, responses.read_request(given.body), target("anthropic"))
        assert str(caught.value.param).startswith(path)
