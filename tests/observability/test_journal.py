"""What is recorded of a call: one test per row of the table in ``call_recorder``, and what may never happen."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import orjson
import pytest

from llm_service.catalog.prices import Rates
from llm_service.core import errors
from llm_service.core.call import Call, Caller, RequestInfo
from llm_service.core.events import (
    IDLE,
    Answer,
    Attempt,
    Delta,
    DiscardedAnswer,
    Event,
    Finished,
    HeldBack,
    Relay,
    Started,
)
from llm_service.core.usage import Usage
from llm_service.formats import registry
from llm_service.observability.call_recorder import CallRecorder
from llm_service.observability.journal import Journal
from llm_service.observability.metrics import Metrics
from llm_service.observability.record import COLUMNS
from llm_service.store.tables import RequestRow
from tests.support.captured_logs import captured_logs

KEY = b"a key of the tests, 32 bytes long"
NOW = datetime(2026, 11, 21, 3, 0, tzinfo=UTC)
PRICE = Rates(Decimal(3), Decimal(15))  # 3,000 and 15,000 nano-dollars a token
ASKED = Attempt("anthropic", "claude-sonnet-4-6", PRICE)
BODY = {"model": "smart", "messages": [{"role": "user", "content": "q" * 340}]}
CALL = Call(
    id="01jd0000000000000000000000",
    request_id="req-of-the-caller",
    route="/v1/messages",
    format="messages",
    model="smart",
    stream=False,
    body=BODY,
    caller=Caller("k1234567", org="Acme", user="ann"),
    body_bytes=401,
    client_ip="192.0.2.7",
)
STREAM = replace(CALL, stream=True)
ANSWER = Answer(
    Usage(100, 20, cached_tokens=5, cache_write_tokens=4, reasoning_tokens=3),
    model="claude-sonnet-4-6-20260101",
    provider="anthropic",
    cost_nanousd=600_000,
    upstream_request_id="req_upstream",
)


class Clock:
    """Monotonic seconds that only a test moves."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class Rows:
    """A writer that keeps rows; ``full`` makes it drop them, ``broken`` raise."""

    def __init__(self) -> None:
        self.rows: list[Mapping[str, Any]] = []
        self.dropped = 0
        self.full = self.broken = False

    def put(self, row: Mapping[str, Any]) -> bool:
        if self.broken:
            raise RuntimeError("MARKER in a defect")
        if self.full:
            self.dropped += 1
            return False
        self.rows.append(row)
        return True


class Rig:
    def __init__(self) -> None:
        self.clock, self.writer = Clock(), Rows()
        self.telemetry = Metrics(["anthropic", "openai"], registry.NAMES, self.clock)
        self.journal = self.journal_with(self.telemetry)

    def journal_with(self, telemetry: Metrics) -> Journal:
        return Journal(
            self.writer, telemetry, KEY, lambda call: call.body["messages"], clock=self.clock, now=lambda: NOW
        )

    def answer(self, call: Call, *events: Event | BaseException) -> Iterator[Event]:
        """Do what the gateway does. An exception among the events is raised at its place."""
        with CallRecorder(self.journal, call) as recorder:
            for event in events:
                if isinstance(event, BaseException):
                    raise event
                recorder.see(event)
                if type(event) is Finished:
                    recorder.write()
                yield event

    def ended(self, call: Call, *events: Event | BaseException) -> Mapping[str, Any]:
        """Take all events of a call and return its row."""
        try:
            for _ in self.answer(call, *events):
                self.clock.seconds += 0.25
        except BaseException as error:
            assert error is events[-1], "the journal changes no exception"  # noqa: PT017
        return self.row()

    def row(self) -> Mapping[str, Any]:
        assert len(self.writer.rows) == 1
        return self.writer.rows[0]

    def metric(self, name: str) -> float:
        lines = self.telemetry.render()[0].decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


@pytest.fixture
def rig() -> Rig:
    return Rig()


def tokens(row: Mapping[str, Any]) -> tuple[int, int, bool, int | None]:
    return row["input_tokens"], row["output_tokens"], row["usage_exact"], row["cost_nanousd"]


def ending(row: Mapping[str, Any]) -> tuple[str, int, str | None]:
    return row["outcome"], row["status"], row["error_type"]


# The table, row by row.


@pytest.mark.parametrize("asked", [CALL, STREAM])
def test_a_failure_costs_what_the_vendor_had_reported(rig: Rig, asked: Call) -> None:
    failure = errors.UpstreamFailed("The provider failed.")
    failure.usage = Usage(500, 300)
    assert tokens(rig.ended(asked, ASKED, failure)) == (500, 300, False, 500 * 3000 + 300 * 15000)


def test_an_answered_call_keeps_the_answers_own_numbers(rig: Rig) -> None:
    row = rig.ended(CALL, ASKED, Finished(ANSWER))
    assert ending(row) == ("ok", 200, None)
    assert tokens(row) == (100, 20, True, 600_000)
    assert (row["cached_tokens"], row["cache_write_tokens"], row["reasoning_tokens"]) == (5, 4, 3)
    assert (row["provider"], row["model_served"]) == ("anthropic", "claude-sonnet-4-6-20260101")
    assert row["upstream_request_id"] == "req_upstream"
    assert (row["attempts"], row["latency_ms"], row["ttft_ms"]) == (1, 250, None)


def test_an_answer_counted_by_us_is_not_exact(rig: Rig) -> None:
    row = rig.ended(CALL, ASKED, Finished(replace(ANSWER, usage=Usage(7, 8, exact=False), cost_nanousd=None)))
    assert tokens(row) == (7, 8, False, None)


def test_a_client_that_leaves_after_the_end_was_served(rig: Rig) -> None:
    events = rig.answer(STREAM, ASKED, Started(), Delta("all of it"), Finished(ANSWER), IDLE)
    while type(next(events)) is not Finished:
        pass
    events.close()  # type: ignore[attr-defined]
    assert ending(rig.row()) == ("ok", 200, None)
    assert tokens(rig.row()) == (100, 20, True, 600_000)


def test_a_failure_before_any_upstream_was_asked_is_free(rig: Rig) -> None:
    row = rig.ended(STREAM, errors.ModelNotFound("No such model.", param="model"))
    assert ending(row) == ("refused", 404, "model_not_found")
    assert tokens(row) == (0, 0, True, 0)
    assert (row["provider"], row["model_served"], row["attempts"]) == (None, None, 0)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errors.UpstreamRejected("no", status=422), ("upstream_error", 422, "upstream_rejected")),
        (errors.UpstreamRateLimited("slow down"), ("upstream_error", 429, "upstream_rate_limited")),
        (errors.UpstreamOverloaded("full"), ("upstream_error", 503, "upstream_overloaded")),
        (errors.UpstreamFailed("broken", status=500), ("upstream_error", 500, "upstream_failed")),
        (errors.UpstreamUnreachable("away"), ("upstream_error", 502, "upstream_unreachable")),
        (errors.UpstreamTimeout("408", vendor={"status": 408}), ("timeout", 504, "upstream_timeout")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_status_of_the_vendor_was_not_billed(
    rig: Rig, error: errors.ServiceError, expected: tuple[str, int, str]
) -> None:
    row = rig.ended(CALL, ASKED, ASKED, error)
    assert ending(row) == expected
    assert tokens(row) == (0, 0, True, 0)
    assert (row["provider"], row["model_served"], row["attempts"]) == ("anthropic", "claude-sonnet-4-6", 2)


def test_a_time_out_costs_its_estimated_input(rig: Rig) -> None:
    row = rig.ended(CALL, ASKED, IDLE, errors.UpstreamTimeout("too slow"))
    assert ending(row) == ("timeout", 504, "upstream_timeout")
    assert tokens(row) == (101, 0, False, 303_000)  # 401 bytes


def test_a_malformed_answer_costs_its_estimated_input(rig: Rig) -> None:
    row = rig.ended(CALL, ASKED, errors.UpstreamBroken("not JSON"))
    assert ending(row) == ("upstream_error", 502, "upstream_broken")
    assert tokens(row) == (101, 0, False, 303_000)


@pytest.mark.parametrize("broken", [errors.UpstreamBroken("cut"), errors.UpstreamOverloaded("in the stream")])
def test_a_failure_after_a_stream_has_begun_costs_what_was_sent(rig: Rig, broken: errors.ServiceError) -> None:
    row = rig.ended(STREAM, ASKED, Started(model="claude-x"), Delta("four"), Relay(b"...", 5), broken)
    assert ending(row) == ("upstream_error", 200, broken.code)
    assert tokens(row) == (101, 3, False, 348_000)
    assert row["model_served"] == "claude-x"


def test_a_drained_stream_is_aborted_after_its_status_was_sent(rig: Rig) -> None:
    row = rig.ended(STREAM, ASKED, Started(), Delta("word"), errors.Stopping("restarting"))
    assert ending(row) == ("aborted", 200, "service_stopping")
    assert tokens(row) == (101, 1, False, 318_000)


def test_a_client_that_disconnects_pays_for_what_was_generated(rig: Rig) -> None:
    known = Usage(90, 1, cached_tokens=10)
    events = rig.answer(
        STREAM, ASKED, Started(usage=known, upstream_request_id="req_1"), Relay(b"12345678", 8), Relay(b"9", 1), IDLE
    )
    for _ in range(4):
        next(events)
    events.close()  # type: ignore[attr-defined]
    assert ending(rig.row()) == ("client_closed", 499, "client_closed")
    assert tokens(rig.row()) == (90, 3, False, 315_000)
    assert rig.row()["cached_tokens"] == 10
    assert rig.row()["upstream_request_id"] == "req_1"


def test_text_that_was_generated_and_held_back_is_paid_for_once(rig: Rig) -> None:
    produced = (HeldBack(8), HeldBack(4))
    assert tokens(rig.ended(STREAM, ASKED, *produced, errors.ClientClosed("gone")))[1] == 3
    rig.writer.rows.clear()
    # The text was sent in the end, and then the stream was cut. It is the same text and is not counted twice.
    row = rig.ended(STREAM, ASKED, *produced, Relay(b"123456789012", 12), errors.ClientClosed("gone"))
    assert tokens(row)[1] == 3


def test_a_discarded_answer_is_added_to_what_came_after_it(rig: Rig) -> None:
    first = DiscardedAnswer(Usage(90, 5), 345_000)
    row = rig.ended(STREAM, ASKED, HeldBack(20), first, ASKED, HeldBack(8), errors.ClientClosed("gone"))
    assert tokens(row) == (90 + 101, 5 + 2, False, 345_000 + 101 * 3_000 + 2 * 15_000)
    assert row["attempts"] == 2


def test_a_client_that_disconnects_before_the_first_token_pays_for_its_estimated_input(rig: Rig) -> None:
    row = rig.ended(STREAM, ASKED, IDLE, errors.ClientClosed("gone"))
    assert ending(row) == ("client_closed", 499, "client_closed")
    assert tokens(row) == (101, 0, False, 303_000)


def test_a_client_that_disconnects_before_any_upstream_was_asked_pays_nothing(rig: Rig) -> None:
    assert tokens(rig.ended(STREAM, errors.ClientClosed("gone"))) == (0, 0, True, 0)


@pytest.mark.parametrize("defect", [KeyError("MARKER"), SystemExit("MARKER"), errors.InternalError("a defect")])
def test_any_other_exception_is_an_aborted_call(rig: Rig, defect: BaseException) -> None:
    row = rig.ended(CALL, ASKED, defect)
    assert ending(row) == ("aborted", 500, "internal_error")
    assert tokens(row) == (101, 0, False, 303_000)


def test_a_defect_in_a_stream_does_not_change_the_status_that_was_sent(rig: Rig) -> None:
    assert ending(rig.ended(STREAM, ASKED, Started(), KeyError("MARKER"))) == ("aborted", 200, "internal_error")


def test_events_that_end_without_finished_are_an_aborted_call(rig: Rig) -> None:
    assert ending(rig.ended(CALL, ASKED)) == ("aborted", 500, "internal_error")


def test_a_rejected_request_of_a_known_key_has_a_row(rig: Rig) -> None:
    info = RequestInfo(
        id=CALL.id,
        request_id="r-1",
        route="/v1/chat/completions",
        format="chat",
        client_ip="192.0.2.7",
        started=rig.clock() - 0.125,
        stream=True,
        model="gpt-4o",
        caller=CALL.caller,
    )
    limit = errors.Limit("requests", "key", quota=60, window=60, remaining=0, reset=12)
    with captured_logs() as lines:
        rig.journal.rejected(info, errors.RateLimited("Too many requests.", limit=limit))
    row = rig.row()
    assert ending(row) == ("refused", 429, "rate_limit_exceeded")
    assert tokens(row) == (0, 0, True, 0)
    assert (row["key_id"], row["org"], row["user"], row["model_asked"]) == ("k1234567", "Acme", "ann", "gpt-4o")
    assert (row["latency_ms"], row["stream"], row["created_at"], row["prompt_hmac"]) == (125, True, NOW, None)
    assert lines[0]["limit"] == "requests/key"


def test_a_call_that_the_catalogue_rejects_has_the_hash_of_its_prompt(rig: Rig) -> None:
    info = RequestInfo(CALL.id, "r-1", "/v1/messages", "messages", model="smart", caller=CALL.caller, call=CALL)
    rig.journal.rejected(info, errors.ModelNotFound("The model does not exist.", param="model"))
    assert ending(rig.row()) == ("refused", 404, "model_not_found")
    assert rig.row()["prompt_hmac"] == rig.journal.prompt_hmac(CALL)


# ---- settling: the gateway settles between the end of a call and its row


def test_the_record_that_the_settlement_returned_is_the_row(rig: Rig) -> None:
    with CallRecorder(rig.journal, CALL) as recorder:
        recorder.see(Finished(ANSWER))
        record = recorder.end()
        assert record is not None
        recorder.settled(replace(record, cost_nanousd=7, usage_exact=False))
        recorder.write()
        assert tokens(rig.row()) == (100, 20, False, 7)
    assert len(rig.writer.rows) == 1


def test_a_row_that_another_worker_wrote_is_not_written_but_logged_and_counted(rig: Rig) -> None:
    with captured_logs("INFO") as lines, CallRecorder(rig.journal, CALL) as recorder:
        recorder.see(Finished(ANSWER))
        recorder.end()
        recorder.settled(None)
    assert rig.writer.rows == []
    assert [line["outcome"] for line in lines] == ["ok"]
    assert rig.metric("llm_requests_total") == 1


def test_the_first_end_of_a_call_decides_its_record(rig: Rig) -> None:
    with pytest.raises(KeyError), CallRecorder(rig.journal, CALL) as recorder:
        recorder.end(errors.ClientClosed("gone"))
        raise KeyError("MARKER")
    assert ending(rig.row()) == ("client_closed", 499, "client_closed")


# ---- estimates, times and attempts


def test_an_image_is_not_counted_as_text(rig: Rig) -> None:
    data = "iVBORw0KGgo" * 1000
    body = {**BODY, "messages": [{"role": "user", "content": [{"type": "text", "text": "look"}, {"data": data}]}]}
    row = rig.ended(replace(CALL, body=body, body_bytes=400 + len(data)), ASKED, errors.UpstreamTimeout("slow"))
    assert row["input_tokens"] == 100


def test_an_unknown_price_is_an_unknown_cost(rig: Rig) -> None:
    assert rig.ended(CALL, replace(ASKED, price=None), errors.UpstreamTimeout("slow"))["cost_nanousd"] is None


def test_the_time_to_the_first_token_ends_with_the_first_text(rig: Rig) -> None:
    # 250 ms pass between two events.
    row = rig.ended(STREAM, ASKED, Started(), Relay(b"role", 0), Relay(b"Hi", 2), Relay(b"!", 1), Finished(ANSWER))
    assert row["ttft_ms"] == 750
    assert row["latency_ms"] == 1250


def test_the_last_of_several_targets_is_the_provider_of_the_row(rig: Rig) -> None:
    row = rig.ended(CALL, ASKED, ASKED, Attempt("openai", "gpt-5"), errors.UpstreamFailed("down"))
    assert (row["provider"], row["model_served"], row["attempts"]) == ("openai", "gpt-5", 3)
    assert rig.metric('llm_upstream_attempts_total{provider="anthropic"}') == 2
    assert rig.metric('llm_upstream_attempts_total{provider="openai"}') == 1


def test_latency_starts_when_the_request_arrived(rig: Rig) -> None:
    with CallRecorder(rig.journal, replace(CALL, arrived=rig.clock() - 2)) as recorder:
        recorder.see(Finished(ANSWER))
    assert rig.row()["latency_ms"] == 2000


# ---- what is kept of the text of others


def test_only_keyed_hashes_of_the_prompt_and_the_address_are_kept(rig: Rig) -> None:
    row = rig.ended(CALL, ASKED, Finished(ANSWER))
    prompt = orjson.dumps(BODY["messages"], option=orjson.OPT_SORT_KEYS)
    assert row["prompt_hmac"] == hmac.new(KEY, prompt, hashlib.sha256).hexdigest()[:32]
    assert row["client_ip_hmac"] == hmac.new(KEY, b"192.0.2.7", hashlib.sha256).hexdigest()[:32]


def test_the_order_of_keys_does_not_change_the_hash_of_the_prompt(rig: Rig) -> None:
    other = replace(CALL, body={"messages": [{"content": "q" * 340, "role": "user"}]})
    assert rig.journal.prompt_hmac(other) == rig.journal.prompt_hmac(CALL)


@pytest.mark.parametrize("content", ["\ud800", 2**70, "\x00"])
def test_a_prompt_that_orjson_cannot_write_still_has_its_hash(rig: Rig, content: Any) -> None:
    odd = replace(CALL, body={"messages": [{"role": "user", "content": content}]})
    assert rig.ended(odd, ASKED, Finished(ANSWER))["prompt_hmac"]


@pytest.mark.parametrize("model", ["tell me a secret", "sk-ant-REALKEY12345", "gpt\n4o", "a" * 300])
def test_text_in_place_of_a_model_name_is_not_kept(rig: Rig, model: str) -> None:
    with captured_logs() as lines:
        row = rig.ended(replace(CALL, model=model, request_id=model), errors.ModelNotFound("No such model."))
    assert row["model_asked"] is None
    assert row["request_id"] is None
    assert model not in str(lines)


def test_absurd_token_counts_of_a_vendor_fit_the_columns(rig: Rig) -> None:
    row = rig.ended(CALL, ASKED, Finished(replace(ANSWER, usage=Usage(10**30, -5), cost_nanousd=10**40)))
    assert tokens(row) == (2**63 - 1, 0, True, 2**63 - 1)


def test_no_column_and_no_log_line_holds_content(rig: Rig) -> None:
    body = {"messages": [{"role": "user", "content": "MARKER in the prompt"}]}
    with captured_logs() as lines:
        row = rig.ended(
            replace(STREAM, body=body),
            ASKED,
            Started(),
            Delta("MARKER in the answer"),
            ValueError("MARKER in a defect"),
        )
    assert "MARKER" not in str(row)
    assert "MARKER" not in str(lines)
    assert lines[-1]["exception"]["type"] == "builtins.ValueError"


# ---- the row, the log line and the metrics


def test_the_record_has_exactly_the_columns_of_the_request_log() -> None:
    assert set(COLUMNS) == set(RequestRow.__table__.columns.keys())


def test_a_call_has_one_log_line(rig: Rig) -> None:
    with captured_logs("INFO") as lines:
        rig.ended(CALL, ASKED, Finished(ANSWER))
    assert len(lines) == 1
    line = lines[0]
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "INFO",
        "logger": "llm_service.calls",
        "message": "call",
        "id": CALL.id,
        "request_id": "req-of-the-caller",
        "key_id": "k1234567",
        "org": "Acme",
        "route": "/v1/messages",
        "model": "smart",
        "provider": "anthropic",
        "model_served": "claude-sonnet-4-6-20260101",
        "stream": False,
        "status": 200,
        "outcome": "ok",
        "error_type": None,
        "attempts": 1,
        "input_tokens": 100,
        "output_tokens": 20,
        "cached_tokens": 5,
        "usage_exact": True,
        "cost_nanousd": 600_000,
        "latency_ms": 250,
        "ttft_ms": None,
    }


def test_a_request_without_a_key_is_logged_and_counted_but_has_no_row(rig: Rig) -> None:
    info = RequestInfo(CALL.id, "r-1", "/v1/complete", "simple", client_ip="192.0.2.7")
    with captured_logs() as lines:
        rig.journal.anonymous(info, errors.Unauthenticated("The API key is not valid."))
        rig.journal.rejected(info, errors.Unauthenticated("The API key is not valid."))
    assert rig.writer.rows == []
    assert [(line["key_id"], line["status"], line["outcome"]) for line in lines] == [(None, 401, "refused")] * 2
    assert rig.metric('llm_requests_total{dialect="simple",outcome="refused",provider="none"}') == 2


def test_a_stream_is_open_exactly_while_it_lasts(rig: Rig) -> None:
    events = rig.answer(STREAM, ASKED, Started(), IDLE)
    assert rig.metric("llm_streams_open") == 0
    next(events)
    assert rig.metric("llm_streams_open") == 1
    events.close()  # type: ignore[attr-defined]
    assert rig.metric("llm_streams_open") == 0


def test_rows_that_the_writer_does_not_accept_are_counted(rig: Rig) -> None:
    rig.writer.full = True
    list(rig.answer(CALL, ASKED, Finished(ANSWER)))
    list(rig.answer(CALL, ASKED, Finished(ANSWER)))
    assert rig.metric("llm_log_rows_dropped_total") == 2


# ---- a defect while recording does not reach the caller


def test_a_broken_writer_costs_neither_the_answer_nor_the_line(rig: Rig) -> None:
    rig.writer.broken = True
    with captured_logs() as lines:
        assert len(list(rig.answer(CALL, ASKED, Finished(ANSWER)))) == 2
    assert [line["logger"] for line in lines] == ["llm_service.observability.journal", "llm_service.calls"]
    assert lines[0]["type"] == "builtins.RuntimeError"
    assert "MARKER" not in str(lines)
    assert rig.metric("llm_journal_failures_total") == 1
    assert rig.metric("llm_requests_total") == 1


class BrokenTelemetry(Metrics):
    """Metrics with files on a full disk."""

    def record(self, record: Any) -> None:
        raise OSError(28, "No space left on device")

    attempt = stream_opened = stream_closed = journal_failed = record  # type: ignore[assignment]


def test_broken_metrics_cost_neither_the_answer_nor_the_row(rig: Rig) -> None:
    rig.journal = rig.journal_with(BrokenTelemetry([], ()))
    with captured_logs():
        assert len(list(rig.answer(STREAM, ASKED, Started(), Finished(ANSWER)))) == 3
    assert ending(rig.row()) == ("ok", 200, None)


class BrokenPrice(Rates):
    def cost(self, usage: Usage, at: float | None = None) -> int:
        raise ArithmeticError("MARKER")


def test_a_price_that_cannot_be_computed_is_an_unknown_cost(rig: Rig) -> None:
    asked = replace(ASKED, price=BrokenPrice(Decimal(1), Decimal(1)))
    with captured_logs() as lines:
        row = rig.ended(CALL, asked, errors.UpstreamTimeout("slow"))
    assert row["cost_nanousd"] is None
    assert "MARKER" not in str(lines)


def test_a_format_that_cannot_find_the_prompt_costs_only_the_hash(rig: Rig) -> None:
    with captured_logs():
        row = rig.ended(replace(CALL, body={}), ASKED, Finished(ANSWER))
    assert row["prompt_hmac"] is None
    assert ending(row) == ("ok", 200, None)


def test_a_defect_while_recording_does_not_replace_the_calls_own_exception(rig: Rig) -> None:
    malformed = replace(CALL, client_ip=7)  # type: ignore[arg-type]
    with captured_logs() as lines, pytest.raises(errors.UpstreamFailed):
        list(rig.answer(malformed, ASKED, errors.UpstreamFailed("down")))
    assert lines[0]["type"] == "builtins.AttributeError"
    assert rig.metric("llm_journal_failures_total") == 1
