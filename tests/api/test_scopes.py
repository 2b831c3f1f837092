"""The networks from which a key may be used. Only the trusted proxy says what the caller's address is."""

from __future__ import annotations

import anthropic
import openai
import pytest

from tests.api.budget_helpers import ANTHROPIC, OPENAI, body
from tests.api.error_shapes import ROUTES, read_error, shape_of
from tests.support.server import Server
from tests.upstream import Upstream

NETWORKS = ("203.0.113.0/24", "2001:db8::/32")


@pytest.mark.parametrize("path", ROUTES)
def test_a_key_used_from_another_network_is_rejected_with_a_row_that_names_the_key(
    any_priced: Server, upstream: Upstream, path: str
) -> None:
    issued = any_priced.create_key(networks=NETWORKS)
    reply = any_priced.http(issued.text).post(path, json=body(), headers={"X-Forwarded-For": "203.0.114.1"})
    assert reply.status_code == 403
    code, message, _ = read_error(shape_of(path), reply)
    assert code == "network_not_allowed" and "203.0" not in message
    row = any_priced.row(reply.headers["x-request-id"])
    assert (row["key_id"], row["outcome"], row["error_type"]) == (issued.stored.id, "refused", "network_not_allowed")
    assert upstream.requests == []


@pytest.mark.parametrize(
    ("forwarded_for", "status"),
    [
        ("203.0.113.9", 200),
        ("2001:db8::7", 200),
        ("::ffff:203.0.113.9", 200),
        ("203.0.113.9:51234", 200),
        ("[2001:db8::7]:443", 200),
        ("[2001:db8::7]", 200),
        ("198.51.100.1:80, 203.0.113.9:51234", 200),
        ("203.0.113.9:51234:1", 403),
        ("198.51.100.1, 203.0.113.9", 200),
        ("203.0.113.9, 198.51.100.1", 403),  # the first address was written by the client, not by the proxy
        ("2001:db9::7", 403),
        ("not an address", 403),
        ("", 403),  # the address of the connection itself: 127.0.0.1
    ],
)
def test_the_last_forwarded_address_is_the_caller_s_address(priced: Server, forwarded_for: str, status: int) -> None:
    key = priced.create_key(networks=NETWORKS).text
    headers = {"X-Forwarded-For": forwarded_for} if forwarded_for else {}
    assert priced.http(key).post("/v1/complete", json=body(), headers=headers).status_code == status
    assert priced.http(key).get("/v1/key", headers=headers).status_code == status


def test_the_official_clients_raise_their_permission_error(priced: Server) -> None:
    key = priced.create_key(networks=NETWORKS).text
    with pytest.raises(openai.PermissionDeniedError):
        priced.openai(key).chat.completions.create(model=OPENAI, messages=[{"role": "user", "content": "Hi"}])
    with pytest.raises(anthropic.PermissionDeniedError):
        priced.anthropic(key).messages.create(
            model=ANTHROPIC, max_tokens=5, messages=[{"role": "user", "content": "Hi"}]
        )


def test_without_a_trusted_proxy_no_header_changes_the_caller_s_address(service: Server) -> None:
    key = service.create_key(networks=NETWORKS).text
    for name in ("X-Forwarded-For", "Forwarded", "X-Real-IP"):
        reply = service.http(key).post("/v1/complete", json=body("echo"), headers={name: "203.0.113.9"})
        assert reply.status_code == 403
    local = service.create_key(networks=("127.0.0.0/8",)).text
    assert service.http(local).post("/v1/complete", json=body("echo")).status_code == 200
