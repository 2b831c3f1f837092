"""OpenAI's older completions, served by a chat model: several choices and log probabilities in their own shape."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from llm_service.core import errors
from llm_service.core.content import Refusal, Text, TokenLogprob
from llm_service.core.events import Answer, Choice, ChoiceDelta, Delta, Event, Finished, RefusalDelta, Started
from llm_service.core.usage import Usage
from llm_service.formats import openai_chat as chat
from llm_service.formats.small import completions
from tests.formats.examples import call, data_of, fixture, read, written

TOKENS = (TokenLogprob("Hé", -0.5, top=(TokenLogprob("Hé", -0.5), TokenLogprob("Ho", -2))), TokenLogprob("llo", -1))


def asked(**extra: Any) -> Any:
    return call("completions", {"model": "m", "prompt": "x", **extra}, stream=bool(extra.get("stream")))


def test_an_answer_has_all_choices_and_their_tokens() -> None:
    choices = (
        Choice(0, "end_turn", (Text("Héllo"),), TOKENS),
        Choice(1, "max_tokens", (Text("x"),)),
        Choice(2, "refusal", (Refusal("No."),)),
    )
    reply = completions.write_answer(asked(n=3, logprobs=2), Answer(Usage(1, 2), model="gpt-x", choices=choices))
    assert reply["choices"] == [
        {
            "text": "Héllo",
            "index": 0,
            "logprobs": {
                "tokens": ["Hé", "llo"],
                "token_logprobs": [-0.5, -1],
                "top_logprobs": [{"Hé": -0.5, "Ho": -2}, {}],
                "text_offset": [1, 3],
            },
            "finish_reason": "stop",
        },
        {"text": "x", "index": 1, "logprobs": None, "finish_reason": "length"},
        {"text": "No.", "index": 2, "logprobs": None, "finish_reason": "stop"},
    ]


def test_a_stream_has_all_choices_each_with_its_own_offsets() -> None:
    events: list[Event] = [
        Started("gpt-x"),
        ChoiceDelta("Hé", TOKENS[:1], 0),
        ChoiceDelta("a", TOKENS[1:], 1),
        ChoiceDelta("llo", TOKENS[1:], 0),
        Delta("!"),
        RefusalDelta("No.", 2),
        Finished(Answer(Usage(1, 2), choices=(Choice(0, "end_turn"), Choice(1, "max_tokens"), Choice(2, "refusal")))),
    ]
    chunks = data_of(written(completions.StreamEncoder(asked(n=3, logprobs=2, stream=True)), events))
    assert chunks.pop() == "[DONE]"
    choices = [chunk["choices"][0] for chunk in chunks]
    assert [(choice["index"], choice["text"]) for choice in choices] == [
        (0, "Hé"), (1, "a"), (0, "llo"), (0, "!"), (2, "No."), (0, ""), (1, ""), (2, ""),
    ]  # fmt: skip
    assert [choice["logprobs"] and choice["logprobs"]["text_offset"] for choice in choices[:4]] == [[1], [1], [3], None]
    assert [choice["finish_reason"] for choice in choices[-3:]] == ["stop", "length", "stop"]


def test_without_alternatives_top_logprobs_is_null_as_at_openai() -> None:
    choices = (Choice(0, "end_turn", (Text("llo"),), TOKENS[1:]),)
    reply = completions.write_answer(asked(logprobs=0, prompt=["four"]), Answer(Usage(1, 2), choices=choices))
    assert reply["choices"][0]["logprobs"] == {
        "tokens": ["llo"], "token_logprobs": [-1], "top_logprobs": None, "text_offset": [4],
    }  # fmt: skip


@pytest.mark.parametrize("logprobs", [0, 2])
def test_logprobs_and_chat_s_own_top_logprobs_must_agree(logprobs: int) -> None:
    given = {"model": "m", "prompt": "x", "logprobs": logprobs, "top_logprobs": 3}
    with pytest.raises(errors.InvalidRequest, match=r"^logprobs contradicts top_logprobs: ") as caught:
        completions.read_request(completions.check(given))
    assert caught.value.param == "logprobs"
    completions.read_request(completions.check({**given, "logprobs": 3}))


def test_openai_s_recording_of_three_choices_is_read_when_three_were_asked_for() -> None:
    stream = fixture("openai/chat_stream/n3_choices_interleaved.sse")
    events = read(chat.StreamDecoder(asked(n=3)), stream)
    assert read(chat.StreamDecoder(asked(n=3)), *(bytes([byte]) for byte in stream)) == events
    texts = [
        "".join(event.text for event in events if isinstance(event, Delta) and event.choice == n) for n in range(3)
    ]
    assert all(set(orjson.loads(text)) == {"city", "temperature", "units"} for text in texts)
    last = events[-1]
    assert isinstance(last, Finished)
    assert last.answer.choices == tuple(Choice(index, "end_turn") for index in range(3))
    with pytest.raises(errors.UpstreamBroken, match="more choices than were asked for"):
        read(chat.StreamDecoder(asked(n=2)), stream)
    with pytest.raises(errors.UpstreamBroken, match="more than one choice"):
        read(chat.StreamDecoder(asked()), stream)


def test_openai_s_recording_of_a_plain_answer_with_three_choices_is_read() -> None:
    body = orjson.loads(fixture("openai/chat_json/L0319_3choice_stop.json"))
    answer = chat.read_answer(body, asked(n=3))
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert [choice.text for choice in answer.choices] == [choice["message"]["content"] for choice in body["choices"]]
    assert (answer.parts, answer.stop_reason) == (answer.choices[0].parts, answer.choices[0].stop_reason)
    assert chat.read_answer(body, asked()).choices == ()
    with pytest.raises(errors.UpstreamBroken, match="more choices than were asked for"):
        chat.read_answer(body, asked(n=2))


def test_openai_s_recording_with_logprobs_is_read_when_they_were_asked_for() -> None:
    stream = fixture("openai/chat_stream/logprobs.sse")
    events = read(chat.StreamDecoder(asked(logprobs=0)), stream)
    tokens = [token for event in events if isinstance(event, Delta) for token in event.logprobs]
    assert [(token.token, token.logprob, token.bytes) for token in tokens[:1]] == [
        ("Foo", -0.0025094282, (70, 111, 111))
    ]
    assert "".join(token.token for token in tokens) == "Foo!"
    assert ChoiceDelta not in {type(event) for event in read(chat.StreamDecoder(asked()), stream)}


@pytest.mark.parametrize(
    "given",
    [
        None,
        3,
        {"content": 3},
        {"content": [3]},
        {"content": [{"token": "x"}]},
        {"content": [{"token": 3, "logprob": -1}]},
        {"content": [{"token": "x", "logprob": "-1"}]},
        {"content": [{"token": "x", "logprob": -1}, {}]},
    ],
)
def test_malformed_logprobs_are_left_out(given: Any) -> None:
    choice = {"index": 0, "finish_reason": "stop", "message": {"content": "x"}, "logprobs": given}
    answer = chat.read_answer({"choices": [choice]}, asked(logprobs=2))
    assert (answer.text, answer.logprobs) == ("x", ())


@pytest.mark.parametrize("top", [None, 3, "ab", [3], [{}], {"token": "y"}])
def test_malformed_alternatives_are_left_out(top: Any) -> None:
    logprobs = {"content": [{"token": "x", "logprob": -1, "bytes": [256], "top_logprobs": top}]}
    choice = {"index": 0, "finish_reason": "stop", "message": {"content": "x"}, "logprobs": logprobs}
    answer = chat.read_answer({"choices": [choice]}, asked(logprobs=2))
    assert answer.logprobs == (TokenLogprob("x", -1),)
