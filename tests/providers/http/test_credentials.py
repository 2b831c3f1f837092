"""One call fetches a new token when the old one expires. An error about fetching contains no secret."""

from __future__ import annotations

import threading
import time

import pytest

from llm_service.core.errors import UpstreamFailed
from llm_service.providers.http.credentials import ExpiringToken


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_token_is_used_until_the_margin_before_its_end() -> None:
    clock, tokens = Clock(), iter([("a", 10.0), ("b", 10.0)])
    token = ExpiringToken(lambda: next(tokens), margin=3.0, clock=clock)
    assert token() == "a"
    clock.now += 6.9
    assert token() == "a"
    clock.now += 0.1
    assert token() == "b"


def test_callers_at_the_same_time_share_one_fetch() -> None:
    count, names = 0, []

    def fetch() -> tuple[str, float]:
        nonlocal count
        count += 1
        time.sleep(0.1)
        return f"token-{count}", 60.0

    token = ExpiringToken(fetch)
    threads = [threading.Thread(target=lambda: names.append(token())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (count, set(names)) == (1, {"token-1"})


def test_a_failed_fetch_is_an_upstream_failure_without_the_text_of_its_cause() -> None:
    def fetch() -> tuple[str, float]:
        raise RuntimeError("secret-of-the-operator")

    with pytest.raises(UpstreamFailed) as caught:
        ExpiringToken(fetch)()
    assert "secret-of-the-operator" not in str(caught.value)
