"""Targets, retries and fallback, with scripted providers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from llm_service.catalog.catalog import Catalog
from llm_service.core.call import Call, Caller
from llm_service.core.cancellation import Cancel
from llm_service.core.errors import (
    ClientClosed,
    ServiceError,
    UnsupportedParameter,
    UpstreamBroken,
    UpstreamFailed,
    UpstreamQuotaExhausted,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
)
from llm_service.core.events import IDLE, Answer, Attempt, Delta, Event, Finished, Started
from llm_service.core.target import Target
from llm_service.core.usage import Usage
from llm_service.providers.routing import Router
from llm_service.settings import Settings

DONE = Finished(Answer(Usage(10, 5)))
DOCUMENT = {
    "defaults": {"attempts": 2, "retry_after_cap": 2},
    "providers": {"a": {"kind": "openai", "keyless": True}, "b": {"kind": "anthropic", "keyless": True}},
    "aliases": {"both": {"targets": ["a/one", "b/two"]}},
    "models": {"b/two": {"price": {"input": 1, "output": 2}}},
}


class Script:
    """A provider that plays one list per attempt: it yields the events and raises the errors."""

    def __init__(self, *attempts: list[Event | ServiceError]) -> None:
        self.attempts = list(attempts)
        self.asked = 0
        self.closed = 0

    def events(self, call: Call, target: Target, cancel: Cancel) -> Iterator[Event]:
        self.asked += 1
        yield Attempt(target.provider.name, target.model, target.price)
        try:
            for item in self.attempts.pop(0):
                if isinstance(item, ServiceError):
                    raise item
                yield item
        except GeneratorExit:
            self.closed += 1
            raise


def router(a: Script, b: Script | None = None) -> Router:
    catalog = Catalog(DOCUMENT, Settings.load({}))
    routed = Router(catalog, {"a": a, "b": b or Script()})
    routed._wait._exponential = lambda state: 0.01  # type: ignore[assignment]  # another test checks the pauses
    return routed


def call(model: str = "both") -> Call:
    targets = Catalog(DOCUMENT, Settings.load({})).resolve(model)
    return Call("id", "rid", "/x", "chat", model, True, {}, Caller("k"), targets=targets)


def run(routed: Router, model: str = "both") -> list[Event]:
    return [event for event in routed.events(call(model), Cancel()) if type(event) is not Attempt]


def test_an_answer_names_its_provider_its_model_and_its_cost() -> None:
    events = run(router(Script(), Script([Started(), DONE])), "b/two")
    assert events == [
        Started(provider="b", model="two"),
        Finished(Answer(Usage(10, 5), provider="b", model="two", cost_nanousd=20_000)),
    ]


def test_an_unknown_price_is_none_and_never_0() -> None:
    (finished,) = run(router(Script([DONE])), "a/one")
    assert isinstance(finished, Finished) and finished.answer.cost_nanousd is None


@pytest.mark.parametrize("failure", [UpstreamFailed, UpstreamTimeout, UpstreamRateLimited, UpstreamBroken])
def test_after_a_temporary_failure_the_same_target_is_tried_again(failure: type[ServiceError]) -> None:
    a = Script([failure("x")], [DONE])
    assert len(run(router(a), "a/one")) == 1
    assert a.asked == 2


def test_after_the_last_attempt_the_next_target_is_asked() -> None:
    a, b = Script([UpstreamFailed("x")], [UpstreamFailed("x")]), Script([DONE])
    (finished,) = run(router(a, b))
    assert isinstance(finished, Finished) and finished.answer.provider == "b"
    assert (a.asked, b.asked) == (2, 1)


def test_the_failure_of_the_last_target_is_reported() -> None:
    a = Script([UpstreamFailed("a")], [UpstreamFailed("a")])
    b = Script([UpstreamTimeout("b")], [UpstreamTimeout("b")])
    with pytest.raises(UpstreamTimeout):
        run(router(a, b))


@pytest.mark.parametrize("status", [400, 403, 404, 413, 422])
def test_a_request_that_a_vendor_rejects_is_not_tried_again(status: int) -> None:
    a, b = Script([UpstreamRejected("no", status=status)]), Script([DONE])
    with pytest.raises(UpstreamRejected):
        run(router(a, b))
    assert (a.asked, b.asked) == (1, 0)


def test_a_target_without_credit_is_not_tried_again_but_the_next_one_is() -> None:
    a, b = Script([UpstreamQuotaExhausted("x")]), Script([DONE])
    run(router(a, b))
    assert (a.asked, b.asked) == (1, 1)


def test_with_a_retry_after_above_the_cap_the_next_target_is_asked_at_once() -> None:
    a, b = Script([UpstreamRateLimited("x", retry_after=3)]), Script([DONE])
    started = time.monotonic()
    run(router(a, b))
    assert (a.asked, b.asked) == (1, 1)
    assert time.monotonic() - started < 1


def test_a_retry_after_below_the_cap_is_obeyed() -> None:
    a = Script([UpstreamRateLimited("x", retry_after=1)], [DONE])
    started = time.monotonic()
    run(router(a), "a/one")
    assert time.monotonic() - started >= 1


def test_after_the_first_event_a_failure_is_final() -> None:
    a, b = Script([Started(), UpstreamFailed("x")]), Script([DONE])
    routed = router(a, b)
    seen: list[Any] = []
    with pytest.raises(UpstreamFailed):
        for event in routed.events(call(), Cancel()):
            seen.append(type(event))
    assert seen == [Attempt, Started]
    assert (a.asked, b.asked) == (1, 0)


def test_a_failure_after_idle_ticks_only_is_tried_again() -> None:
    a = Script([IDLE, UpstreamFailed("x")], [IDLE, DONE])
    assert run(router(a), "a/one")[:2] == [IDLE, IDLE]


def test_a_target_that_cannot_express_the_request_is_skipped() -> None:
    a, b = Script([UnsupportedParameter("x", param="tools")]), Script([DONE])
    run(router(a, b))
    with pytest.raises(UnsupportedParameter):
        run(router(Script([UnsupportedParameter("x")]), Script([UnsupportedParameter("y")])))


def test_closing_the_iterator_closes_the_provider_and_asks_no_other() -> None:
    a, b = Script([Started(), Delta("x"), DONE]), Script([DONE])
    events = router(a, b).events(call(), Cancel())
    assert type(next(events)) is Attempt and type(next(events)) is Started
    events.close()  # type: ignore[attr-defined]
    assert (a.closed, a.asked, b.asked) == (1, 1, 0)


def test_a_cancelled_call_is_not_tried_again() -> None:
    a = Script([UpstreamFailed("x")], [DONE])
    cancel = Cancel()
    routed = router(a)
    events = routed.events(call("a/one"), cancel)
    next(events)
    cancel.set(ClientClosed("gone"))
    with pytest.raises(ClientClosed):
        list(events)
    assert a.asked == 1


def test_pauses_between_attempts_grow_up_to_a_limit() -> None:
    from tenacity import RetryCallState, Retrying

    routed = Router(Catalog(DOCUMENT, Settings.load({})), {})
    pauses = []
    for number in range(1, 12):
        state = RetryCallState(Retrying(), None, (), {})
        state.attempt_number = number
        state.set_exception((UpstreamFailed, UpstreamFailed("x"), None))
        pauses.append(routed._wait(state))
    assert 0.5 <= pauses[0] <= 0.75 and 1 <= pauses[1] <= 1.25
    assert max(pauses) <= 8.25
