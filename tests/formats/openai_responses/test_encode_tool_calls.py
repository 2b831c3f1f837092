"""OpenAI Responses, the client's side: the calls of an answer come back in the form of the client's own tools."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from llm_service.core.content import Part, ToolCall
from llm_service.core.events import Answer, Event, Finished, Started, ToolCallDelta, ToolCallEnd, ToolCallStart
from llm_service.core.usage import Usage
from llm_service.formats import custom_tools
from llm_service.formats import openai_responses as responses
from tests.formats.examples import openai_client, written
from tests.formats.openai_responses.wire import responses_call

TOOLS: list[Any] = [
    {"type": "function", "name": "look", "parameters": {"type": "object"}, "strict": False},
    {"type": "custom", "name": "patch"},
    {
        "type": "namespace",
        "name": "files",
        "description": "Files.",
        "tools": [{"type": "function", "name": "look", "parameters": {}}, {"type": "custom", "name": "write"}],
    },
]
CALL = responses_call(stream=True, tools=TOOLS)
TEXT = '*** Begin\n"quoted" \\ Zürich 🦓\u2028\tend'
CALLS = {
    "function": ToolCall("c", "look", '{"q": 1}'),
    "custom": ToolCall("c", "patch", custom_tools.wrap(TEXT)),
    "namespaced function": ToolCall("c", "files__look", '{"q": 1}'),
    "namespaced custom": ToolCall("c", "files__write", custom_tools.wrap(TEXT)),
    "empty custom": ToolCall("c", "patch", ""),
    "custom without its property": ToolCall("c", "patch", '{"patch": "x"}'),
    "nobody's": ToolCall("c", "files__gone", "{}"),
}
ITEMS: dict[str, dict[str, Any]] = {
    "function": {"type": "function_call", "name": "look", "arguments": '{"q": 1}'},
    "custom": {"type": "custom_tool_call", "name": "patch", "input": TEXT},
    "namespaced function": {
        "type": "function_call",
        "name": "look",
        "arguments": '{"q": 1}',
        "namespace": "files",
    },
    "namespaced custom": {"type": "custom_tool_call", "name": "write", "input": TEXT, "namespace": "files"},
    "empty custom": {"type": "custom_tool_call", "name": "patch", "input": ""},
    "custom without its property": {"type": "custom_tool_call", "name": "patch", "input": '{"patch": "x"}'},
    "nobody's": {"type": "function_call", "name": "files__gone", "arguments": "{}"},
}


def answer(*parts: Part, stop: Any = "tool_use") -> Answer:
    return Answer(usage=Usage(9, 4), stop_reason=stop, parts=parts, model="claude")


def events(calls: Sequence[ToolCall], size: int = 5) -> list[Event]:
    made: list[Event] = []
    for index, call in enumerate(calls):
        text = call.arguments
        pieces = [text[start : start + size] for start in range(0, len(text), size)]
        made += [ToolCallStart(index, call.id, call.name), *(ToolCallDelta(index, piece) for piece in pieces)]
        made.append(ToolCallEnd(index))
    return made


def stream_of(*made: Event, stop: Any = "tool_use") -> bytes:
    return written(responses.StreamEncoder(CALL), [Started(model="claude"), *made, Finished(answer(stop=stop))])


def data_of(stream: bytes) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in stream.decode().split("\n") if line.startswith("data: ")]


@pytest.mark.parametrize("name", CALLS)
def test_a_call_is_an_item_of_the_client_s_tool(name: str) -> None:
    [item] = responses.write_answer(CALL, answer(CALLS[name]))["output"]
    prefix = "ctc" if item["type"] == "custom_tool_call" else "fc"
    assert item == {**ITEMS[name], "call_id": "c", "status": "completed", "id": f"{prefix}_{CALL.id}_0"}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_streamed_call_is_the_item_of_the_plain_answer(name: str, size: int) -> None:
    sent = data_of(stream_of(*events([CALLS[name]], size)))
    plain = responses.write_answer(CALL, answer(CALLS[name]))["output"]
    assert sent[-1]["type"] == "response.completed"
    assert sent[-1]["response"]["output"] == plain
    added, done = (
        next(event for event in sent if event["type"] == f"response.output_item.{kind}") for kind in ("added", "done")
    )
    assert done["item"] == plain[0]
    assert {name: added["item"].get(name) for name in ("id", "type", "call_id", "name", "namespace")} == {
        name: plain[0].get(name) for name in ("id", "type", "call_id", "name", "namespace")
    }
    kind, member = (
        ("custom_tool_call_input", "input") if "input" in plain[0] else ("function_call_arguments", "arguments")
    )
    deltas = "".join(event["delta"] for event in sent if event["type"] == f"response.{kind}.delta")
    [whole] = [event for event in sent if event["type"] == f"response.{kind}.done"]
    assert deltas == whole[member] == plain[0][member]
    assert [event["sequence_number"] for event in sent] == list(range(len(sent)))


def test_openai_s_sdk_reads_the_calls_of_a_stream() -> None:
    calls = [replace(call, id=f"c{index}") for index, call in enumerate(CALLS.values())]
    with openai_client(stream_of(*events(calls))).responses.stream(model="m", input="x", tools=TOOLS) as helper:
        output: Any = helper.get_final_response().to_dict()["output"]
    for item, expected in zip(output, ITEMS.values(), strict=True):
        assert expected.items() <= item.items()


@pytest.mark.parametrize("arguments", ["", '{"input": "*** Be', '{"q'])
@pytest.mark.parametrize("name", ["look", "patch"])
def test_a_call_that_was_cut_never_looks_whole(name: str, arguments: str) -> None:
    pieces = [ToolCallDelta(0, arguments)] if arguments else []
    sent = data_of(stream_of(ToolCallStart(0, "c", name), *pieces, stop="max_tokens"))
    assert sent[-1]["type"] == "response.incomplete"
    [item] = sent[-1]["response"]["output"]
    assert item["status"] == "incomplete"
    if arguments:
        [item] = responses.write_answer(CALL, answer(ToolCall("c", name, arguments), stop="max_tokens"))["output"]
        assert item["status"] == "incomplete"


@pytest.mark.parametrize("name", CALLS)
def test_a_call_is_accepted_back_under_the_name_that_the_model_knows(name: str) -> None:
    [item] = responses.write_answer(CALL, answer(CALLS[name]))["output"]
    output = {"type": item["type"] + "_output", "call_id": "c", "output": "x"}
    asked = responses.read_request({**CALL.body, "input": [{"role": "user", "content": "Go"}, item, output]})
    [again] = asked.messages[1].parts
    assert isinstance(again, ToolCall)
    assert again.name == CALLS[name].name
    assert asked.dropped == ("tools[].description",)
