"""Embeddings requests are checked by OpenAI's rules, and an answer to several callers is divided."""

from __future__ import annotations

import json
import struct
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_service.core import errors
from llm_service.core.events import Answer
from llm_service.core.usage import Usage
from llm_service.formats.small import embeddings
from tests.formats.examples import call

GOOD: list[Any] = ["a", ["a", "b"], [1, 2, 3], [[1], [2, 3]], ["a"] * 2048, " ", [0]]
BAD: list[Any] = ["", [], [""], ["a", ""], ["a", 1], [[1], "a"], [[]], [1.5], [True], [-1], ["a"] * 2049, {}, 7, None]


@pytest.mark.parametrize("given", GOOD, ids=lambda value: repr(value)[:20])
def test_every_shape_of_input_is_accepted_as_it_is(given: Any) -> None:
    body = {"model": "m", "input": given, "field_of_tomorrow": 1}
    assert embeddings.check(body) is body


@pytest.mark.parametrize("given", BAD, ids=lambda value: repr(value)[:20])
def test_a_wrong_input_is_rejected_by_name(given: Any) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        embeddings.check({"model": "m", "input": given})
    assert caught.value.param == "input"


@pytest.mark.parametrize(
    ("field", "value"),
    [("model", None), ("model", ""), ("dimensions", 0), ("dimensions", True), ("encoding_format", "hex"), ("user", 1)],
)
def test_a_wrong_field_is_rejected_by_name(field: str, value: Any) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        embeddings.check({"model": "m", "input": "a", field: value})
    assert caught.value.param == field


def test_inputs_are_listed_one_by_one() -> None:
    assert embeddings.inputs({"input": "a"}) == ["a"]
    assert embeddings.inputs({"input": [1, 2]}) == [[1, 2]]
    assert embeddings.inputs({"input": ["a", "b"]}) == ["a", "b"]
    assert embeddings.inputs({"input": [[1], [2]]}) == [[1], [2]]


def test_an_embeddings_request_is_never_translated() -> None:
    with pytest.raises(errors.UnsupportedParameter) as caught:
        embeddings.read_request({"model": "m", "input": "a"})
    assert caught.value.param == "model"


# ---- answers


def reply(count: int, tokens: int = 9, **more: Any) -> dict[str, Any]:
    data = [{"object": "embedding", "index": number, "embedding": [float(number)]} for number in range(count)]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": "text-embedding-3-small", "usage": usage} | more


def test_the_tokens_and_the_model_of_an_answer_are_read() -> None:
    answer = embeddings.read_verbatim(reply(2))
    assert (answer.usage, answer.model) == (Usage(input_tokens=9), "text-embedding-3-small")


@pytest.mark.parametrize(
    "broken", [{"data": []}, {"data": None}, {"data": [{}]}, {"data": ["x"]}, {"error": {"code": 1}}]
)
def test_a_malformed_answer_is_an_error(broken: dict[str, Any]) -> None:
    with pytest.raises(errors.UpstreamError):
        embeddings.read_verbatim(reply(2, **broken))


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": -1}, {"prompt_tokens": "9"}])
def test_a_count_that_is_not_a_number_is_estimated(usage: Any) -> None:
    assert not embeddings.read_verbatim(reply(2, usage=usage)).usage.exact


def answer_to(parts: list[list[Any]], tokens: int) -> Answer:
    return embeddings.read_verbatim(reply(sum(map(len, parts)), tokens))


def test_each_part_gets_its_own_vectors_numbered_from_zero() -> None:
    parts = [["a"], ["bb", "cc"], ["d"]]
    whole = answer_to(parts, 12)
    assert whole.body is not None
    shuffled = Answer(whole.usage, body={**whole.body, "data": whole.body["data"][::-1]})
    reported = [answer.body or {} for answer in embeddings.split(shuffled, parts)]
    assert [[item["embedding"] for item in body["data"]] for body in reported] == [[[0.0]], [[1.0], [2.0]], [[3.0]]]
    assert [[item["index"] for item in body["data"]] for body in reported] == [[0], [0, 1], [0]]
    assert [body["usage"]["prompt_tokens"] for body in reported] == [2, 8, 2]
    assert json.dumps(reported[0]["usage"]) == '{"prompt_tokens": 2, "total_tokens": 2, "exact": false}'


@pytest.mark.parametrize("indexes", [[0, 0], [1, 2], [0, None], [0, True], [0, "1"]])
def test_vectors_without_numbers_are_an_error(indexes: list[Any]) -> None:
    body = reply(2)
    for item, index in zip(body["data"], indexes, strict=True):
        item["index"] = index
    with pytest.raises(errors.UpstreamBroken):
        embeddings.split(Answer(Usage(9), body=body), [["a"], ["b"]])


VECTORS = [[0.5, -1.25, 3.0], [2.0, 0.0, 1.0]]
ENCODED = ["AAAAPwAAoL8AAEBA", "AAAAQAAAAAAAAIA/"]


@pytest.mark.parametrize("sent", [VECTORS, ENCODED])
@pytest.mark.parametrize(
    ("asked", "expected"),
    [({}, VECTORS), ({"encoding_format": "float"}, VECTORS), ({"encoding_format": "base64"}, ENCODED)],
)
def test_vectors_are_encoded_as_the_client_asked_whatever_the_server_sends(
    sent: list[Any], asked: dict[str, Any], expected: list[Any]
) -> None:
    body = reply(2, novel=1)
    for item, vector in zip(body["data"], sent, strict=True):
        item["embedding"] = vector
    answer = embeddings.read_verbatim(body, call("embeddings", {"model": "m", "input": ["a", "b"], **asked}))
    assert answer.body is not None and answer.body["novel"] == 1
    assert [item["embedding"] for item in answer.body["data"]] == expected
    assert [item["index"] for item in answer.body["data"]] == [0, 1]


@pytest.mark.parametrize("vector", ["!", "AAA=", {"a": 1}, 3, ["x"], [None], [[1.0]]])
@pytest.mark.parametrize("asked", ["float", "base64"])
def test_what_is_no_vector_is_never_encoded(vector: Any, asked: str) -> None:
    body = reply(1)
    body["data"][0]["embedding"] = vector
    given = call("embeddings", {"model": "m", "input": "a", "encoding_format": asked})
    if type(vector) is (str if asked == "base64" else list):  # already encoded as asked: it is passed on as it is
        assert embeddings.read_verbatim(body, given).body is not None
    else:
        with pytest.raises(errors.UpstreamBroken):
            embeddings.read_verbatim(body, given)


@settings(deadline=None)
@given(st.integers(0, 10**7), st.lists(st.integers(1, 10**6), min_size=1, max_size=50))
def test_shares_add_up_and_are_in_proportion(total: int, weights: list[int]) -> None:
    shares = embeddings.apportion(total, weights)
    assert sum(shares) == total
    for share, weight in zip(shares, weights, strict=True):
        assert abs(share - total * weight / sum(weights)) < 1


INPUT = st.text(min_size=1, max_size=20) | st.lists(st.integers(0, 100_000), min_size=1, max_size=5)


@settings(deadline=None)
@given(st.integers(0, 10**6), st.lists(st.lists(INPUT, min_size=1, max_size=4), min_size=1, max_size=8))
def test_no_token_and_no_vector_is_lost_between_callers(total: int, parts: list[list[Any]]) -> None:
    answers = embeddings.split(answer_to(parts, total), parts)
    bodies = [answer.body or {} for answer in answers]
    assert sum(answer.usage.input_tokens for answer in answers) == total
    assert [body["usage"]["prompt_tokens"] for body in bodies] == [answer.usage.input_tokens for answer in answers]
    assert [len(body["data"]) for body in bodies] == list(map(len, parts))
    reported = [item["embedding"] for body in bodies for item in body["data"]]
    assert reported == [[float(number)] for number in range(sum(map(len, parts)))]


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf"), 1e300, -1e300])
def test_a_number_that_32_bits_cannot_hold_is_never_encoded(number: float) -> None:
    asked = call("embeddings", {"model": "m", "input": "a", "encoding_format": "base64"})
    with pytest.raises(errors.UpstreamBroken):
        embeddings.read_verbatim({"data": [{"index": 0, "embedding": [0.5, number]}]}, asked)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_an_encoded_vector_without_a_number_is_never_decoded(number: float) -> None:
    asked = call("embeddings", {"model": "m", "input": "a"})
    with pytest.raises(errors.UpstreamBroken):
        embeddings.read_verbatim(
            {"data": [{"index": 0, "embedding": b64encode(struct.pack("<2f", 0.5, number)).decode()}]}, asked
        )
