"""A catalogue with round prices, and helpers to set budgets and limits and to read their counters in Redis."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from flask import Flask
from redis import Redis

from llm_service import store
from llm_service.extensions import db
from llm_service.store import budgets, limits
from tests.support.server import Server
from tests.support.wait import wait_until

# Nano-dollars per token: (input, output).
OPENAI, ANTHROPIC = "gpt-4o-mini", "claude-haiku-4-5"
PRICES = {OPENAI: (1_000, 10_000), ANTHROPIC: (2_000, 20_000)}
MAX_OUTPUT = {OPENAI: 100, ANTHROPIC: 50}
UNPRICED = "gpt-4.1"

CATALOGUE = f"""
[defaults]
attempts = 2
retry_after_cap = 1

[tiers.capped]
budget = {{ amount_usd = 1, per = "total" }}

[providers.openai]
kind = "openai"
key_env = "OPENAI_API_KEY"
base_url_env = "OPENAI_BASE_URL"
serves = ["gpt-*"]

[providers.anthropic]
kind = "anthropic"
key_env = "ANTHROPIC_API_KEY"
base_url_env = "ANTHROPIC_BASE_URL"
serves = ["claude-*"]

[aliases.both]
targets = ["openai/{OPENAI}", "anthropic/{ANTHROPIC}"]

[models."openai/{UNPRICED}*"]
max_output = 100

[models."openai/gpt-4o*"]
max_output = {MAX_OUTPUT[OPENAI]}
price = {{ input = 1, output = 10 }}

[models."anthropic/*"]
max_output = {MAX_OUTPUT[ANTHROPIC]}
price = {{ input = 2, output = 20 }}
"""

CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"


@contextmanager
def store_context(service: Server) -> Iterator[None]:
    """An application context in which a test calls the store directly.

    An operator would use the command line, which has its own tests.
    """
    app = Flask("tests")
    store.configure(app, service.settings)
    with app.app_context():
        try:
            yield
        finally:
            db.engine.dispose()


def body(model: str = OPENAI, **more: Any) -> dict[str, Any]:
    """A request for at most 10 output tokens. A field with the value ``...`` is left out."""
    values = {"model": model, "max_tokens": 10, "messages": [{"role": "user", "content": "Say something."}], **more}
    return {name: value for name, value in values.items() if value is not ...}


def cost_of(row: Mapping[str, Any], model: str = OPENAI) -> int:
    """The cost of the row's tokens in nano-dollars."""
    per_input, per_output = PRICES[model]
    return int(row["input_tokens"] * per_input + row["output_tokens"] * per_output)


def set_budget(service: Server, kind: Any, name: str, nanodollars: int, per: Any = "total", model: str = "") -> str:
    """Set a budget and return its id.

    It works like ``flask budgets set``, but it does not count what was spent before.
    """
    with store_context(service):
        return budgets.put(kind, name, nanodollars, per, model).id


def key_with_budget(service: Server, nanodollars: int, per: Any = "total", **options: Any) -> Any:
    """A new key with a budget."""
    issued = service.create_key(**options)
    set_budget(service, "key", issued.stored.id, nanodollars, per)
    return issued


def upper_bound_of(service: Server, path: str = "/v1/complete", **more: Any) -> int:
    """The upper bound of a call's cost in nano-dollars, which a call holds.

    It is read from the error that a key with an empty budget gets.
    """
    rejected = service.http(key_with_budget(service, 0).text).post(path, json=body(**more))
    assert rejected.status_code in (402, 429), rejected.text
    match = re.search(r"may cost up to \$([\d.,]+)\.(\d+)\. ", rejected.text)
    assert match is not None, rejected.text
    return int(match[1].replace(",", "")) * 10**9 + int(match[2].ljust(9, "0"))


@contextmanager
def set_limits(service: Server, kind: Any, name: str, **values: int) -> Iterator[None]:
    """Set these limits of the scope for a while. Keys that were used within the last second do not have them yet."""
    with store_context(service):
        limits.put(kind, name, values)
    try:
        yield
    finally:
        with store_context(service):
            limits.remove(kind, name)


class Counters:
    """The counters in the service's Redis."""

    def __init__(self, service: Server) -> None:
        self.redis: Any = Redis.from_url(service.environ["REDIS_URL"], decode_responses=True)

    def money(self, scope: str, period: str = "total") -> tuple[int, int]:
        """(spent, held)"""
        spent, held = self.redis.hmget(f"{{llm}}:money:{period}|{scope}", "spent", "held")
        return int(spent or 0), int(held or 0)

    def settled(self, scope: str, timeout: float = 5.0) -> int:
        """The amount that is spent, as soon as nothing is held."""
        wait_until(lambda: self.money(scope)[1] == 0, timeout, f"nothing is held for {scope}")
        return self.money(scope)[0]

    def held_calls(self) -> int:
        return int(self.redis.zcard("{llm}:leases"))


def wait_for_counters(service: Server) -> None:
    """Wait until the service has built its counters. Before that it serves no key that has a budget."""
    wait_until(lambda: service.http(key="").get("/ready").json()["budgets"] == "ok", 10, "the counters are built", 0.1)
