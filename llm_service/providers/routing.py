"""From a model's name to a provider's answer: targets, retries, fallback.

Another attempt is made if it can help and the caller has received nothing of an
answer yet. The same target is tried first, with tenacity's exponential backoff and
jitter (a vendor's Retry-After is obeyed up to the catalogue's cap), then the next
target of the alias. After the first event a failure is final, because the caller
already has a part of the answer.

A target that cannot express the request is skipped for one that can. A target whose vendor refuses this service's own
key, or whose account has no credit, is not tried again: the next one is asked, and the recorder is told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter
from tenacity.wait import wait_base

from llm_service.catalog.catalog import Catalog
from llm_service.core.call import Call
from llm_service.core.cancellation import Cancel
from llm_service.core.errors import (
    ServiceError,
    UnsupportedParameter,
    UpstreamError,
    UpstreamKeyRefused,
    UpstreamQuotaExhausted,
)
from llm_service.core.events import IDLE, Answer, Attempt, Event, Finished, Started, TargetRefused
from llm_service.core.target import Target
from llm_service.providers import Upstream


class Router:
    def __init__(self, catalog: Catalog, providers: Mapping[str, Upstream]) -> None:
        self._catalog, self._providers = catalog, providers
        self._stop = stop_after_attempt(catalog.attempts)
        self._wait = _Backoff(catalog.retry_after_cap)
        self._retry = retry_if_exception(self._worth_retrying)
        self._policy = Retrying(stop=self._stop, wait=self._wait, retry=self._retry)

    def events(self, call: Call, cancel: Cancel) -> Iterator[Event]:
        """The answer's events.

        Raises:
            UnsupportedParameter: before anything was sent.
            UpstreamError: of the last target asked.
        """
        failure: ServiceError | None = None
        for target in call.targets:
            try:
                yield from self._target_events(call, target, cancel)
                return
            except UnsupportedParameter as error:
                # If a vendor failed too, its failure is the more useful one to report.
                failure = failure or error
            except UpstreamError as error:
                failure = error
                if isinstance(error, UpstreamKeyRefused | UpstreamQuotaExhausted):
                    yield TargetRefused(target.provider.name, target.model, error.code)
                if not error.helps_elsewhere:
                    raise
        assert failure is not None, "the catalogue resolves every model to at least one target"
        raise failure

    def _target_events(self, call: Call, target: Target, cancel: Cancel) -> Iterator[Event]:
        provider = self._providers[target.provider.name]
        # Retrying's own loop is not used: it costs time in every call, not only in failed ones, and its sleep cannot
        # be cancelled.
        retry_state = RetryCallState(self._policy, fn=None, args=(), kwargs={})
        while True:
            answer_began = False
            try:
                for event in provider.events(call, target, cancel):
                    if event is not IDLE and type(event) is not Attempt:
                        answer_began = True
                    yield _with_origin_and_cost(event, target, call)
                return
            except UpstreamError as error:
                if answer_began:
                    error.helps_elsewhere = False
                retry_state.set_exception((type(error), error, error.__traceback__))
                if not self._retry(retry_state) or self._stop(retry_state):
                    raise
            cancel.sleep(self._wait(retry_state))
            retry_state.prepare_for_next_attempt()

    def _worth_retrying(self, error: BaseException) -> bool:
        if not isinstance(error, UpstreamError) or isinstance(error, UpstreamQuotaExhausted | UpstreamKeyRefused):
            return False
        if error.retry_after is not None and error.retry_after > self._catalog.retry_after_cap:
            return False
        return error.helps_elsewhere


def _with_origin_and_cost(event: Event, target: Target, call: Call) -> Event:
    """``event`` with the provider's name, the model and the cost, so that providers need not add them."""
    if type(event) is Started:
        return replace(event, provider=target.provider.name, model=event.model or target.model)
    if type(event) is Finished:
        answer = event.answer
        cost = 0 if call.kind == "count" else _cost(target, call, answer)
        answer = replace(answer, provider=target.provider.name, model=answer.model or target.model, cost_nanousd=cost)
        return replace(event, answer=answer)
    return event


def _cost(target: Target, call: Call, answer: Answer) -> int | None:
    if target.price is None or answer.usage_lost:
        return None
    return target.price.cost(answer.usage, at=call.created or None)


class _Backoff(wait_base):
    """0.5 s, 1 s, 2 s ... up to 8 s, each with up to 0.25 s of jitter; never less than Retry-After."""

    def __init__(self, retry_after_cap: float) -> None:
        self._exponential = wait_exponential_jitter(multiplier=0.5, max=8, jitter=0.25)
        self._cap = retry_after_cap

    def __call__(self, retry_state: RetryCallState) -> float:
        seconds = self._exponential(retry_state)
        error = retry_state.outcome.exception() if retry_state.outcome else None
        retry_after = error.retry_after if isinstance(error, UpstreamError) else None
        return max(seconds, min(retry_after, self._cap)) if retry_after else seconds
