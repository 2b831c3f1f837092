"""Calls are held and settled, over a real Valkey."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from typing import Any

import orjson
import pytest

from llm_service.billing import ledger
from llm_service.billing.admission import Admission
from llm_service.billing.ledger import Ledger
from llm_service.billing.settlement import Settler
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
CATALOG = Catalog(CATALOGUE, Settings.load({}))
_ids = count()


class Recorder:
    """A call without events."""

    created_at = NOW

    def output_tokens_seen(self) -> int:
        return 0

    def end(self, error: BaseException | None = None) -> Record | None:
        raise NotImplementedError

    def settled(self, record: Record | None) -> None:
        raise NotImplementedError

    def failed(self, failure: BaseException) -> None:
        raise failure


@pytest.fixture
def ledgers(valkey: Valkey) -> Iterator[Ledger]:
    redis = ledger.client(valkey.fresh_url(), timeout=5)
    made = Ledger(redis, "w1")
    assert made.begin_rebuild("e") and made.rebuild("e", {})
    yield made
    redis.close()


@pytest.fixture
def admission(ledgers: Ledger) -> Admission:
    return Admission(CATALOG, lambda: ledgers, Settler(lambda: ledgers), "UTC")


def budget(amount: int = DOLLAR, model: str = "", kind: Any = "key", name: str = "k", per: Any = "month") -> Budget:
    return Budget(f"b{next(_ids)}", kind, name, model, amount, per, NOW, NOW)


def call(model: str = "one/m", dialect: str = "chat", caller: Caller | None = None, **body: Any) -> Call:
    content = {"model": model, "messages": [{"role": "user", "content": MARKER}], **body}
    caller = caller or Caller("k", name="a name", org="o", user="u", budgets=(budget(),))
    return Call(
        id=f"call-{next(_ids)}",
        request_id="request",
        route="/v1/chat/completions",
        format=dialect,
        model=model,
        stream=False,
        body=content,
        caller=caller,
        body_bytes=len(orjson.dumps(content)),
        client_ip="192.0.2.1",
        targets=CATALOG.resolve(model, caller),
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


def counter(item: Budget) -> tuple[str, str]:
    return item.scope, "month:2026-03"


def test_a_hold_keeps_what_its_row_needs_and_no_content(admission: Admission, ledgers: Ledger) -> None:
    asked = call(max_tokens=5, user=MARKER)
    admission.admit(replace(asked, request_id="rq-1"), Recorder())
    kept = ledgers._gate.ask("HGETALL", f"{{llm}}:hold:{asked.id}")
    assert MARKER not in repr(kept)
    known = orjson.loads(kept[b"record"])
    worst = known.pop("worst")
    assert worst > 5 * 10_000
    assert known == {
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
def test_the_model_s_limit_is_written_into_the_field_of_the_format(
    admission: Admission, dialect: str, model: str, field: str | None, limit: int | None
) -> None:
    asked = replace(call(model, dialect), kind="embed" if dialect == "embeddings" else "generate")
    admitted = admission.admit(asked, Recorder()).call
    assert admitted.body == {**asked.body, **({field: limit} if field else {})}
    assert admitted is asked or replace(admitted, body=asked.body) == asked


def test_a_body_is_changed_only_for_a_budget_or_a_limit_of_tokens(admission: Admission) -> None:
    for caller in (Caller("k"), Caller("k", parallel=3)):
        asked = call(caller=caller)
        assert admission.admit(asked, Recorder()).call is asked
    limited = call(caller=Caller("k", limits=(Limits("model", "m", tpm=10_000),)))
    assert admission.admit(limited, Recorder()).call.body["max_completion_tokens"] == 100


def test_a_call_without_an_upper_bound_is_rejected_only_if_a_budget_applies(admission: Admission) -> None:
    with pytest.raises(Forbidden) as unpriced:
        admission.admit(call("one/unpriced"), Recorder())
    assert (unpriced.value.code, unpriced.value.param) == ("model_without_price", "model")
    with pytest.raises(UnsupportedParameter) as endless:
        admission.admit(call("one/endless"), Recorder())
    assert endless.value.param == "max_tokens"
    assert admission.admit(call("one/endless", max_tokens=1), Recorder()).held.in_redis
    with pytest.raises(UnsupportedParameter) as searching:
        admission.admit(call(web_search_options={}), Recorder())
    assert searching.value.param == "web_search_options"
    free = Caller("k", budgets=(budget(model="two/*"),))
    assert admission.admit(call("one/unpriced", caller=free, web_search_options={}), Recorder()).budgets == ()


class Ended(Recorder):
    """A call that has ended as ``record`` says."""

    def __init__(self, record: Record | None) -> None:
        self.record = record
        self.errors: list[BaseException | None] = []
        self.failures: list[BaseException] = []

    def end(self, error: BaseException | None = None) -> Record | None:
        self.errors.append(error)
        return self.record

    def settled(self, record: Record | None) -> None:
        self.record = record

    def failed(self, failure: BaseException) -> None:
        self.failures.append(failure)


@pytest.mark.parametrize(
    "error", [KeyError("x"), GeneratorExit(), SystemExit()], ids=lambda error: type(error).__name__
)
def test_any_end_of_a_call_settles_it(admission: Admission, ledgers: Ledger, error: BaseException) -> None:
    own = budget()
    asked = call(caller=Caller("k", budgets=(own,)))
    recorder = Ended(record(asked, 5))
    with pytest.raises(type(error)), admission.admit(asked, recorder):
        raise error
    assert recorder.errors == [error]
    assert ledgers.balances(*counter(own)) == (5, 0)
    assert admission.tokens_seen() == {}


def test_a_call_is_settled_once_and_its_first_end_counts(admission: Admission, ledgers: Ledger) -> None:
    own = budget()
    asked = call(caller=Caller("k", budgets=(own,)))
    recorder = Ended(record(asked, 5))
    with pytest.raises(KeyError), admission.admit(asked, recorder) as admitted:
        admitted.settle()
        assert ledgers.balances(*counter(own)) == (5, 0)
        raise KeyError
    assert recorder.errors == [None] and recorder.record == record(asked, 5)


def test_a_settlement_that_fails_is_reported_and_changes_neither_the_end_nor_the_record(admission: Admission) -> None:
    asked = call(caller=Caller("k", budgets=(budget(),)))
    recorder = Ended(replace(record(asked, 5), org=object()))  # type: ignore[arg-type]
    with admission.admit(asked, recorder):
        pass
    assert [type(failure) for failure in recorder.failures] == [TypeError]
    assert recorder.record is not None and recorder.record.cost_nanousd == 5
    assert admission.tokens_seen() == {}  # its lease expires


def test_a_call_whose_record_cannot_be_made_is_left_to_the_reaper(admission: Admission) -> None:
    with admission.admit(call(), Ended(None)):
        assert len(admission.tokens_seen()) == 1
    assert admission.tokens_seen() == {}


def test_a_settlement_gives_back_what_was_not_used(admission: Admission, ledgers: Ledger) -> None:
    own = budget()
    admitted = admission.admit(call(caller=Caller("k", budgets=(own,)), max_tokens=50), Recorder())
    spent, held = ledgers.balances(*counter(own))
    assert spent == 0 and held == admitted.budgets[0][1].amount > 50 * 10_000
    ours = record(admitted.call, 7_000)
    assert admission.settler.settle(admitted, ours) == ours
    assert ledgers.balances(*counter(own)) == (7_000, 0)
    assert admission.settler.settle(admitted, ours) is None  # it was settled before, and its row was written
    assert ledgers.balances(*counter(own)) == (7_000, 0)


def test_an_unknown_cost_becomes_what_was_held_and_is_not_exact(admission: Admission, ledgers: Ledger) -> None:
    own = budget()
    admitted = admission.admit(call(caller=Caller("k", budgets=(own,))), Recorder())
    settled = admission.settler.settle(admitted, record(admitted.call, None))
    assert settled is not None and settled.usage_exact is False
    assert settled.cost_nanousd == admitted.budgets[0][1].amount
    assert ledgers.balances(*counter(own)) == (settled.cost_nanousd, 0)
    again = admission.admit(call(caller=Caller("k", budgets=(own,))), Recorder())
    lost = admission.settler.settle(again, replace(record(again.call, 7), usage_lost=True, usage_exact=False))
    assert lost is not None and lost.cost_nanousd == again.budgets[0][1].amount > 7
    free = admission.admit(call(caller=Caller("k")), Recorder())
    unknown = admission.settler.settle(free, record(free.call, None))
    assert unknown is not None and (unknown.cost_nanousd, unknown.usage_exact) == (None, True)


def test_the_budget_of_a_model_is_spent_only_if_that_model_answered(admission: Admission, ledgers: Ledger) -> None:
    first, second, whole = budget(model="one/*"), budget(model="two/*"), budget()
    caller = Caller("k", budgets=(first, second, whole))
    admitted = admission.admit(call("both", caller=caller), Recorder())
    assert len({check.amount for _, check in admitted.budgets}) == 1  # the most expensive target's, from all three
    admission.settler.settle(admitted, record(admitted.call, 5, provider="two", model_served="m-2026-01-01"))
    assert [ledgers.balances(*counter(item)) for item in (first, second, whole)] == [(0, 0), (5, 0), (5, 0)]


def test_a_call_that_one_scope_rejects_takes_nothing_of_any_scope(admission: Admission, ledgers: Ledger) -> None:
    rich = budget(kind="org", name="o")
    caller = Caller("k", org="o", tpm=10_000, parallel=9, budgets=(rich,), limits=(Limits("service", "", parallel=1),))
    admitted = admission.admit(call(caller=caller), Recorder())
    before = ledgers.balances(*counter(rich))
    for _ in range(3):
        with pytest.raises(RateLimited) as rejected:
            admission.admit(call(caller=caller), Recorder())
        assert rejected.value.limit is not None and rejected.value.limit.scope == "service"
    assert ledgers.balances(*counter(rich)) == before
    admission.settler.settle(admitted, record(admitted.call, 1))
    again = admission.admit(call(caller=caller), Recorder())
    assert again.held.remaining[1] == admitted.held.remaining[1] - 7  # the tokens that the first one used


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
def test_a_rejection_names_the_budget_what_is_left_and_when_it_renews(
    admission: Admission, kind: Any, model: str, words: str
) -> None:
    small = budget(DOLLAR // 100_000, model, kind, "" if kind == "service" else "k")
    with pytest.raises(BudgetExceeded) as rejected:
        admission.admit(call(caller=Caller("k", budgets=(budget(per="total"), small))), Recorder())
    assert rejected.value.message.startswith(f"The {words} does not cover this call: $0.00001 of $0.00001 is left,")
    assert "renews at 20" in rejected.value.message
    assert rejected.value.limit is not None and rejected.value.limit.name == "budget"


def test_a_call_beyond_the_largest_number_is_rejected(admission: Admission) -> None:
    with pytest.raises(BudgetExceeded):
        admission.admit(call(max_tokens=2**62), Recorder())
    with pytest.raises(RateLimited):
        admission.admit(call(caller=Caller("k", tpm=10**9), max_tokens=2**62), Recorder())


def test_a_settlement_beyond_the_largest_number_is_bounded(admission: Admission, ledgers: Ledger) -> None:
    own = budget()
    caller = Caller("k", budgets=(own,))
    for _ in range(2):
        admitted = admission.admit(call(caller=caller), Recorder()) if ledgers.balances(*counter(own))[0] == 0 else None
        if admitted is not None:
            admission.settler.settle(admitted, record(admitted.call, 2**63 - 1, output_tokens=2**63 - 1))
    assert ledgers.balances(*counter(own)) == (ledger.MAX_AMOUNT, 0)
    with pytest.raises(BudgetExceeded) as rejected:
        admission.admit(call(caller=caller), Recorder())
    assert rejected.value.limit is not None and rejected.value.limit.remaining == 0


def test_periods_begin_in_the_operator_s_time_zone(ledgers: Ledger) -> None:
    def periods(zone: str, at: datetime) -> Callable[[Any], str]:
        admission = Admission(CATALOG, lambda: ledgers, Settler(lambda: ledgers), zone)
        return lambda per: admission.check(budget(per=per), 0, at).period

    late = datetime(2026, 3, 31, 22, 30, tzinfo=UTC)
    assert [periods("UTC", late)(per) for per in ("day", "month")] == ["day:2026-03-31", "month:2026-03"]
    assert [periods("Europe/Berlin", late)(per) for per in ("day", "month")] == ["day:2026-04-01", "month:2026-04"]
