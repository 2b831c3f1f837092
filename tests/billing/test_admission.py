"""What a call may take and what it took, over a real Valkey."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from typing import Any

import orjson
import pytest

from llm_service.billing import ledger
from llm_service.billing.admission import Meter
from llm_service.billing.ledger import Ledger
from llm_service.catalog.catalog import Catalog
from llm_service.core.call import Call, Caller
from llm_service.core.errors import BudgetExceeded, Forbidden, RateLimited, UnsupportedParameter
from llm_service.core.limits import Budget, Limits
from llm_service.observability.record import Record
from llm_service.settings import Settings
from tests.support.valkey import Valkey

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)
DOLLAR = 10**9
MARKER = "MARKER-of-a-prompt"
CATALOGUE: dict[str, Any] = {
    "providers": {"one": {"kind": "openai", "keyless": True}, "two": {"kind": "anthropic", "keyless": True}},
    "aliases": {"both": {"targets": ["one/m", "two/m"]}},
    "models": {
        "one/m": {"max_output": 100, "price": {"input": 1, "output": 10}},
        "two/m": {"max_output": 50, "price": {"input": 2, "output": 20}},
        "one/endless": {"price": {"input": 1, "output": 10}},
        "one/unpriced": {"max_output": 100},
    },
}
_ids = count()


@pytest.fixture
def books(valkey: Valkey) -> Iterator[Ledger]:
    redis = ledger.client(valkey.fresh_url(), timeout=5)
    made = Ledger(redis, "w1")
    assert made.begin_rebuild("e") and made.rebuild("e", {})
    yield made
    redis.close()


@pytest.fixture
def meter(books: Ledger) -> Meter:
    return Meter(Catalog(CATALOGUE, Settings.load({})), lambda: books, "UTC")


def budget(amount: int = DOLLAR, model: str = "", kind: Any = "key", name: str = "k", per: Any = "month") -> Budget:
    return Budget(f"b{next(_ids)}", kind, name, model, amount, per, NOW, NOW)


def call(model: str = "one/m", dialect: str = "chat", caller: Caller | None = None, **body: Any) -> Call:
    content = {"model": model, "messages": [{"role": "user", "content": MARKER}], **body}
    return Call(
        id=f"call-{next(_ids)}",
        request_id="request",
        route="/v1/chat/completions",
        format=dialect,
        model=model,
        stream=False,
        body=content,
        caller=caller or Caller("k", name="a name", org="o", user="u", budgets=(budget(),)),
        body_bytes=len(orjson.dumps(content)),
        client_ip="192.0.2.1",
    )


def record(of: Call, cost: int | None, **values: Any) -> Record:
    fields: dict[str, Any] = {"input_tokens": 3, "output_tokens": 4, "provider": "one", "model_served": "m", **values}
    return Record(
        id=of.id,
        created_at=NOW,
        route=of.route,
        dialect=of.format,
        status=200,
        outcome="ok",
        cost_nanousd=cost,
        latency_ms=1,
        **fields,
    )


def place(item: Budget) -> tuple[str, str]:
    return item.scope, "month:2026-03"


def test_the_intent_says_who_and_what_and_holds_no_content(meter: Meter, books: Ledger) -> None:
    asked = call(max_tokens=5, user=MARKER)
    meter.admit(replace(asked, request_id="rq-1"), NOW)
    kept = books._gate.ask("HGETALL", f"{{llm}}:hold:{asked.id}")
    assert MARKER not in repr(kept)
    told = orjson.loads(kept[b"record"])
    worst = told.pop("worst")
    assert worst > 5 * 10_000
    assert told == {
        "created_at": "2026-03-15T12:00:00+00:00",
        "key_id": "k",
        "org": "o",
        "user": "u",
        "route": "/v1/chat/completions",
        "dialect": "chat",
        "stream": False,
        "model_asked": "one/m",
        "request_id": "rq-1",
        "body_bytes": asked.body_bytes,
        "target": "one/m",
        "exempt": [],
    }


@pytest.mark.parametrize(
    ("dialect", "model", "field", "limit"),
    [
        ("chat", "one/m", "max_completion_tokens", 100),
        ("responses", "one/m", "max_output_tokens", 100),
        ("messages", "two/m", "max_tokens", 50),
        ("simple", "both", "max_tokens", 50),
        ("embeddings", "one/m", None, None),
    ],
)
def test_the_model_s_limit_is_written_in_the_dialect_s_word(
    meter: Meter, dialect: str, model: str, field: str | None, limit: int | None
) -> None:
    asked = replace(call(model, dialect), kind="embed" if dialect == "embeddings" else "generate")
    admitted = meter.admit(asked, NOW).call
    assert admitted.body == {**asked.body, **({field: limit} if field else {})}
    assert admitted is asked or replace(admitted, body=asked.body) == asked


def test_nobody_s_body_is_touched_without_a_budget_or_a_limit_of_tokens(meter: Meter) -> None:
    for caller in (Caller("k"), Caller("k", parallel=3)):
        asked = call(caller=caller)
        assert meter.admit(asked, NOW).call is asked
    limited = call(caller=Caller("k", limits=(Limits("model", "m", tpm=10_000),)))
    assert meter.admit(limited, NOW).call.body["max_completion_tokens"] == 100


def test_what_nothing_bounds_is_refused_only_where_a_budget_applies(meter: Meter) -> None:
    with pytest.raises(Forbidden) as unpriced:
        meter.admit(call("one/unpriced"), NOW)
    assert (unpriced.value.code, unpriced.value.param) == ("model_without_price", "model")
    with pytest.raises(UnsupportedParameter) as endless:
        meter.admit(call("one/endless"), NOW)
    assert endless.value.param == "max_tokens"
    assert meter.admit(call("one/endless", max_tokens=1), NOW).held.in_redis
    with pytest.raises(UnsupportedParameter) as searching:
        meter.admit(call(web_search_options={}), NOW)
    assert searching.value.param == "web_search_options"
    free = Caller("k", budgets=(budget(model="two/*"),))
    assert meter.admit(call("one/unpriced", caller=free, web_search_options={}), NOW).budgets == ()


def test_a_settlement_gives_back_what_was_not_used(meter: Meter, books: Ledger) -> None:
    own = budget()
    admission = meter.admit(call(caller=Caller("k", budgets=(own,)), max_tokens=50), NOW)
    spent, held = books.balances(*place(own))
    assert spent == 0 and held == admission.budgets[0][1].amount > 50 * 10_000
    ours = record(admission.call, 7_000)
    assert meter.settle(admission, ours) == ours
    assert books.balances(*place(own)) == (7_000, 0)
    assert meter.settle(admission, ours) is None  # it was settled, and its row is somebody's
    assert books.balances(*place(own)) == (7_000, 0)


def test_a_cost_that_is_not_known_is_what_was_held_and_not_exact(meter: Meter, books: Ledger) -> None:
    own = budget()
    admission = meter.admit(call(caller=Caller("k", budgets=(own,))), NOW)
    settled = meter.settle(admission, record(admission.call, None))
    assert settled is not None and settled.usage_exact is False
    assert settled.cost_nanousd == admission.budgets[0][1].amount
    assert books.balances(*place(own)) == (settled.cost_nanousd, 0)
    free = meter.admit(call(caller=Caller("k")), NOW)
    unknown = meter.settle(free, record(free.call, None))
    assert unknown is not None and (unknown.cost_nanousd, unknown.usage_exact) == (None, True)


def test_a_model_s_budget_is_spent_only_where_that_model_served(meter: Meter, books: Ledger) -> None:
    first, second, whole = budget(model="one/*"), budget(model="two/*"), budget()
    caller = Caller("k", budgets=(first, second, whole))
    admission = meter.admit(call("both", caller=caller), NOW)
    assert len({check.amount for _, check in admission.budgets}) == 1  # the dearest target's, from all three
    meter.settle(admission, record(admission.call, 5, provider="two", model_served="m-2026-01-01"))
    assert [books.balances(*place(item)) for item in (first, second, whole)] == [(0, 0), (5, 0), (5, 0)]


def test_all_or_nothing_over_every_scope(meter: Meter, books: Ledger) -> None:
    rich = budget(kind="org", name="o")
    caller = Caller("k", org="o", tpm=10_000, parallel=9, budgets=(rich,), limits=(Limits("service", "", parallel=1),))
    admission = meter.admit(call(caller=caller), NOW)
    before = books.balances(*place(rich))
    for _ in range(3):
        with pytest.raises(RateLimited) as refused:
            meter.admit(call(caller=caller), NOW)
        assert refused.value.limit is not None and refused.value.limit.scope == "service"
    assert books.balances(*place(rich)) == before
    meter.settle(admission, record(admission.call, 1))
    again = meter.admit(call(caller=caller), NOW)
    assert again.held.remaining[1] == admission.held.remaining[1] - 7  # the tokens that the first one used


@pytest.mark.parametrize(
    ("kind", "model", "words"),
    [
        ("key", "", "monthly budget of this API key"),
        ("key", "one/*", "monthly budget for one/* of this API key"),
        ("org", "", "monthly budget of this key's organisation"),
        ("user", "m", "monthly budget for m of this key's user"),
        ("service", "", "monthly budget of the whole service"),
    ],
)
def test_a_refusal_says_whose_budget_what_is_left_and_when_it_renews(
    meter: Meter, kind: Any, model: str, words: str
) -> None:
    small = budget(DOLLAR // 100_000, model, kind, "" if kind == "service" else "k")
    with pytest.raises(BudgetExceeded) as refused:
        meter.admit(call(caller=Caller("k", budgets=(budget(per="total"), small))), NOW)
    assert refused.value.message.startswith(f"The {words} does not cover this call: $0.00001 of $0.00001 is left,")
    assert "renews at 20" in refused.value.message
    assert refused.value.limit is not None and refused.value.limit.name == "budget"


def test_a_call_beyond_every_number_is_refused_and_not_wrapped(meter: Meter) -> None:
    with pytest.raises(BudgetExceeded):
        meter.admit(call(max_tokens=2**62), NOW)
    with pytest.raises(RateLimited):
        meter.admit(call(caller=Caller("k", tpm=10**9), max_tokens=2**62), NOW)


def test_a_settlement_beyond_every_number_is_bounded(meter: Meter, books: Ledger) -> None:
    own = budget()
    caller = Caller("k", budgets=(own,))
    for _ in range(2):
        admission = meter.admit(call(caller=caller), NOW) if books.balances(*place(own))[0] == 0 else None
        if admission is not None:
            meter.settle(admission, record(admission.call, 2**63 - 1, output_tokens=2**63 - 1))
    assert books.balances(*place(own)) == (ledger.MAX_AMOUNT, 0)
    with pytest.raises(BudgetExceeded) as refused:
        meter.admit(call(caller=caller), NOW)
    assert refused.value.limit is not None and refused.value.limit.remaining == 0


def test_periods_begin_in_the_operator_s_time_zone(books: Ledger) -> None:
    def periods(zone: str, at: datetime) -> Callable[[Any], str]:
        meter = Meter(Catalog(CATALOGUE, Settings.load({})), lambda: books, zone)
        return lambda per: meter.check(budget(per=per), 0, at).period

    late = datetime(2026, 3, 31, 22, 30, tzinfo=UTC)
    assert [periods("UTC", late)(per) for per in ("day", "month")] == ["day:2026-03-31", "month:2026-03"]
    assert [periods("Europe/Berlin", late)(per) for per in ("day", "month")] == ["day:2026-04-01", "month:2026-04"]
