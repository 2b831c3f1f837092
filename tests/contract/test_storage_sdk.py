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


# ---- second turns of clients that leave storage to its default


REASONS = "openai/gpt-5-mini"
LOOK: Any = [{"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}, "strict": False}]


def ask(client: openai.OpenAI, stream: bool, items: list[Any]) -> Any:
    if not stream:
        return client.responses.create(model=REASONS, input=items, tools=LOOK)
    with client.responses.stream(model=REASONS, input=items, tools=LOOK) as events:
        return events.get_final_response()


def results_of(reply: Any) -> list[Any]:
    calls = [item.call_id for item in reply.output if item.type == "function_call"]
    return [{"type": "function_call_output", "call_id": call_id, "output": "x"} for call_id in calls]


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_sends_its_items_back_goes_on_without_storage(
    openai_client: openai.OpenAI, upstream: Upstream, stream: bool
) -> None:
    call = {"name": "look", "input": {}}
    upstream.script(
        Step(thinking="Hm", text="Wait", tools=[call, call]), Step(thinking="So", tools=[call]), Step(text="Done")
    )
    items: list[Any] = [{"role": "user", "content": "Go"}]
    for _ in range(2):
        reply = ask(openai_client, stream, items)
        items += [item.to_dict() for item in reply.output] + results_of(reply)
    assert ask(openai_client, stream, items).output_text == "Done"
    assert [item["type"] for item in upstream.last.body["input"] if item.get("type") == "reasoning"] == [
        "reasoning"
    ] * 2


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_refers_to_its_items_goes_on_without_storage(
    openai_client: openai.OpenAI, upstream: Upstream, stream: bool
) -> None:
    upstream.script(Step(thinking="Hm", text="Wait", tools=[{"name": "look", "input": {}}]), Step(text="Done"))
    items: list[Any] = [{"role": "user", "content": "Go"}]
    first = ask(openai_client, stream, items)
    for item in first.output:  # as the AI SDK does it
        called = item.type == "function_call"
        items.append(item.to_dict() if called else {"type": "item_reference", "id": item.id})
    items += results_of(first)
    raw: Any = openai_client.responses.with_raw_response.create(model=REASONS, input=items, tools=LOOK)
    assert raw.parse().output_text == "Done"
    assert raw.headers["x-dropped-parameters"] == "input[].item_reference"
    counted = openai_client.responses.input_tokens.count(model=REASONS, input=items, tools=LOOK)
    assert counted.input_tokens > 0
    assert [item.get("type") for item in upstream.last.body["input"]] == [None, "function_call", "function_call_output"]


def test_references_to_what_was_kept_reach_the_vendor(shared_service: MakeService, upstream: Upstream) -> None:
    service = shared_service(LLM_SERVICE_UPSTREAM_STORAGE="allow")
    upstream.script(Step(thinking="Hm", text="Wait"), Step(text="Done"))
    client = service.openai()
    items: list[Any] = [{"role": "user", "content": "Go"}]
    first = client.responses.create(model=REASONS, input=items, store=True)
    items += [{"type": "item_reference", "id": item.id} for item in first.output]
    items.append({"role": "user", "content": "And?"})
    assert client.responses.create(model=REASONS, input=items, store=True).output_text == "Done"
    assert [item.get("type") for item in upstream.last.body["input"]].count("item_reference") == 2
