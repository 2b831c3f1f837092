"""OpenAI Responses, the upstream's answers: relayed streams, streams that cross, malformed ones, and plain answers."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_service.core import errors
from llm_service.core.content import RedactedThinking, ToolCall
from llm_service.core.events import (
    IDLE,
    Delta,
    Event,
    Finished,
    RefusalDelta,
    Started,
    ThinkingDelta,
    ThinkingEnd,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
)
from llm_service.core.usage import Usage
from llm_service.formats import custom_tools
from llm_service.formats import openai_chat as chat
from llm_service.formats import openai_responses as responses
from tests.formats.examples import call, data_of, fixture, openai_client, read, relayed, written
from tests.formats.openai_responses.wire import (
    CREATED,
    USAGE,
    added,
    arguments,
    completed,
    delta,
    done,
    event,
    message,
    reasoning,
    response,
    responses_call,
    tool_call,
)

CALL = responses_call(stream=True, tools=[{"type": "function", "name": "look"}])
COUNTED = Usage(7, 5, 3, 2, reasoning_tokens=1)

TEXT = [
    CREATED,
    added(0, message("")),
    delta(0, "Hi"),
    b": still here\n\n",
    delta(0, " there"),
    done(0, message()),
]
RICH = [
    CREATED,
    event("response.in_progress", response=response(status="in_progress")),
    added(0, reasoning(encrypted="gAA")),
    event("response.reasoning_summary_part.added", output_index=0, summary_index=0),
    delta(0, "Well", "response.reasoning_summary_text.delta", summary_index=0),
    event("response.reasoning_summary_part.added", output_index=0, summary_index=1),
    delta(0, "now", "response.reasoning_summary_text.delta", summary_index=1),
    done(0, reasoning("Well", "now")),
    added(1, message("", phase="commentary")),
    delta(1, "Hi there"),
    event("response.output_text.done", output_index=1, text="Hi there"),
    done(1, message()),
    added(2, tool_call("")),
    arguments(2, '{"q"'),
    arguments(2, ":1}"),
    done(2, tool_call()),
]
WHOLE = [reasoning("Well", "now"), message(), tool_call()]


def scenarios() -> dict[str, list[dict[str, Any]]]:
    document = json.loads(fixture("openai/responses/websocket_scenarios.json"))
    return {
        f"{item['id']}#{number}": turn["frames"]
        for item in document["scenarios"]
        for number, turn in enumerate(item["turns"])
        if all(isinstance(frame, dict) for frame in turn["frames"])
    }


def frames_of(events: list[dict[str, Any]]) -> bytes:
    return b"".join(event(item["type"], **{k: v for k, v in item.items() if k != "type"}) for item in events)


# ---- relayed


@pytest.mark.parametrize("stream", [TEXT, RICH], ids=["text", "rich"])
def test_a_relayed_stream_keeps_its_bytes_and_has_its_cost_at_the_end(stream: list[bytes]) -> None:
    terminal = completed(*WHOLE)
    events = read(responses.Passthrough(CALL), b"".join([*stream, terminal]))
    assert isinstance(events[0], Started) and events[0].verbatim and events[0].model == "gpt-5"
    assert relayed(events) == b"".join(stream).replace(b": still here\n\n", b": keep-alive\n\n")
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert finished.tail == terminal
    assert finished.answer.usage == COUNTED
    assert finished.answer.stop_reason == "tool_use"
    frames = responses.StreamEncoder(CALL)
    sent = data_of(written(frames, events))
    assert sent[-1].pop("response")["usage"] == {**USAGE, "cost_usd": None}
    assert sent[-1] == {"type": "response.completed"}


def test_a_relayed_stream_that_is_split_at_every_byte_is_the_same() -> None:
    stream = b"".join([*RICH, completed(*WHOLE)])
    whole = read(responses.Passthrough(CALL), stream)
    split = read(responses.Passthrough(CALL), *(bytes([byte]) for byte in stream))
    assert relayed(split) == relayed(whole)
    assert split[-1] == whole[-1]
    assert sum(getattr(item, "characters", 0) for item in split) == len("WellnowHi there") + len('{"q":1}')


@pytest.mark.parametrize("name", [name for name in scenarios() if "close" not in name and "error" not in name])
def test_the_sequences_of_the_sdk_s_own_tests_are_relayed(name: str) -> None:
    events = scenarios()[name]
    stream = frames_of(events)
    last = events[-1]
    if last["type"] == "response.failed":
        with pytest.raises(errors.UpstreamFailed):
            read(responses.Passthrough(CALL), stream)
        return
    read_events = read(responses.Passthrough(CALL), stream)
    assert relayed(read_events) + read_events[-1].tail == stream  # type: ignore[union-attr]
    answer = read_events[-1].answer  # type: ignore[union-attr]
    assert not answer.usage.exact
    assert answer.stop_reason == ("end_turn" if last["type"] == "response.completed" else "max_tokens")


FAILURES: list[tuple[dict[str, Any], type[errors.UpstreamError]]] = [
    ({"type": "error", "code": "server_error", "message": "m", "param": None}, errors.UpstreamFailed),
    ({"type": "error", "code": "rate_limit_exceeded", "message": "m"}, errors.UpstreamRateLimited),
    ({"type": "error", "error": {"type": "invalid_request_error", "message": "m"}}, errors.UpstreamRejected),
    ({"error": {"code": "server_is_overloaded", "message": "m"}}, errors.UpstreamOverloaded),
    (
        {"type": "response.failed", "response": response(status="failed", error={"code": "invalid_prompt"})},
        errors.UpstreamContentRejected,
    ),
    ({"type": "response.failed", "response": None}, errors.UpstreamFailed),
]


@pytest.mark.parametrize("make", [responses.Passthrough, responses.StreamDecoder])
@pytest.mark.parametrize(("failing", "kind"), FAILURES)
def test_a_failure_in_the_stream_comes_after_the_events_before_it(
    make: Any, failing: dict[str, Any], kind: type[errors.UpstreamError]
) -> None:
    decoder, events = make(CALL), []
    with pytest.raises(kind) as failure:
        for item in decoder.feed_many([*TEXT[:3], b"data: " + orjson.dumps(failing) + b"\n\n"]):
            events.append(item)
    assert type(failure.value) is kind
    assert relayed(events) == b"".join(TEXT[:3]) if make is responses.Passthrough else Delta("Hi") in events
    assert not decoder.finished


MALFORMED = {
    "no response.created": [delta(0, "x")],
    "created twice": [CREATED, CREATED],
    "not json": [CREATED, b"data: {\n\n"],
    "not an object": [CREATED, b"data: []\n\n"],
    "no type": [CREATED, b"data: {}\n\n"],
    "no response in it": [event("response.created")],
    "no output": [CREATED, event("response.completed", response={"status": "completed"})],
    "done without an end": [CREATED, b"data: [DONE]\n\n"],
}
MALFORMED_CROSSING = {
    "a piece outside an item": [CREATED, delta(0, "x")],
    "a piece after its item": [CREATED, added(0, message("")), done(0, message()), delta(0, "x")],
    "an index twice": [CREATED, added(0, message("")), added(0, message(""))],
    "an index that is not a number": [CREATED, added(True, message(""))],
    "an item that was not asked for": [CREATED, added(0, {"type": "web_search_call", "id": "ws"})],
    "an item that changed": [CREATED, added(0, message("")), done(0, tool_call())],
    "a lost item": [CREATED, added(0, message("")), completed(message())],
    "a lost piece of arguments": [CREATED, added(0, tool_call("")), arguments(0, '{"q"'), done(0, tool_call())],
    "a call without a name": [CREATED, added(0, {"type": "function_call", "call_id": "c"})],
    "arguments that are not an object": [
        *[CREATED, added(0, tool_call("")), arguments(0, "[1]"), done(0, tool_call("[1]"))],
        completed(tool_call("[1]")),
    ],
    "a delta that is not text": [CREATED, added(0, message("")), event("response.output_text.delta", output_index=0)],
}


@pytest.mark.parametrize("name", MALFORMED)
@pytest.mark.parametrize("make", [responses.Passthrough, responses.StreamDecoder])
def test_a_stream_that_is_not_in_the_format_is_malformed(make: Any, name: str) -> None:
    with pytest.raises(errors.UpstreamBroken):
        read(make(CALL), *MALFORMED[name])


@pytest.mark.parametrize("name", MALFORMED_CROSSING)
def test_a_stream_that_contradicts_itself_is_malformed_when_it_crosses(name: str) -> None:
    with pytest.raises(errors.UpstreamBroken):
        read(responses.StreamDecoder(CALL), *MALFORMED_CROSSING[name])


def test_a_stream_that_is_cut_is_not_finished() -> None:
    for make in (responses.Passthrough, responses.StreamDecoder):
        decoder = make(CALL)
        assert not any(isinstance(item, Finished) for item in read(decoder, *RICH))
        assert not decoder.finished


# ---- read for crossing


def test_reasoning_text_and_tool_calls_cross() -> None:
    events = read(responses.StreamDecoder(CALL), *RICH, completed(*WHOLE))
    assert events[:-1] == [
        Started(model="gpt-5"),
        ThinkingDelta("Well"),
        ThinkingDelta("\n\n"),
        ThinkingDelta("now"),
        ThinkingEnd("rs_1:gAAAA", "responses"),
        Delta("Hi there"),
        ToolCallStart(0, "call_1", "look"),
        ToolCallDelta(0, '{"q"'),
        ToolCallDelta(0, ":1}"),
        ToolCallEnd(0),
    ]
    answer = events[-1].answer  # type: ignore[union-attr]
    assert (answer.stop_reason, answer.usage, answer.model) == ("tool_use", COUNTED, "gpt-5")


@pytest.mark.parametrize("stream", [TEXT, RICH], ids=["text", "rich"])
def test_a_stream_split_at_every_byte_crosses_the_same(stream: list[bytes]) -> None:
    data = b"".join([*stream, completed(*WHOLE)])
    whole = read(responses.StreamDecoder(CALL), data)
    assert read(responses.StreamDecoder(CALL), *(bytes([byte]) for byte in data)) == whole


def test_a_comment_is_an_idle_event() -> None:
    assert IDLE in read(responses.StreamDecoder(CALL), *TEXT)


def test_refusals_and_encrypted_reasoning_cross() -> None:
    refused = message()
    refused["content"] = [{"type": "refusal", "refusal": "I will not"}]
    events = read(
        responses.StreamDecoder(CALL),
        CREATED,
        added(0, reasoning(encrypted=None)),
        done(0, reasoning()),
        added(1, message("")),
        delta(1, "I will not", "response.refusal.delta"),
        done(1, refused),
        completed(reasoning(), refused),
    )
    assert events[1:-1] == [RedactedThinking("rs_1:gAAAA", "responses"), RefusalDelta("I will not")]
    assert events[-1].answer.stop_reason == "refusal"  # type: ignore[union-attr]


def test_an_item_that_comes_only_as_a_whole_is_not_lost() -> None:
    items = [reasoning("Hm"), message(), tool_call()]
    pieces = [piece for at, item in enumerate(items) for piece in (added(at, item), done(at, item))]
    events = read(responses.StreamDecoder(CALL), CREATED, *pieces, completed(*items))
    assert events[1:-1] == [
        ThinkingDelta("Hm"),
        ThinkingEnd("rs_1:gAAAA", "responses"),
        Delta("Hi there"),
        ToolCallStart(0, "call_1", "look"),
        ToolCallDelta(0, '{"q":1}'),
        ToolCallEnd(0),
    ]


def test_a_call_of_a_tool_that_was_not_offered_is_malformed() -> None:
    with pytest.raises(errors.UpstreamBroken):
        read(responses.StreamDecoder(responses_call()), CREATED, added(0, tool_call("")))
    with pytest.raises(errors.UpstreamBroken):
        responses.read_answer(response(tool_call()), responses_call())
    with pytest.raises(errors.UpstreamBroken):
        responses.read_answer(response(tool_call("[]")), CALL)


@given(st.lists(st.integers(0, 2), max_size=12))
def test_interleaved_items_come_one_after_the_other(order: list[int]) -> None:
    items = [tool_call("{}", number) for number in range(3)]
    text = [" " * order.count(index) for index in range(3)]
    ends = [tool_call(text[at], at) for at in range(3)]
    stream = [CREATED, *(added(at, item) for at, item in enumerate(items))]
    stream += [arguments(at, " ") for at in order]
    stream += [done(at, ends[at]) for at in (2, 0, 1)]
    events = read(responses.StreamDecoder(CALL), *stream, completed(*ends))[1:-1]
    expected: list[Event] = []
    for at in range(3):
        expected += [
            ToolCallStart(at, f"call_{at}", "look"),
            *[ToolCallDelta(at, " ")] * len(text[at]),
            ToolCallEnd(at),
        ]
    assert events == expected


def test_a_cut_answer_has_its_stop_reason_and_leaves_no_call_open() -> None:
    stream = [CREATED, added(0, message("")), delta(0, "Hi"), done(0, message("Hi")), added(1, tool_call(""))]
    ending = completed(status="incomplete", incomplete_details={"reason": "max_output_tokens"})
    events = read(responses.StreamDecoder(CALL), *stream, arguments(1, '{"q'), ending)
    assert events[-3:-1] == [ToolCallDelta(0, '{"q'), ToolCallEnd(0)]
    assert events[-1].answer.stop_reason == "max_tokens"  # type: ignore[union-attr]


def test_the_sdk_reads_a_stream_that_was_read_and_written_again() -> None:
    events = read(responses.StreamDecoder(CALL), *RICH, completed(*WHOLE))
    with openai_client(written(responses.StreamEncoder(CALL), events)).responses.stream(model="m", input="x") as helper:
        final = helper.get_final_response()
    assert final.output_text == "Hi there"
    assert [item.type for item in final.output] == ["reasoning", "message", "function_call"]


# ---- plain answers


@pytest.mark.parametrize("name", ["recorded_L0038", "text_input_L16574", "functions_L17508", "reasoning_L17646"])
def test_a_recorded_answer_crosses(name: str) -> None:
    sent = json.loads(fixture(f"openai/responses_json/{name}.json"))
    answer = responses.read_answer(sent, CALL)
    with openai_client(json.dumps(sent).encode()) as client:
        typed = client.responses.create(model="m", input="x")
    assert answer.text == typed.output_text
    assert typed.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (
        typed.usage.input_tokens,
        typed.usage.output_tokens,
    )
    assert answer.stop_reason == ("tool_use" if "functions" in name else "end_turn")
    verbatim = responses.read_verbatim(sent, CALL)
    assert verbatim.body is sent and verbatim.usage == answer.usage


def test_searches_are_counted_and_openai_s_own_tools_do_not_cross() -> None:
    sent = json.loads(fixture("openai/responses_json/web_search_L16972.json"))
    assert responses.read_verbatim(sent, CALL).usage.web_searches == 1
    with pytest.raises(errors.UpstreamBroken):
        responses.read_answer(sent, CALL)


@pytest.mark.parametrize("sent", [{}, {"output": []}, {"output": [1], "status": "completed"}, {"output": "x"}])
def test_a_body_that_is_not_an_answer_is_malformed(sent: dict[str, Any]) -> None:
    with pytest.raises(errors.UpstreamBroken):
        responses.read_verbatim(sent, CALL)


def test_a_failed_answer_raises_its_error() -> None:
    with pytest.raises(errors.UpstreamRateLimited):
        responses.read_verbatim(response(status="failed", error={"code": "rate_limit_exceeded", "message": "m"}), CALL)
    with pytest.raises(errors.UpstreamFailed):
        responses.read_verbatim(response(status="cancelled"), CALL)


def test_a_pending_answer_is_passed_on_and_its_output_is_not_billed() -> None:
    answer = responses.read_verbatim(response(status="queued", usage=None), responses_call(background=True))
    assert not answer.usage.exact and answer.usage.output_tokens == 0
    with pytest.raises(errors.UpstreamBroken):
        responses.read_answer(response(status="queued"), CALL)


@pytest.mark.parametrize("status", ["queued", "in_progress", "status_of_tomorrow", ""])
def test_an_answer_that_is_not_finished_is_malformed(status: str) -> None:
    sent = response(message(), status=status)
    for reader in (responses.read_answer, responses.read_verbatim):
        with pytest.raises(errors.UpstreamBroken, match="not finished"):
            reader(sent, CALL)
    for decoder in (responses.StreamDecoder(CALL), responses.Passthrough(CALL)):
        with pytest.raises(errors.UpstreamBroken, match="not finished"):
            read(decoder, *TEXT, event("response.completed", response=response(message(), status=status)))


@pytest.mark.parametrize("details", [None, {}, "x", {"reason": None}, {"reason": "reason_of_tomorrow"}])
def test_an_incomplete_answer_was_cut_whatever_its_reason_is(details: Any) -> None:
    cut = {"status": "incomplete", "incomplete_details": details}
    for reader in (responses.read_answer, responses.read_verbatim):
        assert reader(response(message(), **cut), CALL).stop_reason == "max_tokens"
    for decoder in (responses.StreamDecoder(CALL), responses.Passthrough(CALL)):
        finished = read(decoder, *TEXT, event("response.incomplete", response=response(message(), **cut)))[-1]
        assert isinstance(finished, Finished) and finished.answer.stop_reason == "max_tokens"


def test_an_answer_that_says_in_one_place_that_it_was_cut_was_cut() -> None:
    half = {**tool_call('{"q'), "status": "incomplete"}
    assert responses.read_answer(response(half), CALL).stop_reason == "max_tokens"
    for ending in (
        completed(message(status="incomplete")),
        event("response.completed", response=response(message(), status="incomplete")),
        event("response.incomplete", response=response(message())),
    ):
        finished = read(responses.StreamDecoder(CALL), *TEXT, ending)[-1]
        assert isinstance(finished, Finished) and finished.answer.stop_reason == "max_tokens"


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=3), lambda inner: st.lists(inner)))
def test_no_usage_of_a_hostile_server_raises_anything(usage: Any) -> None:
    for given_usage in (usage, {"input_tokens": usage, "output_tokens": usage, "input_tokens_details": usage}):
        counted = responses.read_verbatim(response(message(), usage=given_usage), CALL).usage
        assert 0 <= counted.cached_tokens <= counted.input_tokens


def test_a_failed_answer_keeps_the_usage_that_it_reports() -> None:
    reader = responses.StreamDecoder(CALL)
    with pytest.raises(errors.UpstreamError):
        read(reader, event("response.created", response=response()), completed(status="failed"))
    assert reader.reported() == COUNTED
    assert responses.reported_usage(response(status="failed"), CALL) == COUNTED
    assert responses.reported_usage(response(status="failed", usage=None), CALL) is None


@pytest.mark.parametrize("usage", [None, {}, {"input_tokens": 0, "output_tokens": 0}])
def test_usage_that_is_missing_or_zero_is_lost(usage: Any) -> None:
    counted = responses.read_verbatim(response(message(), usage=usage), CALL).usage
    assert counted.lost and not counted.exact
    assert counted.input_tokens > 0 and counted.output_tokens > 0
    events = read(responses.StreamDecoder(CALL), *RICH, completed(usage=usage))
    assert isinstance(events[-1], Finished) and events[-1].answer.usage.lost


# ---- tool calls that chat completions get


def test_a_stream_with_tool_calls_ends_with_tool_use_if_its_last_event_leaves_out_the_output() -> None:
    events = read(responses.StreamDecoder(CALL), *RICH, completed())
    assert isinstance(events[-1], Finished) and events[-1].answer.stop_reason == "tool_use"


CUSTOM_CALL = call("chat", {"tools": [{"type": "custom", "custom": {"name": "run"}}]}, stream=True)


def custom_call(text: str) -> dict[str, Any]:
    return {"type": "custom_tool_call", "id": "ctc_1", "call_id": "call_1", "name": "run", "input": text}


def pieces_of(*texts: str) -> list[bytes]:
    deltas = [delta(0, text, "response.custom_tool_call_input.delta") for text in texts]
    return [CREATED, added(0, custom_call("")), *deltas]


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=5), max_size=4))
def test_the_input_of_a_custom_tool_crosses_in_pieces(texts: list[str]) -> None:
    item = custom_call("".join(texts))
    events = read(responses.StreamDecoder(CUSTOM_CALL), *pieces_of(*texts), done(0, item), completed(item))
    arguments = "".join(event.arguments for event in events if type(event) is ToolCallDelta)
    assert json.loads(arguments) == {"input": "".join(texts)}
    whole = ToolCall("call_1", "run", custom_tools.wrap("".join(texts)))
    assert responses.read_answer(response(item), CUSTOM_CALL).parts == (whole,)


@pytest.mark.parametrize(
    ("asked", "events"),
    [
        (CUSTOM_CALL, [*pieces_of("a"), done(0, custom_call("ab"))]),  # a piece is missing
        (CUSTOM_CALL, [*pieces_of("a"), completed()]),  # it does not end
        (CALL, pieces_of()),  # no custom tool was offered
        (CUSTOM_CALL, [CREATED, added(0, {**custom_call(""), "name": ""})]),
    ],
)
def test_a_malformed_call_of_a_custom_tool_is_a_broken_answer(asked: Any, events: list[bytes]) -> None:
    with pytest.raises(errors.UpstreamBroken):
        read(responses.StreamDecoder(asked), *events)


def test_the_input_of_a_custom_tool_may_be_cut_with_the_answer() -> None:
    cut = completed(status="incomplete", incomplete_details={"reason": "max_output_tokens"})
    events = read(responses.StreamDecoder(CUSTOM_CALL), *pieces_of('say "', "hi"), cut)
    sent = b"".join(map(chat.StreamEncoder(CUSTOM_CALL).feed, events)).decode()
    assert json.dumps('say "')[1:-1] in sent and '"finish_reason":"length"' in sent
