"""One module is enough for a vendor with the model in the path, a token that changes every second and signed bodies."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.providers.third_vendor import signature_of, token_of
from tests.support.server import Server

MODEL = "publishers/third/grand:1"
ENCODED = "publishers%2Fthird%2Fgrand%3A1"


class Vendor(ThreadingHTTPServer):
    """Accepts a request only with the current token, the model in its path and the signature of its body."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.tokens: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Vendor

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        token = self.headers["Authorization"].removeprefix("Token ")
        now = int(time.time())
        if token not in (token_of(now), token_of(now - 1)):  # the request may have been sent in the second before
            return self._answer(401, {"error": {"message": "expired token", "type": "authentication_error"}})
        if self.path != f"/models/{ENCODED}:generate":
            return self._answer(404, {"error": {"message": "no such model", "type": "not_found"}})
        if self.headers["X-Signature"] != signature_of(self.server.url + self.path, body):
            return self._answer(403, {"error": {"message": "wrong signature", "type": "forbidden"}})
        self.server.tokens.append(token)
        request = json.loads(body)
        message = {"role": "assistant", "content": f"You said {request['messages'][-1]['content']}"}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
        self._answer(
            200, {"id": "c", "object": "chat.completion", "model": "grand", "choices": [choice], "usage": usage}
        )

    def _answer(self, status: int, answer: dict[str, Any]) -> None:
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing, so that the output of the tests stays readable."""


@pytest.fixture
def vendor() -> Iterator[Vendor]:
    server = Vendor()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def service(vendor: Vendor, tmp_path: Path) -> Iterator[Server]:
    path = tmp_path / "models.toml"
    path.write_text(
        f"""
        [providers.third]
        kind = "tests.providers.third_vendor"
        base_url = "{vendor.url}"
        keyless = true
        """
    )
    with Server(tmp_path / "service", {"LLM_SERVICE_MODELS": str(path), "WEB_CONCURRENCY": "1"}) as server:
        yield server


def test_one_module_serves_a_model_in_the_path_an_expiring_token_and_a_signed_body(
    service: Server, vendor: Vendor
) -> None:
    client: openai.OpenAI = service.openai()
    for number in range(4):
        answer = client.chat.completions.create(
            model=f"third/{MODEL}", messages=[{"role": "user", "content": f"number {number}"}]
        )
        assert answer.choices[0].message.content == f"You said number {number}"
        time.sleep(0.7)
    assert len(set(vendor.tokens)) >= 2, "the token did not change during the test"
    simple = service.http().post("/v1/complete", json={"model": f"third/{MODEL}", "prompt": "hello"})
    assert simple.json()["text"] == "You said hello"
    counted = service.http().post(
        "/v1/messages/count_tokens",
        json={"model": f"third/{MODEL}", "messages": [{"role": "user", "content": "hello"}]},
    )
    assert counted.status_code == 400, "a call that nobody pays for must not generate"
