"""OpenAI Responses: the log probabilities of an answer's tokens, read from an upstream and written for a client."""

from __future__ import annotations

from typing import Any

import pytest

from llm_service.core.content import Text, Thinking, TokenLogprob, ToolCall
from llm_service.core.events import Answer, ChoiceDelta, Delta, Finished, Started
from llm_service.core.usage import Usage
from llm_service.formats import openai_responses as responses
from tests.formats.examples import data_of, openai_client, read, written
from tests.formats.openai_responses.wire import (
    CREATED,
    added,
    completed,
    delta,
    done,
    message,
    response,
    responses_call,
)

CALL = responses_call(stream=True)
USAGE = Usage(9, 4)

# ---- read from an upstream

SENT_TOKENS: list[dict[str, Any]] = [
    {"token": "Hi", "logprob": -0.5, "bytes": [72, 105], "top_logprobs": [{"token": "Ho", "logprob": -2, "bytes": []}]},
    {"token": " there", "logprob": -1, "top_logprobs": []},
]
TOKENS = (
    TokenLogprob("Hi", -0.5, (72, 105), (TokenLogprob("Ho", -2, ()),)),
    TokenLogprob(" there", -1),
)
ASKING = responses_call(stream=True, include=["message.output_text.logprobs"])


def message_with_tokens(tokens: list[Any] = SENT_TOKENS) -> dict[str, Any]:
    item = message()
    item["content"][0]["logprobs"] = tokens
    return item


def test_log_probabilities_come_with_their_pieces() -> None:
    stream = [
        CREATED,
        added(0, message("")),
        delta(0, "Hi", logprobs=SENT_TOKENS[:1]),
        delta(0, "", logprobs=[]),
        delta(0, " there", logprobs=SENT_TOKENS[1:]),
        done(0, message_with_tokens()),
        completed(message_with_tokens()),
    ]
    assert read(responses.StreamDecoder(ASKING), *stream)[1:-1] == [
        ChoiceDelta("Hi", TOKENS[:1]),
        ChoiceDelta(" there", TOKENS[1:]),
    ]
    assert read(responses.StreamDecoder(CALL), *stream)[1:-1] == [Delta("Hi"), Delta(" there")]


def test_log_probabilities_of_an_item_that_comes_only_as_a_whole_are_not_lost() -> None:
    stream = [CREATED, added(0, message("")), done(0, message_with_tokens()), completed(message_with_tokens())]
    assert read(responses.StreamDecoder(ASKING), *stream)[1:-1] == [ChoiceDelta("Hi there", TOKENS)]


def test_a_plain_answer_has_log_probabilities_only_if_the_client_asked() -> None:
    sent = response(message_with_tokens())
    assert responses.read_answer(sent, ASKING).logprobs == TOKENS
    assert responses.read_answer(sent, CALL).logprobs == ()


@pytest.mark.parametrize(
    "tokens", [None, "x", [1], [{}], [{"token": 1, "logprob": 1}], [{"token": "a", "logprob": "b"}]]
)
def test_malformed_log_probabilities_are_left_out(tokens: Any) -> None:
    assert responses.read_answer(response(message_with_tokens(tokens)), ASKING).logprobs == ()


# ---- written for a client

WRITTEN_TOKENS = (
    TokenLogprob("Hel", -0.5, (72, 101, 108), (TokenLogprob("Hel", -0.5, (72, 101, 108)), TokenLogprob("Hi", -2))),
    TokenLogprob("l", -0.25, (108,)),
    TokenLogprob("o", -1.5),
)


def test_log_probabilities_are_in_the_pieces_and_in_the_whole_text() -> None:
    pieces = [
        ChoiceDelta("Hel", WRITTEN_TOKENS[:1]),
        ChoiceDelta("", WRITTEN_TOKENS[1:2]),
        ChoiceDelta("lo", WRITTEN_TOKENS[2:]),
    ]
    finished = Finished(Answer(usage=USAGE, stop_reason="end_turn", model="claude"))
    stream = written(responses.StreamEncoder(CALL), [Started(model="claude"), *pieces, finished])
    answer = Answer(
        usage=USAGE, stop_reason="end_turn", parts=(Text("Hello"),), model="claude", logprobs=WRITTEN_TOKENS
    )
    plain = responses.write_answer(CALL, answer)
    events = data_of(stream)
    whole = plain["output"][0]["content"][0]["logprobs"]
    assert events[-1]["response"] == plain
    deltas = [event for event in events if event["type"] == "response.output_text.delta"]
    assert [event["delta"] for event in deltas] == ["Hel", "", "lo"]
    assert [token for event in deltas for token in event["logprobs"]] == whole
    assert next(event for event in events if event["type"] == "response.output_text.done")["logprobs"] == whole
    assert whole[0] == {
        "token": "Hel",
        "bytes": [72, 101, 108],
        "logprob": -0.5,
        "top_logprobs": [
            {"token": "Hel", "bytes": [72, 101, 108], "logprob": -0.5},
            {"token": "Hi", "bytes": [], "logprob": -2},
        ],
    }
    with openai_client(stream).responses.stream(model="m", input="x") as helper:
        final: Any = helper.get_final_response().output[0].content[0]  # type: ignore[union-attr, index]
    assert [(token.token, token.logprob) for token in final.logprobs] == [("Hel", -0.5), ("l", -0.25), ("o", -1.5)]


def test_the_first_part_of_text_has_the_log_probabilities() -> None:
    parts = (Thinking("Hm"), Text(""), Text("Hello"), ToolCall("t", "look", "{}"), Text("!"))
    output = responses.write_answer(CALL, Answer(usage=USAGE, parts=parts, logprobs=WRITTEN_TOKENS))["output"]
    assert [len(item["content"][0]["logprobs"]) for item in output if item["type"] == "message"] == [3, 0]
