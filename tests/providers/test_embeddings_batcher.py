"""Simultaneous callers share a request and nothing else: each has its own answer, failure and cancellation."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from llm_service.core.call import Call, Caller
from llm_service.core.cancellation import Cancel
from llm_service.core.errors import ClientClosed, UpstreamKeyRefused
from llm_service.core.events import Answer, Attempt, Finished
from llm_service.core.target import Provider, Target, Timeouts
from llm_service.providers import openai
from tests.upstream import OPENAI_KEY, Step, Upstream
from tests.upstream.embeddings import count, inputs_of, vector

MODEL = "text-embedding-3-small"
WINDOW = 1.0  # seconds: long enough for all callers to come into one batch, even on a busy machine


class Callers:
    """Each ``ask`` is a caller in a thread of its own, with a ``Cancel`` of its own."""

    def __init__(self, upstream: Upstream, pool: ThreadPoolExecutor) -> None:
        row = Provider("openai", "openai", key=OPENAI_KEY, base_url=upstream.openai_url)
        self._target = Target(row, MODEL, Timeouts(2, 10, 10, 20))
        self._provider = openai.connect(row, tick=15, echo_delay=0, batch_window=WINDOW)
        self._pool = pool

    def ask(self, text: Any, cancel: Cancel | None = None, **more: Any) -> Future[Answer]:
        return self._pool.submit(self._answer, {"model": MODEL, "input": text, **more}, cancel or Cancel())

    def _answer(self, body: Mapping[str, Any], cancel: Cancel) -> Answer:
        call = Call("id", "r", "/v1/embeddings", "embeddings", MODEL, False, body, Caller("key"), kind="embed")
        *attempts, finished = self._provider.events(call, self._target, cancel)
        assert {type(attempt) for attempt in attempts} == {Attempt} and isinstance(finished, Finished)
        return finished.answer


@pytest.fixture
def callers(upstream: Upstream, own_connections: None) -> Iterator[Callers]:
    with ThreadPoolExecutor(8) as pool:
        yield Callers(upstream, pool)


def vectors_of(answer: Answer) -> list[Any]:
    assert answer.body is not None
    assert [item["index"] for item in answer.body["data"]] == list(range(len(answer.body["data"])))
    return [item["embedding"] for item in answer.body["data"]]


def test_two_callers_share_a_request_and_every_token_that_the_vendor_counted(
    callers: Callers, upstream: Upstream
) -> None:
    texts = ["a" * 10, "b" * 21, "c" * 6]
    one, other = callers.ask(texts[0]), callers.ask(texts[1:])
    answers = [one.result(20), other.result(20)]
    assert len(upstream.requests) == 1
    assert sorted(inputs_of(upstream.last.body)) == texts
    assert [vectors_of(answer) for answer in answers] == [[vector(texts[0])], [vector(text) for text in texts[1:]]]
    assert [(answer.usage.input_tokens, answer.usage.exact) for answer in answers] == [(2, False), (6, False)]
    assert count(upstream.last.body) == 2 + 6
    assert {answer.upstream_request_id for answer in answers} == {upstream.last.request_id}


def test_a_request_that_no_other_joins_is_counted_by_the_vendor(callers: Callers, upstream: Upstream) -> None:
    assert callers.ask("alone").result(20).usage.exact


def test_the_text_of_a_caller_that_leaves_an_open_batch_is_not_sent(callers: Callers, upstream: Upstream) -> None:
    cancel = Cancel()
    leaver = callers.ask("leaving", cancel)
    others = [callers.ask("one"), callers.ask("two")]
    cancel.set(ClientClosed("The client closed the connection."))
    with pytest.raises(ClientClosed):
        leaver.result(20)
    assert [vectors_of(other.result(20)) for other in others] == [[vector("one")], [vector("two")]]
    assert [sorted(inputs_of(seen.body)) for seen in upstream.requests] == [["one", "two"]]


def test_a_batch_goes_on_when_the_caller_that_opened_it_leaves(callers: Callers, upstream: Upstream) -> None:
    cancel = Cancel()
    leaver = callers.ask("leaving", cancel)
    time.sleep(0.1)  # it has opened the batch
    cancel.set(ClientClosed("The client closed the connection."))
    with pytest.raises(ClientClosed):
        leaver.result(20)
    others = [callers.ask("one"), callers.ask("two")]
    assert [vectors_of(other.result(20)) for other in others] == [[vector("one")], [vector("two")]]
    assert [sorted(inputs_of(seen.body)) for seen in upstream.requests] == [["one", "two"]]


def test_a_caller_that_leaves_after_the_batch_was_sent_does_not_disturb_the_others(
    callers: Callers, upstream: Upstream
) -> None:
    upstream.script(Step(before_headers=0.5))
    cancel = Cancel()
    leaver, other = callers.ask("leaving", cancel), callers.ask("staying")
    upstream.wait_requests(1)
    cancel.set(ClientClosed("The client closed the connection."))
    with pytest.raises(ClientClosed):
        leaver.result(20)
    assert not other.done()
    assert vectors_of(other.result(20)) == [vector("staying")]
    assert len(upstream.requests) == 1


def test_the_batch_is_cancelled_when_its_last_caller_leaves(callers: Callers, upstream: Upstream) -> None:
    upstream.script(Step(fault="hang", after=-1))
    cancels = [Cancel(), Cancel()]
    leavers = [callers.ask(f"text {number}", cancel) for number, cancel in enumerate(cancels)]
    upstream.wait_requests(1)
    cancels[0].set(ClientClosed("The client closed the connection."))
    time.sleep(0.2)
    assert upstream.last.outcome == "open"
    cancels[1].set(ClientClosed("The client closed the connection."))
    upstream.wait_closed(1)
    for leaver in leavers:
        with pytest.raises(ClientClosed):
            leaver.result(20)


def test_after_a_rejected_batch_each_request_is_sent_alone(callers: Callers, upstream: Upstream) -> None:
    upstream.script(Step(status=400, error_param="input"))  # only the batch is rejected
    answers = [callers.ask("a"), callers.ask("b")]
    assert [vectors_of(answer.result(20)) for answer in answers] == [[vector("a")], [vector("b")]]
    assert [len(inputs_of(seen.body)) for seen in upstream.requests] == [2, 1, 1]
    assert all(answer.result().usage.exact for answer in answers)


def test_a_wrong_key_of_the_service_fails_each_caller_with_its_own_error(callers: Callers, upstream: Upstream) -> None:
    upstream.script(Step(status=401))
    failures = [answer.exception(20) for answer in [callers.ask("a"), callers.ask("b")]]
    assert [(type(failure), getattr(failure, "code", "")) for failure in failures] == [
        (UpstreamKeyRefused, "upstream_authentication")
    ] * 2
    assert failures[0] is not failures[1]
    assert len(upstream.requests) == 1


def test_requests_with_different_dimensions_are_not_batched(callers: Callers, upstream: Upstream) -> None:
    answers = [callers.ask("a", dimensions=length) for length in (3, 4, 3)]
    assert [len(vectors_of(answer.result(20))[0]) for answer in answers] == [3, 4, 3]
    assert sorted(len(inputs_of(seen.body)) for seen in upstream.requests) == [1, 2]
