"""One message on the wire: what is sent, how it is signed, and what counts as taken."""

from __future__ import annotations

import base64
import re
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from llm_service.billing.webhook import Webhook, headers, payload
from llm_service.core.cancellation import Cancel
from llm_service.core.errors import Stopping
from llm_service.core.target import Timeouts
from llm_service.store.alerts import Alert
from tests.support.processes import free_port
from tests.support.rawserver import close, raw_server, reset

NOW = datetime(2026, 11, 21, 14, 2, 11, 480_000, tzinfo=UTC)
KEY = b"a key of some length"
ALERT = Alert(
    scope_kind="org",
    scope_name="acme",
    model="",
    period_id="month:2026-11",
    amount_nanousd=250_000_000_000,
    threshold=80,
    id="01k0a3v6m9d2x8q4z7c5r1t0ge",
    period="month",
    resets_at=datetime(2026, 12, 1, tzinfo=UTC),
    spent_nanousd=200_410_000_000,
    created_at=NOW,
    attempts=1,
)
QUICK = Timeouts(connect=0.5, first_byte=0.5, idle=0.5, total=0.5)
TAKEN = b"HTTP/1.1 204 No Content\r\n\r\n"
DOCUMENT = (Path(__file__).parents[2] / "docs/webhooks.md").read_text(encoding="utf-8")


def example(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", DOCUMENT, flags=re.DOTALL)
    return str(found)


def is_genuine(*given: Any) -> bool:
    """The documented verification."""
    names: dict[str, Any] = {}
    exec(compile(example("python"), "docs/webhooks.md", "exec"), names)
    genuine: bool = names["is_genuine"](*given)
    return genuine


def parsed(request: bytes) -> tuple[str, dict[str, str], bytes]:
    head, _, body = request.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    return first, {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}, body


def test_the_signature_is_that_of_standard_webhooks() -> None:
    """The example of its documentation (docs.svix.com/receiving/verifying-payloads/how-manual)."""
    key = base64.b64decode("plJ3nmyCDGBKInavdOK15jsl")
    at = datetime.fromtimestamp(1731705121, UTC)
    made = headers(key, "msg_loFOjxBNrRLzqYUf", at, b'{"event_type":"ping","data":{"success":true}}')
    assert made["webhook-signature"] == "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0="


def test_the_message_is_the_documented_one() -> None:
    assert payload(ALERT) == orjson.loads(example("json"))


def test_the_documented_code_accepts_what_arrives_and_nothing_else() -> None:
    with raw_server([TAKEN, close]) as server:
        url = f"http://127.0.0.1:{server.port}/hook/a%20b?token=x&y=%2F"
        assert Webhook(url, KEY).send(ALERT, datetime.now(UTC), Cancel()) is None
    ((first, sent, body),) = map(parsed, server.requests)
    assert first == "POST /hook/a%20b?token=x&y=%2F HTTP/1.1"
    assert sent["host"] == f"127.0.0.1:{server.port}"
    assert sent["content-type"] == "application/json"
    assert sent["webhook-id"] == ALERT.id
    assert orjson.loads(body) == payload(ALERT)
    secret, coded = KEY.decode(), "whsec_" + base64.b64encode(KEY).decode()
    assert is_genuine(secret, sent, body)
    assert is_genuine(coded, sent, body)
    assert not is_genuine("another key of some length", sent, body)
    assert not is_genuine(secret, sent, body + b" ")
    assert not is_genuine(secret, sent | {"webhook-id": "another"}, body)
    assert not is_genuine(secret, sent | {"webhook-timestamp": str(int(time.time()) - 301)}, body)


def test_the_scope_of_the_whole_service_has_no_name() -> None:
    with raw_server([TAKEN, close]) as server:
        alert = Alert("service", "", "openai/*", "total", 5, 100, "x" * 26, "total", None, 5, NOW, 1)
        assert Webhook(f"http://127.0.0.1:{server.port}", KEY).send(alert, NOW, Cancel()) is None
    ((first, _, body),) = map(parsed, server.requests)
    assert first == "POST / HTTP/1.1"
    budget = orjson.loads(body)["data"]["budget"]
    assert (budget["name"], budget["model"], budget["resets_at"]) == (None, "openai/*", None)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"], None),
        ([b"HTTP/1.1 103 Early Hints\r\n\r\n", b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"], None),
        ([b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\n\r\n", close], "302"),
        ([b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n"], "410"),
        ([b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 9\r\n\r\n", close], "503"),
        ([close], "unreachable"),
        ([reset], "unreachable"),
        ([b"HTTP/1.1 2", close], "broken"),
        ([b"SSH-2.0-OpenSSH_9.9\r\n", close], "broken"),
        ([2.0], "first_byte_timeout"),
        ([b"HTTP/1.1 200 OK\r\n", *(piece for _ in range(20) for piece in (b"X: y\r\n", 0.1))], "first_byte_timeout"),
    ],
)
def test_only_a_2xx_in_time_counts_as_delivered(answer: list[Any], reason: str | None) -> None:
    began = time.monotonic()
    with raw_server(answer) as server:
        assert Webhook(f"http://127.0.0.1:{server.port}/", KEY, QUICK).send(ALERT, NOW, Cancel()) == reason
    assert time.monotonic() - began < 1.5
    assert server.connections == 1


@pytest.mark.parametrize("host", ["127.0.0.1:{}", "no-such-host.invalid:{}", "{}.example".format("x" * 70)])
def test_an_unreachable_receiver_is_a_reason_and_not_an_exception(host: str) -> None:
    reason = Webhook(f"http://{host.format(free_port())}/", KEY, QUICK).send(ALERT, NOW, Cancel())
    assert reason in ("unreachable", "connect_timeout", "UnicodeError")


def test_an_attempt_can_be_cancelled() -> None:
    with raw_server([30.0]) as server:
        cancel = Cancel()
        threading.Timer(0.3, lambda: cancel.set(Stopping("over"))).start()
        began = time.monotonic()
        assert Webhook(f"http://127.0.0.1:{server.port}/", KEY).send(ALERT, NOW, cancel) == "service_stopping"
        assert time.monotonic() - began < 2


def test_each_attempt_has_its_own_signature_and_the_same_body() -> None:
    with raw_server([TAKEN, close], [TAKEN, close]) as server:
        webhook = Webhook(f"http://127.0.0.1:{server.port}/", KEY)
        for at in (NOW, NOW + timedelta(hours=1)):
            webhook.send(ALERT, at, Cancel())
    (_, first, body), (_, second, again) = map(parsed, server.requests)
    assert body == again
    assert first["webhook-id"] == second["webhook-id"]
    assert int(second["webhook-timestamp"]) - int(first["webhook-timestamp"]) == 3600
    assert first["webhook-signature"] != second["webhook-signature"]


def test_neither_the_address_nor_the_key_is_in_repr() -> None:
    assert "hooks" not in repr(Webhook("https://hooks.example.com/x", b"marker-7f3a"))
    assert "marker-7f3a" not in repr(Webhook("https://hooks.example.com/x", b"marker-7f3a"))
