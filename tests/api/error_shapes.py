"""The error shapes of the three formats, and bodies that every route answers."""

from __future__ import annotations

import json
from typing import Any

ROUTES = ["/v1/complete", "/v1/stream", "/v1/chat/completions", "/v1/messages"]
_SHAPES = {"/v1/chat/completions": "chat", "/v1/messages": "messages", "/v1/models": "chat"}


def shape_of(path: str) -> str:
    return _SHAPES.get(path, "simple")


def valid_body(**more: Any) -> dict[str, Any]:
    """A body that every route answers. A field with the value ``...`` is left out."""
    body = {"model": "echo", "max_tokens": 5, "messages": [{"role": "user", "content": "Hi"}], **more}
    return {name: value for name, value in body.items() if value is not ...}


def read_error(shape: str, reply: Any) -> tuple[str, str, str | None]:
    """(code, message, field) of an error reply. Checks that the reply has the shape of the format.

    ``reply`` comes from ``Raw`` or from httpx2.
    """
    body = json.loads(reply.body if hasattr(reply, "body") else reply.content)
    status = reply.status if hasattr(reply, "status") else reply.status_code
    request_id = reply.headers["x-request-id"]
    if shape == "chat":
        assert reply.headers["content-type"] == "application/json"
        assert list(body) == ["error"]
        assert sorted(body["error"]) == ["code", "message", "param", "type"]
        return body["error"]["code"], body["error"]["message"], body["error"]["param"]
    if shape == "messages":
        assert reply.headers["content-type"] == "application/json"
        assert sorted(body) == ["error", "request_id", "type"]
        assert body["type"] == "error"
        assert body["request_id"] == request_id == reply.headers["request-id"]
        details = body["error"]["details"]
        return details["error_code"], body["error"]["message"], details.get("param")
    assert reply.headers["content-type"] == "application/problem+json"
    assert (body["status"], body["request_id"]) == (status, request_id)
    assert body["type"] == f"urn:llm-service:error:{body['code']}"
    return body["code"], body["detail"], body.get("param")
