"""The scripted vendor's ``/v1/responses`` works with the official SDK and rejects what the real vendor rejects."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.upstream import Step, Upstream
from tests.upstream.conftest import GPT

TOOLS: Any = [{"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}, "strict": False}]


def test_an_answer_is_typed_and_its_usage_is_in_the_ledger(vendor: Upstream, gpt: openai.OpenAI) -> None:
    vendor.script(Step(text="Hi there", cached_tokens=3))
    response = gpt.responses.create(model=GPT, input="Hello")
    assert (response.output_text, response.status) == ("Hi there", "completed")
    assert response.model_extra is not None and response.model_extra["store"] is True
    assert response.usage is not None and vendor.last.billed is not None
    assert response.usage.input_tokens == vendor.last.billed.input_tokens
    assert response.usage.input_tokens_details.cached_tokens == 3


def test_a_stream_has_numbered_events_and_every_kind_of_item(vendor: Upstream, gpt: openai.OpenAI) -> None:
    vendor.script(Step(thinking="Let me see", text="It is so", tools=[{"name": "look", "input": {"q": 1}}]))
    with gpt.responses.stream(model="gpt-5", input="Hello", tools=TOOLS) as stream:
        numbers = [event.sequence_number for event in stream]
        final = stream.get_final_response()
    assert numbers == list(range(len(numbers)))
    assert [item.type for item in final.output] == ["reasoning", "message", "function_call"]
    assert final.output_text == "It is so"


def test_an_answer_cut_by_the_limit_is_incomplete(vendor: Upstream, gpt: openai.OpenAI) -> None:
    vendor.script(Step(words=50))
    response = gpt.responses.create(model=GPT, input="Hello", max_output_tokens=16)
    assert response.incomplete_details is not None
    assert (response.status, response.incomplete_details.reason) == ("incomplete", "max_output_tokens")


@pytest.mark.parametrize(
    "wrong",
    [
        {"model": "nobody"},
        {"max_output_tokens": 5},
        {"extra_body": {"shiny": 1}},
        {"model": "gpt-5", "temperature": 0.5},
        {"reasoning": {"effort": "high"}},
        {"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]},
        {"input": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]},
        {"input": [{"type": "reasoning", "id": "rs", "summary": [], "encrypted_content": "carried:messages:x"}]},
    ],
)
def test_requests_that_openai_rejects_are_rejected(gpt: openai.OpenAI, wrong: dict[str, Any]) -> None:
    with pytest.raises(openai.BadRequestError):
        gpt.responses.create(**{"model": GPT, "input": "Hello", **wrong})


def test_a_failing_stream_ends_with_an_error_event(vendor: Upstream, gpt: openai.OpenAI) -> None:
    vendor.script(Step(words=9, fault="error", after=6))
    kinds = [event.type for event in gpt.responses.create(model=GPT, input="Hello", stream=True)]
    assert kinds[-1] == "error" and "response.completed" not in kinds


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("as_reference", [True, False])
def test_an_item_that_was_not_kept_is_not_found(
    vendor: Upstream, gpt: openai.OpenAI, kept: bool, as_reference: bool
) -> None:
    vendor.script(Step(thinking="Hm", text="Hi"), Step(text="Done"))
    first = gpt.responses.create(model="gpt-5", input="Hello", store=kept)
    thought, said = (item.to_dict() for item in first.output)
    assert thought.get("encrypted_content") is None
    back: Any = [{"type": "item_reference", "id": thought["id"]}] if as_reference else [thought]
    asked: Any = {"model": "gpt-5", "input": [*back, said, {"role": "user", "content": "And?"}], "store": kept}
    if kept:
        assert gpt.responses.create(**asked).output_text == "Done"
        return
    with pytest.raises(openai.NotFoundError, match="Items are not persisted when `store` is set to false"):
        gpt.responses.create(**asked)


def test_encrypted_reasoning_is_found_in_itself(vendor: Upstream, gpt: openai.OpenAI) -> None:
    vendor.script(Step(thinking="Hm", text="Hi"), Step(text="Done"))
    include: Any = ["reasoning.encrypted_content"]
    first = gpt.responses.create(model="gpt-5", input="Hello", store=False, include=include)
    items: Any = [*(item.to_dict() for item in first.output), {"role": "user", "content": "And?"}]
    assert gpt.responses.create(model="gpt-5", input=items, store=False).output_text == "Done"
    with pytest.raises(openai.BadRequestError, match="required following item"):
        gpt.responses.create(model="gpt-5", input=[items[0], items[2]], store=False)
    with pytest.raises(openai.BadRequestError, match="not supported with this model"):
        gpt.responses.create(model=GPT, input="Hello", include=include)
