"""A catalogue with round prices, and what an operator and Redis say of a service's budgets and limits."""

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

# Nano-dollars a token, input and output.
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
def database(service: Server) -> Iterator[None]:
    """For what an operator does with the command line, which has tests of its own."""
    app = Flask("tests")
    store.configure(app, service.settings)
    with app.app_context():
        try:
            yield
        finally:
            db.engine.dispose()


def body(model: str = OPENAI, **more: Any) -> dict[str, Any]:
    """One that asks for 10 tokens; a field that is ``...`` is left out."""
    values = {"model": model, "max_tokens": 10, "messages": [{"role": "user", "content": "Say something."}], **more}
    return {name: value for name, value in values.items() if value is not ...}


def cost_of(row: Mapping[str, Any], model: str = OPENAI) -> int:
    """What the row's tokens cost, in nano-dollars."""
    per_input, per_output = PRICES[model]
    return int(row["input_tokens"] * per_input + row["output_tokens"] * per_output)


def set_budget(service: Server, kind: Any, name: str, nanodollars: int, per: Any = "total", model: str = "") -> str:
    """Its id. As ``flask budgets set``, but for what was spent before."""
    with database(service):
        return budgets.put(kind, name, nanodollars, per, model).id


def key_with(service: Server, nanodollars: int, per: Any = "total", **options: Any) -> Any:
    """A key with a budget."""
    issued = service.create_key(**options)
    set_budget(service, "key", issued.stored.id, nanodollars, per)
    return issued


def worst_of(service: Server, path: str = "/v1/complete", **more: Any) -> int:
    """What a call holds in nano-dollars, as it is told to a key that has nothing."""
    refused = service.http(key_with(service, 0).text).post(path, json=body(**more))
    assert refused.status_code in (402, 429), refused.text
    told = re.search(r"may cost up to \$([\d.,]+)\.(\d+)\. ", refused.text)
    assert told is not None, refused.text
    return int(told[1].replace(",", "")) * 10**9 + int(told[2].ljust(9, "0"))


@contextmanager
def limited(service: Server, kind: Any, name: str, **values: int) -> Iterator[None]:
    """The scope has these limits inside. Keys that were used within the last second do not know it yet."""
    with database(service):
        limits.put(kind, name, values)
    try:
        yield
    finally:
        with database(service):
            limits.remove(kind, name)


class Counters:
    """What the service's Redis counts."""

    def __init__(self, service: Server) -> None:
        self.redis: Any = Redis.from_url(service.environ["REDIS_URL"], decode_responses=True)

    def money(self, scope: str, period: str = "total") -> tuple[int, int]:
        """(spent, held)"""
        spent, held = self.redis.hmget(f"{{llm}}:money:{period}|{scope}", "spent", "held")
        return int(spent or 0), int(held or 0)

    def settled(self, scope: str, timeout: float = 5.0) -> int:
        """What is spent, once nothing is held."""
        wait_until(lambda: self.money(scope)[1] == 0, timeout, f"nothing of {scope} is held")
        return self.money(scope)[0]

    def held_calls(self) -> int:
        return int(self.redis.zcard("{llm}:leases"))


def wait_built(service: Server) -> None:
    """Until the service has built its counters: before that nobody with a budget is served."""
    wait_until(lambda: service.http(key="").get("/ready").json()["budgets"] == "ok", 10, "the budgets are counted", 0.1)
