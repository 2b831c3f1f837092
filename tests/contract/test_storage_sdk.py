"""What the vendor may store: nothing, unless the request asks for it and the key or the operator allows it."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.conftest import MakeService
from tests.contract.cases import CLAUDE, GPT
from tests.upstream import Step, Upstream

STORING: list[dict[str, Any]] = [
    {"store": True},
    {"background": True},
    {"previous_response_id": "resp_1"},
    {"conversation": "conv_1"},
]


@pytest.mark.parametrize("model", [GPT, CLAUDE])
@pytest.mark.parametrize("extra", STORING, ids=lambda extra: next(iter(extra)))
def test_storage_is_rejected_by_its_field(
    openai_client: openai.OpenAI, upstream: Upstream, model: str, extra: dict[str, Any]
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        openai_client.responses.create(model=model, input="Hi", **extra)
    assert caught.value.param == next(iter(extra))
    assert caught.value.code == ("storage_not_allowed" if model == GPT else "unsupported_parameter")
    assert upstream.requests == []


def test_storage_is_passed_on_where_the_operator_allows_it(shared_service: MakeService, upstream: Upstream) -> None:
    client = shared_service(LLM_SERVICE_UPSTREAM_STORAGE="allow").openai()
    for extra in STORING:
        upstream.script(Step(lenient=True))
        client.responses.create(model=GPT, input="Hi", **extra)
        assert {**extra, "store": "store" in extra}.items() <= upstream.last.body.items()
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model=CLAUDE, input="Hi", store=True)
    assert caught.value.param == "store"


@pytest.mark.parametrize("service_says", ["refuse", "allow"])
def test_the_key_s_setting_for_storage_wins_over_the_service_s(
    shared_service: MakeService, upstream: Upstream, service_says: str
) -> None:
    service = shared_service(LLM_SERVICE_UPSTREAM_STORAGE=service_says)
    allowed = service.openai(service.create_key("keeper", rpm=1000, storage=True).text)
    forbidden = service.openai(service.create_key("private", rpm=1000, storage=False).text)
    for extra in STORING:
        upstream.script(Step(lenient=True))
        allowed.responses.create(model=GPT, input="Hi", **extra)
        assert {**extra, "store": "store" in extra}.items() <= upstream.last.body.items()
    requests_before = len(upstream.requests)
    for extra in STORING:
        with pytest.raises(openai.BadRequestError, match="keys update --storage allow") as caught:
            forbidden.responses.create(model=GPT, input="Hi", **extra)
        assert (caught.value.param, caught.value.code) == (next(iter(extra)), "storage_not_allowed")
    assert len(upstream.requests) == requests_before
    upstream.script(Step(text="Hello"))
    assert forbidden.responses.create(model=GPT, input="Hi").output_text == "Hello"
    assert upstream.last.body["store"] is False


@pytest.mark.parametrize("stream", [False, True])
def test_a_chat_is_stored_by_the_same_rules(shared_service: MakeService, upstream: Upstream, stream: bool) -> None:
    service = shared_service()
    allowed = service.openai(service.create_key("keeper", rpm=1000, storage=True).text)
    chat: Any = {"model": GPT, "messages": [{"role": "user", "content": "Hi"}], "stream": stream}
    with pytest.raises(openai.BadRequestError, match="LLM_SERVICE_UPSTREAM_STORAGE") as caught:
        service.openai().chat.completions.create(**chat, store=True)
    assert (caught.value.param, caught.value.code) == ("store", "storage_not_allowed")
    assert upstream.requests == []
    for client, store in ((allowed, True), (allowed, False), (service.openai(), False), (service.openai(), None)):
        upstream.script(Step(text="Hello"))
        fields: Any = {} if store is None else {"store": store}
        reply = client.chat.completions.create(**chat, **fields)
        if stream:
            assert list(reply)
        assert upstream.last.body["store"] is (store is True)


PROXY = """
[tiers.default]
[providers.proxy]
kind = "openai"
base_url = "{url}"
key_env = "OPENAI_API_KEY"
responses = true
storage = true
{store}
"""


@pytest.mark.parametrize(
    ("store", "chat", "responses"),
    [("", None, False), ("store = true", False, False), ("store = false", None, None)],
)
@pytest.mark.parametrize("client", ["openai", "anthropic"])
def test_a_provider_s_row_says_whether_requests_carry_store(
    shared_service: MakeService, upstream: Upstream, client: str, store: str, chat: Any, responses: Any
) -> None:
    service = shared_service(models=PROXY.format(url=upstream.openai_url, store=store))
    if client == "anthropic":  # this one crosses
        said: list[Any] = [{"role": "user", "content": "Hi"}]
        service.anthropic().messages.create(model="proxy/gpt-4o", max_tokens=20, messages=said)
        assert (upstream.last.path, upstream.last.body.get("store")) == ("/v1/chat/completions", chat)
        return
    gpt = service.openai()
    gpt.chat.completions.create(model="proxy/gpt-4o", messages=[{"role": "user", "content": "Hi"}])
    assert upstream.last.body.get("store") is chat
    gpt.responses.create(model="proxy/gpt-4o", input="Hi")
    assert upstream.last.body.get("store") is responses
    # What the client says itself reaches a server that may know the field.
    gpt.chat.completions.create(model="proxy/gpt-4o", messages=[{"role": "user", "content": "Hi"}], store=False)
    assert ("store" in upstream.last.body) is (store != "store = false")
    gpt.responses.create(model="proxy/gpt-4o", input="Hi", store=True)
    assert upstream.last.body["store"] is True
