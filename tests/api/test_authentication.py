"""Authentication: both headers, every way in which a key can be wrong, and changes of a key while it is in use."""

from __future__ import annotations

import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import anthropic
import openai
import pytest

from llm_service.api import schemas
from llm_service.store import keys
from tests.api.budget_helpers import store_context
from tests.api.conftest import QUICK_KEYS
from tests.api.error_shapes import ROUTES, read_error, shape_of, valid_body
from tests.support.raw import Raw, Reply
from tests.support.server import HIGH_RPM, Server
from tests.support.wait import wait_until
from tests.upstream import Upstream


def complete(raw: Raw, path: str = "/v1/complete", **headers: str) -> Reply:
    raw.request("POST", path, valid_body(), None, headers)
    return raw.read_reply()


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


# ---- accepted keys


@pytest.mark.parametrize("path", ROUTES)
def test_every_route_accepts_a_key_in_both_headers(service: Server, path: str) -> None:
    key = service.key
    forms = [
        {"Authorization": f"Bearer {key}"},
        {"authorization": f"bearer {key}"},
        {"AUTHORIZATION": f"BEARER   {key}  "},
        {"X-API-Key": key},
        {"x-api-key": f" {key} "},
        {"Authorization": "Basic dXNlcjpwYXNz", "X-API-Key": key},  # a proxy's own credentials beside our key
        {"Authorization": "", "X-API-Key": key},
    ]
    with service.raw() as raw:
        assert [complete(raw, path, **form).status for form in forms] == [200] * len(forms)


@pytest.mark.parametrize("path", ["/v1/key", "/v1/usage", "/v1/models", "/v1/models/echo/echo"])
def test_account_and_model_routes_need_a_key_too(service: Server, path: str) -> None:
    assert service.http(key="").get(path).status_code == 401
    assert service.http(key="").get(path, headers={"X-API-Key": service.key}).status_code == 200


def test_keys_in_the_environment_work_without_a_database_row(strict: Server) -> None:
    for key in QUICK_KEYS:
        headers = [(b"Authorization", f"Bearer {key}".encode())]
        reply = strict.http(key="").post("/v1/complete", json=valid_body(), headers=headers)
        assert reply.status_code == 200
        account = strict.http(key="").get("/v1/key", headers=headers).json()
        schemas.Key().load(account)
        row = strict.row(reply.headers["x-request-id"])
        assert row["key_id"] == account["id"] and account["id"].startswith("env-")
        assert account["expires_at"] is None
    assert len({row["key_id"] for row in strict.rows(outcome="ok")}) >= len(QUICK_KEYS)


# ---- rejected keys


WRONG_KEYS = {
    "no key": ({}, "missing_api_key"),
    "empty": ({"Authorization": "Bearer ", "X-API-Key": ""}, "missing_api_key"),
    "another scheme": ({"Authorization": "Basic dXNlcjpwYXNz"}, "missing_api_key"),
    "no scheme": ({"Authorization": "lsk_23456789_x"}, "missing_api_key"),
    "malformed": (bearer("nonsense"), "invalid_api_key"),
    "a vendor's": (bearer("sk-ant-api03-abcdef"), "invalid_api_key"),
    "not ASCII": (bearer("lsk_schl\xfcssel"), "invalid_api_key"),
    "not UTF-8": (bearer("\xff\xfe\x80"), "invalid_api_key"),
    "not ASCII, but of the right length": (bearer("lsk_23456789_" + "\xe9" * 43), "invalid_api_key"),
    "very long": (bearer("lsk_23456789_" + "x" * 8000), "invalid_api_key"),
    "spaces inside": (bearer("lsk_23456789_ " + "x" * 42), "invalid_api_key"),
    "unknown": (bearer("lsk_23456789_" + "x" * 43), "invalid_api_key"),
    "wrong in both headers": ({"Authorization": "Bearer wrong", "X-API-Key": "wrong"}, "invalid_api_key"),
}


@pytest.mark.parametrize("path", [*ROUTES, "/v1/models"])
def test_an_invalid_key_is_rejected_without_a_row(service: Server, path: str) -> None:
    before = len(service.rows(status=401, key_id=None))
    with service.raw() as raw:
        for name, (headers, code) in WRONG_KEYS.items():
            raw.request("GET" if path == "/v1/models" else "POST", path, None, None, headers)
            reply = raw.read_reply()
            assert reply.status == 401, name
            assert read_error(shape_of(path), reply)[0] == code, name
            assert reply.headers["www-authenticate"] == "Bearer"
    assert len(service.rows(status=401, key_id=None)) == before == 0


def test_a_key_with_one_wrong_character_is_rejected(service: Server) -> None:
    key = service.create_key().text
    with service.raw() as raw:
        for position in (4, 11, 13, 30, -1):
            wrong = list(key)
            wrong[position] = "3" if wrong[position] == "2" else "2"
            assert complete(raw, **bearer("".join(wrong))).status == 401
        assert complete(raw, **bearer(key)).status == 200


def test_the_official_clients_raise_their_authentication_error(service: Server) -> None:
    with pytest.raises(openai.AuthenticationError) as openai_error:
        service.openai("wrong").models.list()
    assert (openai_error.value.code, openai_error.value.type) == ("invalid_api_key", "invalid_request_error")
    with pytest.raises(anthropic.AuthenticationError) as anthropic_error:
        service.anthropic("wrong").models.list()
    assert anthropic_error.value.type == "authentication_error"


@pytest.mark.parametrize("path", ROUTES)
def test_a_model_that_the_key_may_not_use_is_rejected_with_403(service: Server, upstream: Upstream, path: str) -> None:
    issued = service.create_key(models=["openai/gpt-4o*", "echo"], rpm=HIGH_RPM)
    with service.raw() as raw:
        for model in ("echo", "gpt-4o-mini", "openai/gpt-4o"):
            raw.request("POST", path, valid_body(model=model), issued.text)
            assert raw.read_reply().status == 200, model
        for model in ("openai/gpt-5", "claude-haiku-4-5", "fast", "anthropic/claude-haiku-4-5"):
            raw.request("POST", path, valid_body(model=model), issued.text)
            reply = raw.read_reply()
            assert reply.status == 403, model
            code, _, param = read_error(shape_of(path), reply)
            assert (code, param) == ("model_not_allowed", "model")
    assert len(upstream.requests) == 2
    rejected = service.wait_rows(4, key_id=issued.stored.id, outcome="refused")
    assert {row["error_type"] for row in rejected} == {"model_not_allowed"}


# ---- changes of a key while it is in use


def test_every_worker_rejects_a_revoked_key_within_two_seconds(service: Server) -> None:
    issued = service.create_key(rpm=HIGH_RPM)
    with ExitStack() as stack:
        connections = [stack.enter_context(service.raw()) for _ in range(24)]  # enough for both workers
        assert {complete(raw, **bearer(issued.text)).status for raw in connections} == {200}
        with store_context(service):
            keys.revoke(issued.stored.id)
        revoked_at = time.monotonic()
        rejected: Reply | None = None
        for raw in connections:
            reply = complete(raw, **bearer(issued.text))
            while reply.status == 200:
                assert time.monotonic() - revoked_at < 2
                time.sleep(0.05)
                reply = complete(raw, **bearer(issued.text))
            rejected = reply
    assert rejected is not None
    assert read_error("simple", rejected)[0] == "revoked_api_key"
    row = service.row(rejected.headers["x-request-id"])
    assert (row["key_id"], row["status"], row["error_type"]) == (issued.stored.id, 401, "revoked_api_key")


def test_a_rotated_key_works_until_its_grace_period_ends(service: Server) -> None:
    issued = service.create_key(rpm=HIGH_RPM)
    with service.raw() as raw, store_context(service):
        assert complete(raw, **bearer(issued.text)).status == 200
        new = keys.rotate(issued.stored.id, service.settings.hmac_key, timedelta(seconds=0.6))
        began = time.monotonic()
        assert complete(raw, **bearer(new.text)).status == 200
        assert complete(raw, **bearer(issued.text)).status == 200
        wait_until(lambda: complete(raw, **bearer(issued.text)).status == 401, 4, "the grace ends", 0.05)
        assert time.monotonic() - began > 0.5
        assert complete(raw, **bearer(new.text)).status == 200


def test_a_key_expires_at_the_exact_time(service: Server) -> None:
    until = datetime.now(UTC) + timedelta(seconds=0.5)
    issued = service.create_key(rpm=HIGH_RPM, expires_at=until)
    with service.raw() as raw:
        assert complete(raw, **bearer(issued.text)).status == 200
        time.sleep(max(0.0, (until - datetime.now(UTC)).total_seconds()))
        reply = complete(raw, **bearer(issued.text))
    assert (reply.status, read_error("simple", reply)[0]) == (401, "expired_api_key")
    row = service.row(reply.headers["x-request-id"])
    assert (row["key_id"], row["error_type"]) == (issued.stored.id, "expired_api_key")


def test_a_changed_list_of_models_takes_effect_within_two_seconds(service: Server) -> None:
    issued = service.create_key(models=["openai/*"], rpm=HIGH_RPM)
    with service.raw() as raw, store_context(service):
        assert complete(raw, **bearer(issued.text)).status == 403
        keys.change(issued.stored.id, {"models": ["echo"]})
        wait_until(lambda: complete(raw, **bearer(issued.text)).status == 200, 2, "the new list applies", 0.05)
