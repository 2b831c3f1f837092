"""OpenAI Responses, the client's side: what happens to each item of a history that another vendor's model continues."""

from __future__ import annotations

import json
import typing
from typing import Any

import pytest
from openai.types.responses import response_input_item_param, response_output_item

from llm_service.core import errors
from llm_service.core.content import Image, Text, ToolCall, ToolResult
from llm_service.core.conversation import Conversation
from llm_service.formats import custom_tools
from llm_service.formats import openai_responses as responses
from llm_service.formats.openai_responses.decode_messages import DROPPED_ITEMS, ITEM_CROSSING, REJECTED_ITEMS
from tests.formats.openai_responses.wire import body, message, reasoning, tool_call

PIXEL = "data:image/png;base64,iVBORw0KGgo="
USER = {"role": "user", "content": "Go"}
ANSWER = {"role": "assistant", "content": "Done"}


def read(*items: Any, **extra: Any) -> Conversation:
    return responses.read_request(responses.check(body(input=list(items), **extra)))


def roles(conversation: Conversation) -> list[str]:
    return [turn.role for turn in conversation.messages]


def words_of(hint: Any) -> set[str]:
    """The strings of a Literal, wherever it is in a type."""
    found: set[str] = set()
    for value in typing.get_args(hint):
        found |= {value} if isinstance(value, str) else words_of(value)
    return found


def types_of(union: Any) -> set[str]:
    """The types of items: of TypedDicts, and of the SDK's models."""
    found: set[str] = set()
    for member in typing.get_args(union):
        fields = getattr(member, "model_fields", None)
        found |= words_of(fields["type"].annotation if fields else typing.get_type_hints(member).get("type"))
    return found


SENT = types_of(response_input_item_param.ResponseInputItemParam)
ANSWERED = types_of(typing.get_args(response_output_item.ResponseOutputItem)[0])


def test_every_item_of_the_sdk_has_a_decision() -> None:
    decided = {*ITEM_CROSSING, *DROPPED_ITEMS, *REJECTED_ITEMS}
    assert len(SENT) > 25 and len(ANSWERED) > 20
    assert decided == SENT | ANSWERED


@pytest.mark.parametrize(
    "kind", sorted((ANSWERED & DROPPED_ITEMS | {"item_reference", "compaction"}) - {"additional_tools"})
)
def test_what_openai_has_run_or_kept_is_left_out_and_named(kind: str) -> None:
    item = {"type": kind, "id": "x", "tools": [], "encrypted_content": "gAAA", "output": "x"}
    conversation = read(USER, item, ANSWER, USER)
    assert conversation.messages == read(USER, ANSWER, USER).messages
    assert conversation.dropped == (f"input[].{kind}",)


def test_a_reference_needs_no_type() -> None:
    conversation = read(USER, {"id": "msg_1"}, {"id": "msg_2", "type": None}, USER)
    assert roles(conversation) == ["user", "user"]
    assert conversation.dropped == ("input[].item_reference",)


REJECTED: list[tuple[list[Any], str]] = [
    ([{"type": "compaction", "encrypted_content": "gAAA"}, USER], "input[0]"),
    ([USER, {"type": "compaction_trigger"}], "input[1]"),
    ([USER, {"type": "configuration_update", "reasoning": {"effort": "low"}}], "input[1]"),
    ([USER, {"type": "mcp_approval_response", "approval_request_id": "a", "approve": True}], "input[1]"),
    ([USER, {"type": "item_of_tomorrow"}], "input[1]"),
    ([{"type": "item_reference", "id": "x"}], "input[0]"),
    ([{"type": "web_search_call", "id": "x"}, {"id": "y"}], "input[0]"),
    ([USER, {"id": "fc_1"}, {"type": "function_call_output", "call_id": "c", "output": "x"}], "input[2]"),
    (
        [
            {"type": "computer_call", "call_id": "c", "action": {"type": "wait"}},
            {"type": "computer_call_output", "call_id": "c", "output": {"file_id": "f"}},
        ],
        "input[1].output.file_id",
    ),
]


@pytest.mark.parametrize(("items", "path"), REJECTED)
def test_an_item_without_which_the_answer_would_be_another_is_rejected(items: list[Any], path: str) -> None:
    with pytest.raises(errors.UnsupportedParameter) as caught:
        read(*items)
    assert caught.value.param == path
    assert caught.value.message.startswith(f"{path} is not supported on this route for this model: ")


def test_an_approval_that_is_history_is_left_out() -> None:
    approval = {"type": "mcp_approval_response", "approval_request_id": "a", "approve": True}
    assert read(USER, approval, ANSWER, USER).dropped == ("input[].mcp_approval_response",)


# ---- calls that the client has run, and their results

CALLS: list[tuple[dict[str, Any], ToolCall]] = [
    (
        {"type": "function_call", "call_id": "c", "name": "look", "arguments": '{"q":1}', "namespace": "files"},
        ToolCall("c", "files__look", '{"q":1}'),
    ),
    (
        {"type": "custom_tool_call", "call_id": "c", "name": "patch", "input": '*** "x"\n'},
        ToolCall("c", "patch", custom_tools.wrap('*** "x"\n')),
    ),
    (
        {"type": "custom_tool_call", "call_id": "c", "name": "patch", "input": "", "namespace": "files"},
        ToolCall("c", "files__patch", '{"input":""}'),
    ),
    (
        {"type": "local_shell_call", "call_id": "c", "action": {"type": "exec", "command": ["ls"], "env": {}}},
        ToolCall("c", "local_shell", '{"type":"exec","command":["ls"],"env":{}}'),
    ),
    (
        {"type": "shell_call", "call_id": "c", "action": {"commands": ["ls"]}, "environment": {"type": "local"}},
        ToolCall("c", "shell", '{"commands":["ls"]}'),
    ),
    (
        {"type": "apply_patch_call", "call_id": "c", "operation": {"type": "delete_file", "path": "x"}},
        ToolCall("c", "apply_patch", '{"type":"delete_file","path":"x"}'),
    ),
    (
        {"type": "computer_call", "call_id": "c", "actions": [{"type": "wait"}], "pending_safety_checks": []},
        ToolCall("c", "computer", '{"actions":[{"type":"wait"}]}'),
    ),
]
SHELL_OUTPUT = [{"stdout": "a", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}}]
RESULTS: list[tuple[dict[str, Any], ToolResult]] = [
    ({"type": "function_call_output", "call_id": "c", "output": "x"}, ToolResult("c", (Text("x"),))),
    ({"type": "custom_tool_call_output", "call_id": "c", "output": "x"}, ToolResult("c", (Text("x"),))),
    (
        {
            "type": "custom_tool_call_output",
            "call_id": "c",
            "output": [{"type": "input_text", "text": "x"}, {"type": "input_image", "image_url": PIXEL}],
        },
        ToolResult("c", (Text("x"), Image(data="iVBORw0KGgo=", media_type="image/png"))),
    ),
    ({"type": "local_shell_call_output", "id": "c", "output": "x"}, ToolResult("c", (Text("x"),))),
    (
        {"type": "shell_call_output", "call_id": "c", "output": SHELL_OUTPUT, "max_output_length": 9},
        ToolResult("c", (Text(json.dumps(SHELL_OUTPUT, separators=(",", ":"))),)),
    ),
    (
        {"type": "apply_patch_call_output", "call_id": "c", "status": "failed", "output": "no such file"},
        ToolResult("c", (Text("no such file"),), is_error=True),
    ),
    ({"type": "apply_patch_call_output", "call_id": "c", "status": "completed"}, ToolResult("c", (Text("completed"),))),
    (
        {"type": "computer_call_output", "call_id": "c", "output": {"type": "computer_screenshot", "image_url": PIXEL}},
        ToolResult("c", (Image(data="iVBORw0KGgo=", media_type="image/png"),)),
    ),
]


def test_every_call_and_every_result_is_tested() -> None:
    tested = {given["type"] for given, _ in (*CALLS, *RESULTS)}
    assert tested == set(ITEM_CROSSING) - {"message", "reasoning"}


@pytest.mark.parametrize(("given", "call"), CALLS)
def test_a_call_that_the_client_has_run_stays_a_call(given: dict[str, Any], call: ToolCall) -> None:
    conversation = read(USER, given, RESULTS[0][0])
    assert conversation.messages[1].parts == (call,)


@pytest.mark.parametrize(("given", "result"), RESULTS)
def test_a_result_stays_the_result_of_its_call(given: dict[str, Any], result: ToolResult) -> None:
    conversation = read(USER, tool_call() | {"call_id": "c"}, given)
    assert conversation.messages[2].parts == (result,)


def test_a_result_goes_right_after_its_call_wherever_the_client_sends_it() -> None:
    first, second = tool_call(), tool_call(number=2)

    def output(number: int) -> dict[str, Any]:
        return {"type": "function_call_output", "call_id": f"call_{number}", "output": str(number)}

    developer = {"role": "developer", "content": "Be brief."}
    for later, after in (
        ([developer, output(2), output(1), USER], ["user", "system", "user"]),
        ([output(2), USER, output(1)], ["user"]),
        ([USER, output(2), output(1)], ["user"]),
    ):
        conversation = read(USER, first, second, *later)
        assert roles(conversation) == ["user", "assistant", *after]
        assert conversation.messages[-1].parts[-1] == Text("Go")
        results = conversation.messages[2].parts[:2]
        assert {part.id for part in results if isinstance(part, ToolResult)} == {"call_1", "call_2"}
    in_between = read(USER, first, second, output(1), ANSWER, output(2), USER)
    assert roles(in_between) == ["user", "assistant", "user", "assistant", "user"]
    assert len(in_between.messages[2].parts) == 2


def test_turns_with_calls_one_after_the_other_stay_separate() -> None:
    items: list[Any] = [USER]
    for number in (1, 2):
        items += [reasoning(encrypted=None), tool_call(number=number)]
        items += [{"type": "function_call_output", "call_id": f"call_{number}", "output": "x"}]
    assert roles(read(*items, USER)) == ["user", "assistant", "user", "assistant", "user"]


HOUSEKEEPING: list[dict[str, Any]] = [
    {"created_by": "x"},
    {"caller": {"type": "program", "caller_id": "p"}},
    {"async": True},
    {"provider_data": {"a": 1}},
    {"parsed_arguments": {"q": 1}},
]


@pytest.mark.parametrize("more", HOUSEKEEPING)
def test_housekeeping_of_an_item_is_dropped_and_named(more: dict[str, Any]) -> None:
    output = {"type": "function_call_output", "call_id": "call_1", "output": "x"}
    name = next(iter(more))
    for items in ([{**tool_call(), **more}, output], [tool_call(), {**output, **more}]):
        conversation = read(USER, *items)
        assert conversation.messages == read(USER, tool_call(), output).messages
        assert conversation.dropped == (f"input[].{name}",)


@pytest.mark.parametrize("more", [{"internal_note": "x"}, {"phase": "commentary"}, {"metadata": {"a": 1}}])
def test_housekeeping_of_a_message_and_of_its_parts_is_dropped_and_named(more: dict[str, Any]) -> None:
    name = next(iter(more))
    assert read({**USER, **more}).dropped == (f"input[].{name}",)
    given = message()
    part = {**given["content"][0], **more}
    assert read(USER, {**given, "content": [part]}, USER).dropped == (f"input[].content[].{name}",)


WRONG: list[tuple[list[Any], str]] = [
    ([{"type": "custom_tool_call", "call_id": "c", "name": "n"}], "input[0].input"),
    ([{"type": "custom_tool_call", "call_id": "c", "input": "x"}], "input[0].name"),
    ([{"type": "function_call", "call_id": "c", "name": "n", "namespace": 5}], "input[0].namespace"),
    ([{"type": "shell_call", "action": {}}], "input[0].call_id"),
    ([{"type": "shell_call_output", "call_id": "c", "output": "x"}], "input[0].output"),
    ([{"type": "computer_call_output", "call_id": "c", "output": "x"}], "input[0].output"),
    ([{"type": "computer_call_output", "call_id": "c", "output": {}}], "input[0].output.image_url"),
    ([{"type": "apply_patch_call_output", "call_id": "c", "output": 5}], "input[0].output"),
    ([{"type": "custom_tool_call_output", "call_id": "c", "output": None}], "input[0].output"),
    ([USER, {"type": "custom_tool_call_output", "call_id": "c", "output": "x"}], "input[1].call_id"),
    ([USER, {"type": "shell_call", "call_id": "c", "action": {}}, USER], "input[1]"),
]


@pytest.mark.parametrize(("items", "path"), WRONG)
def test_a_malformed_item_is_named_by_its_path(items: list[Any], path: str) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        read(*items)
    assert caught.value.param == path
