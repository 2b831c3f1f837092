"""What agents send, as ``tests.clients.capture`` recorded it, with each kind of target behind the service.

So these requests are tested where an agent cannot be installed, too. ``docs/agents.md`` lists what is dropped.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.clients.targets import GPT, REASONING, TARGETS
from tests.support.server import ROOT, Server
from tests.support.sse import Frame, read_sse
from tests.upstream import Step, Upstream

FIXTURES = sorted((ROOT / "tests/fixtures/agents").glob("*.json"))
REQUESTS = [
    pytest.param(path.stem, request, id=f"{path.stem}-{number}")
    for path in FIXTURES
    for number, request in enumerate(json.loads(path.read_text()), 1)
]
TEXT = "Good morning to you"
# What a client asks of a model of its own vendor goes there as it is, and the vendor rejects these by itself.
REJECTED = {
    ("codex", GPT): "reasoning.effort",
    ("codex-unknown-model", GPT): "content is not supported with this model",  # encrypted thoughts
    ("opencode-responses", GPT): "content is not supported with this model",
}
DOCUMENT = (ROOT / "docs/agents.md").read_text()


def text_of(frames: list[Frame]) -> str:
    """The text of a stream in any of the three formats. Fails if the stream has no proper end."""
    last = frames[-1]
    assert last.done or last.event in ("message_stop", "response.completed"), last
    text = ""
    for frame in frames:
        if frame.data is None or frame.done:
            continue
        event = frame.json
        if "choices" in event:
            text += "".join(choice["delta"].get("content") or "" for choice in event["choices"])
        elif event["type"] == "content_block_delta":
            text += event["delta"].get("text", "")
        elif event["type"] == "response.output_text.delta":
            text += event["delta"]
    return text


@pytest.mark.parametrize("model", TARGETS)
@pytest.mark.parametrize(("name", "request_"), REQUESTS)
def test_a_request_of_an_agent_is_answered_by_every_kind_of_target(
    gateway: Server, upstream: Upstream, name: str, request_: dict[str, Any], model: str
) -> None:
    upstream.serve(REASONING)
    upstream.script(Step(text=TEXT, thinking="Hm."))
    body = {**request_["body"], "model": model}
    with gateway.http().stream("POST", request_["path"], json=body, headers=request_["headers"]) as response:
        if (name, model) in REJECTED:
            assert response.status_code == 400 and REJECTED[name, model].encode() in response.read()
            return
        assert response.status_code == 200, response.read()
        frames = list(read_sse(response))
        dropped = response.headers.get("x-dropped-parameters", "")
    assert text_of(frames) == TEXT
    assert not [field for field in dropped.split(", ") if field and f"`{field}`" not in DOCUMENT], dropped
