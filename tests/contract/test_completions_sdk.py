"""OpenAI's older completions with the official client: models that serve them, and all other models."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.contract.cases import AWKWARD, CLAUDE, ECHO, GPT, failing, frames
from tests.support.server import Server
from tests.upstream import Step, Upstream

INSTRUCT = "gpt-3.5-turbo-instruct"
MODELS = [INSTRUCT, GPT, CLAUDE]


@pytest.mark.parametrize("model", MODELS)
def test_a_plain_answer_has_its_text_and_usage(
    openai_client: openai.OpenAI, service: Server, upstream: Upstream, model: str
) -> None:
    upstream.script(Step(text="Good morning to you", input_tokens=100, output_tokens=4))
    raw = openai_client.completions.with_raw_response.create(model=model, prompt="Say it", max_tokens=50)
    reply = raw.parse()
    assert (reply.object, reply.id[:5]) == ("text_completion", "cmpl-")
    assert (reply.choices[0].text, reply.choices[0].finish_reason) == ("Good morning to you", "stop")
    assert reply.usage is not None
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens, reply.usage.total_tokens) == (100, 4, 104)
    assert upstream.last.path == {INSTRUCT: "/v1/completions", GPT: "/v1/chat/completions"}.get(model, "/v1/messages")
    row = service.row(raw.headers["x-request-id"])
    assert (row["dialect"], row["outcome"], row["output_tokens"]) == ("completions", "ok", 4)


@pytest.mark.parametrize("options", [None, {"include_usage": True}])
@pytest.mark.parametrize("model", MODELS)
def test_a_stream_has_usage_only_if_it_is_asked_for(
    openai_client: openai.OpenAI, service: Server, upstream: Upstream, model: str, options: Any
) -> None:
    upstream.script(Step(text="one two three", input_tokens=50, output_tokens=3))
    raw = openai_client.completions.with_raw_response.create(
        model=model, prompt=["Count"], max_tokens=50, stream=True, stream_options=options
    )
    chunks = list(raw.parse())
    assert "".join(choice.text for chunk in chunks for choice in chunk.choices) == "one two three"
    reasons = [choice.finish_reason for chunk in chunks for choice in chunk.choices]
    assert reasons[-1] == "stop" and set(reasons[:-1]) == {None}
    if options:
        usage = chunks[-1].usage
        assert chunks[-1].choices == [] and usage is not None and usage.model_extra is not None
        assert (usage.prompt_tokens, usage.completion_tokens) == (50, 3)
        assert "cost_usd" in usage.model_extra
    else:
        assert all(chunk.choices and "usage" not in chunk.model_fields_set for chunk in chunks)
    assert service.row(raw.headers["x-request-id"])["output_tokens"] == 3


def test_a_request_reaches_openai_unchanged(service: Server, upstream: Upstream) -> None:
    body = {
        "prompt": [[1, 2], [3]],
        "best_of": 3,
        "echo": True,
        "suffix": "end",
        "logprobs": 2,
        "n": 2,
        "max_tokens": 7,
        "seed": 1,
        "field_of_tomorrow": AWKWARD,
    }
    upstream.script(Step(lenient=True))
    service.openai().post("/completions", body={**body, "model": f"openai/{INSTRUCT}"}, cast_to=object)
    assert upstream.last.body == {**body, "model": INSTRUCT}


def test_a_recorded_stream_reaches_the_client_without_the_usage_that_was_not_asked_for(
    service: Server, upstream: Upstream
) -> None:
    upstream.script(Step(body=COMPLETION, content_type="text/event-stream"))
    body = {"model": INSTRUCT, "prompt": "1", "stream": True}
    got = [frame.raw for frame in frames(service, "/v1/completions", body)]
    recorded = COMPLETION.encode().replace(b',"usage":null', b"").split(b"\n\n")
    assert got == [block for block in recorded if block and b'"usage":{' not in block]


# A recorded stream of babbage-002.
COMPLETION = (
    'data: {"id":"cmpl-CKzH","object":"text_completion","created":1759118173,"choices":[{"text":" +","index":0,'
    '"logprobs":null,"finish_reason":null}],"model":"babbage:2023-07-21-v2","usage":null}\n\n'
    'data: {"id":"cmpl-CKzH","object":"text_completion","created":1759118173,"choices":[{"text":"  ","index":0,'
    '"logprobs":null,"finish_reason":"length"}],"model":"babbage:2023-07-21-v2","usage":null}\n\n'
    'data: {"id":"cmpl-CKzH","object":"text_completion","created":1759118173,"model":"babbage:2023-07-21-v2",'
    '"usage":{"prompt_tokens":31,"completion_tokens":25,"total_tokens":56},"choices":[]}\n\n'
    "data: [DONE]\n\n"
)


@pytest.mark.parametrize("model", [GPT, CLAUDE])
def test_a_prompt_is_translated_to_one_message(openai_client: openai.OpenAI, upstream: Upstream, model: str) -> None:
    raw = openai_client.completions.with_raw_response.create(
        model=model, prompt="Hi", temperature=0.5, stop=["STOP"], user="someone", seed=7
    )
    seen = upstream.last.body
    assert seen["messages"] == [{"role": "user", "content": "Hi"}]
    assert (seen["temperature"], seen.get("seed")) == (0.5, 7 if model == GPT else None)
    assert raw.headers.get("x-dropped-parameters") == (None if model == GPT else "seed")
    assert seen.get("max_tokens", seen.get("max_completion_tokens")) == 16  # OpenAI's default there
    assert seen.get("stop", seen.get("stop_sequences")) == ["STOP"]


KEPT: dict[str, Any] = {
    "n": 3,
    "seed": 7,
    "frequency_penalty": 0.5,
    "presence_penalty": -0.5,
    "logit_bias": {"50256": -100},
}


@pytest.mark.parametrize("stream", [False, True])
def test_a_chat_model_keeps_what_chat_has(openai_client: openai.OpenAI, upstream: Upstream, stream: bool) -> None:
    upstream.script(Step(text="one two three"))
    raw = openai_client.completions.with_raw_response.create(
        model=GPT, prompt="Count", max_tokens=50, logprobs=2, best_of=3, stream=stream, **KEPT
    )
    assert {**KEPT, "logprobs": True, "top_logprobs": 2}.items() <= upstream.last.body.items()
    assert "best_of" not in upstream.last.body
    assert "x-dropped-parameters" not in raw.headers
    replies: list[Any] = list(raw.parse()) if stream else [raw.parse()]
    for index in range(3):
        choices = [choice for reply in replies for choice in reply.choices if choice.index == index]
        assert "".join(choice.text for choice in choices) == "one two three"
        assert [choice.finish_reason for choice in choices if choice.finish_reason] == ["stop"]
        logprobs = [choice.logprobs for choice in choices if choice.logprobs]
        tokens = [token for given in logprobs for token in given.tokens]
        assert "".join(tokens) == "one two three"
        assert [value for given in logprobs for value in given.token_logprobs] == [-len(token) / 8 for token in tokens]
        rivals = [top for given in logprobs for top in given.top_logprobs]
        assert rivals == [{token: -len(token) / 8, "~1": -10.5} for token in tokens]
        starts = [start for given in logprobs for start in given.text_offset]
        assert starts == [len("Count" + "".join(tokens[:place])) for place in range(len(tokens))]


def test_a_stream_of_several_choices_ends_with_their_usage(
    openai_client: openai.OpenAI, service: Server, upstream: Upstream
) -> None:
    upstream.script(Step(text="one two three", input_tokens=50))
    raw = openai_client.completions.with_raw_response.create(
        model=GPT, prompt="Count", max_tokens=50, n=3, stream=True, stream_options={"include_usage": True}
    )
    last = list(raw.parse())[-1]
    assert last.choices == [] and last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (50, 9)
    assert service.row(raw.headers["x-request-id"])["output_tokens"] == 9


@pytest.mark.parametrize("extra", [{"best_of": 3}, {"echo": True}, {"suffix": "x"}, {"shiny": 1}], ids=str)
def test_fields_that_chat_does_not_have_are_rejected_by_name(
    openai_client: openai.OpenAI, upstream: Upstream, extra: dict[str, Any]
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        openai_client.post("/completions", body={"model": GPT, "prompt": "a", **extra}, cast_to=object)
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", next(iter(extra)))
    assert upstream.requests == []


@pytest.mark.parametrize(
    ("extra", "param"),
    [
        ({"echo": True}, "echo"),
        ({"suffix": "x"}, "suffix"),
        ({"logprobs": 1}, "logprobs"),
        ({"best_of": 2}, "best_of"),
        ({"n": 2}, "n"),
        ({"logit_bias": {"1": 1}}, "logit_bias"),
        ({"presence_penalty": 1}, "presence_penalty"),
        ({"frequency_penalty": 1}, "frequency_penalty"),
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"field_of_tomorrow": 1}, "field_of_tomorrow"),
    ],
    ids=str,
)
def test_a_field_that_cannot_be_translated_is_rejected_by_its_name(
    openai_client: openai.OpenAI, upstream: Upstream, extra: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        openai_client.post("/completions", body={"model": CLAUDE, "prompt": "a", **extra}, cast_to=object)
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", param)
    assert upstream.requests == []


@pytest.mark.parametrize(
    "extra", [{"prompt": 1}, {"prompt": ["a", 1]}, {"n": 0}, {"logprobs": 6}, {"model": None}], ids=str
)
def test_bad_input_is_rejected_by_its_field(openai_client: openai.OpenAI, extra: dict[str, Any]) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        openai_client.post("/completions", body={"model": ECHO, "prompt": "a", **extra}, cast_to=object)
    assert caught.value.param == next(iter(extra))


def test_echo_completes_too(openai_client: openai.OpenAI) -> None:
    raw = openai_client.completions.with_raw_response.create(model=ECHO, prompt="one two three", max_tokens=2, seed=7)
    choice = raw.parse().choices[0]
    assert (choice.text, choice.finish_reason) == ("one two", "length")
    assert raw.headers["x-dropped-parameters"] == "seed"
    with pytest.raises(openai.BadRequestError) as caught:
        openai_client.completions.create(model=ECHO, prompt="one two three", n=2)
    assert caught.value.param == "n"


@pytest.mark.parametrize("model", MODELS)
def test_failures_raise_the_openai_client_s_own_errors(
    openai_client: openai.OpenAI, upstream: Upstream, model: str
) -> None:
    upstream.script(failing(429))
    with pytest.raises(openai.RateLimitError):
        openai_client.completions.create(model=model, prompt="a")
    upstream.script(Step(text="one two three", fault="error", after=3, status=503))
    with pytest.raises(openai.APIError) as caught:
        list(openai_client.completions.create(model=model, prompt="a", stream=True))
    assert caught.value.message


def test_an_answer_that_was_cut_is_an_error(openai_client: openai.OpenAI, upstream: Upstream) -> None:
    upstream.script(Step(text="one two three", fault="end", after=2))
    with pytest.raises(openai.APIError):
        list(openai_client.completions.create(model=INSTRUCT, prompt="a", stream=True))
