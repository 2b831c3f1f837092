"""OpenAI Responses, the upstream's side: what is sent for a conversation, and that the client's side can read it."""

from __future__ import annotations

import string
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_service.core import errors
from llm_service.core.call import Caller
from llm_service.core.content import (
    Document,
    Image,
    JsonFormat,
    Message,
    Part,
    Reasoning,
    RedactedThinking,
    Refusal,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from llm_service.core.conversation import Conversation
from llm_service.core.target import Target
from llm_service.formats import anthropic_messages as messages
from llm_service.formats import openai_responses as responses
from tests.formats.examples import asked_by, call, target
from tests.formats.openai_responses.wire import body, responses_call

GPT5 = target(model="gpt-5", sampling=False, thinking="effort")
GPT4 = target(model="gpt-4o")
CALL = call("messages", {"model": "m", "max_tokens": 5, "messages": []})
SCHEMA = {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"], "additionalProperties": False}


def user(*parts: Part) -> Message:
    return Message("user", parts or (Text("Hello"),))


def conversation(*messages: Message, **more: Any) -> Conversation:
    return Conversation(messages or (user(),), **more)


def write(given: Conversation, to: Any = GPT5, **more: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    return responses.write_request(replace(CALL, **more), asked_by(messages, given), to)


# ---- what is sent


def test_a_plain_question_is_not_stored_and_asks_for_its_reasoning() -> None:
    assert write(conversation()) == (
        {
            "model": "gpt-5",
            "input": [{"role": "user", "content": "Hello"}],
            "store": False,
            "include": ["reasoning.encrypted_content"],
        },
        (),
    )
    assert "include" not in write(conversation(), GPT4)[0]
    assert write(conversation(), stream=True)[0]["stream_options"] == {"include_obfuscation": False}


def test_the_system_prompt_keeps_its_blocks_and_gets_the_role_that_the_model_knows() -> None:
    given = conversation(user(), Message("system", (Text("Now."),)), user(), system=(Text("a"), Text("b")))
    for to, role in ((GPT5, "developer"), (GPT4, "system")):
        items = write(given, to)[0]["input"]
        parts = [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]
        assert items[0] == {"role": role, "content": parts}
        assert items[2] == {"role": role, "content": "Now."}


@pytest.mark.parametrize("signature", ["", "x", "rs_abc", "rs_abc:", "rs_abc: ", ":", ":gAAAA", " :gAAAA"])
@pytest.mark.parametrize("redacted", [False, True])
def test_reasoning_without_its_encrypted_content_is_never_a_reference(signature: str, redacted: bool) -> None:
    thought = RedactedThinking(signature, "responses") if redacted else Thinking("Hm", signature, "responses")
    sent, dropped = write(conversation(user(), Message("assistant", (thought, Text("Yes"))), user()))
    assert [item["role"] for item in sent["input"]] == ["user", "assistant", "user"]
    assert dropped == ("messages[].thinking",)


def test_a_turn_with_tools_becomes_items() -> None:
    image = Image(data="iVBO", media_type="image/png")
    given = conversation(
        user(),
        Message(
            "assistant",
            (
                Thinking("Hm", "rs_1:gAAAA", "responses"),
                RedactedThinking("rs_2:gBBBB", "responses"),
                Thinking("mine", "EqQ==", "messages"),
                Text("Let me"),
                Text(" see"),
                ToolCall("toolu_1", "look", '{"q": 1}'),
                ToolCall("toolu_2", "look", ""),
            ),
        ),
        user(
            ToolResult("toolu_1", (Text("found"),)),
            ToolResult("toolu_2", (Text("broke"), image), is_error=True),
            Text("And?"),
        ),
    )
    sent, dropped = write(given)
    assert sent["input"][1:] == [
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [{"type": "summary_text", "text": "Hm"}],
            "encrypted_content": "gAAAA",
        },
        {"type": "reasoning", "id": "rs_2", "summary": [], "encrypted_content": "gBBBB"},
        {
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Let me"}, {"type": "output_text", "text": " see"}],
        },
        {"type": "function_call", "call_id": "toolu_1", "name": "look", "arguments": '{"q": 1}'},
        {"type": "function_call", "call_id": "toolu_2", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "toolu_1", "output": "found"},
        {
            "type": "function_call_output",
            "call_id": "toolu_2",
            "output": [
                {"type": "input_text", "text": "Error:"},
                {"type": "input_text", "text": "broke"},
                {"type": "input_image", "image_url": "data:image/png;base64,iVBO", "detail": "auto"},
            ],
        },
        {"role": "user", "content": "And?"},
    ]
    assert dropped == ("messages[].thinking",)


def test_documents_are_files_and_plain_text_documents_are_text() -> None:
    parts = (
        Document(data="JVBE", media_type="application/pdf"),
        Document(url="https://x/a.pdf"),
        Document(text="body", title="T", context="C"),
    )
    assert write(conversation(user(*parts)))[0]["input"][0]["content"] == [
        {"type": "input_file", "file_data": "data:application/pdf;base64,JVBE", "filename": "document.pdf"},
        {"type": "input_file", "file_url": "https://x/a.pdf"},
        {"type": "input_text", "text": "T\nC\n\nbody"},
    ]


def test_every_tool_is_sent_with_strict() -> None:
    tools = (
        Tool("a", "A.", SCHEMA, True),
        Tool("b", None, {"type": "object", "properties": {"q": {}}}, True),
        Tool("c", None, SCHEMA),
        Tool("d"),
    )
    sent, dropped = write(conversation(tools=tools, parallel_tool_calls=False))
    assert [tool["strict"] for tool in sent["tools"]] == [True, False, False, False]
    assert sent["tools"][0] == {
        "type": "function",
        "name": "a",
        "description": "A.",
        "parameters": SCHEMA,
        "strict": True,
    }
    assert sent["tools"][3]["parameters"] == {"type": "object", "properties": {}}
    assert sent["parallel_tool_calls"] is False
    assert dropped == ()


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        (ToolChoice("auto"), "auto"),
        (ToolChoice("none"), "none"),
        (ToolChoice("required"), "required"),
        (ToolChoice("tool", "a"), {"type": "function", "name": "a"}),
        (
            ToolChoice("required", allowed=("a",)),
            {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "a"}]},
        ),
    ],
)
def test_tool_choices_are_written(choice: ToolChoice, sent: Any) -> None:
    assert write(conversation(tools=(Tool("a"),), tool_choice=choice))[0]["tool_choice"] == sent


def test_formats_have_a_name_and_are_strict_if_their_schema_allows_it() -> None:
    assert write(conversation(format=JsonFormat(SCHEMA)))[0]["text"]["format"] == {
        "type": "json_schema",
        "name": "answer",
        "schema": SCHEMA,
        "strict": True,
    }
    loose = write(conversation(format=JsonFormat({"type": "object"}, "n", "d", True)))[0]["text"]["format"]
    assert (loose["name"], loose["description"], loose["strict"]) == ("n", "d", False)
    assert write(conversation(format=JsonFormat()))[0]["text"] == {"format": {"type": "json_object"}}


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        (Reasoning("high"), {"effort": "high"}),
        (Reasoning("none"), {"effort": "none"}),
        (Reasoning("low", summary=True), {"effort": "low", "summary": "auto"}),
        (Reasoning(budget=2000), {"effort": "low"}),
        (Reasoning(summary=True), {"summary": "auto"}),
        (Reasoning(summary=False), None),
    ],
)
def test_reasoning_is_requested_in_openai_s_terms(asked: Reasoning, sent: Any) -> None:
    assert write(conversation(reasoning=asked))[0].get("reasoning") == sent


def test_fields_that_a_model_does_not_take_are_dropped_and_named() -> None:
    given = conversation(
        temperature=0.5, top_p=0.9, top_k=5, stop=("x",), max_tokens=3, reasoning=Reasoning("high"), tier="standard"
    )
    sent, dropped = write(given)
    assert dropped == ("max_tokens", "temperature", "top_p", "stop_sequences", "top_k")
    assert (sent["max_output_tokens"], sent["service_tier"]) == (16, "default")
    sent, dropped = write(given, GPT4)
    assert (sent["temperature"], sent["top_p"]) == (0.5, 0.9)
    assert dropped == ("max_tokens", "stop_sequences", "top_k", "thinking")


def test_a_user_name_that_is_too_long_is_sent_as_a_digest() -> None:
    assert write(conversation(user="ann"))[0]["safety_identifier"] == "ann"
    assert len(write(conversation(user="x" * 500))[0]["safety_identifier"]) == 64


def test_a_last_message_of_the_assistant_is_rejected() -> None:
    last = Message("assistant", (Text("And so"),), ("messages[1].content",))
    with pytest.raises(errors.UnsupportedParameter) as caught:
        write(conversation(user(), last))
    assert caught.value.param == "messages[1].role"


# ---- which of OpenAI's two APIs is asked


IMAGE = ToolResult("c", (Image(url="https://x/y.png"),))
TURN = (user(), Message("assistant", (ToolCall("c", "look", ""),)), user(IMAGE))


@pytest.mark.parametrize(
    ("given", "to", "needed"),
    [
        (conversation(), GPT5, False),
        (conversation(tools=(Tool("a"),)), GPT5, True),
        (conversation(tools=(Tool("a"),)), GPT4, False),
        (conversation(reasoning=Reasoning("low")), GPT5, True),
        (conversation(reasoning=Reasoning("low")), GPT4, False),
        (conversation(*TURN), GPT4, True),
        (conversation(*TURN, stop=("x",)), GPT4, False),
        (conversation(*TURN, stop=("x",)), GPT5, True),
        (
            conversation(user(), Message("assistant", (Thinking("", "rs:x", "responses"), Text("a"))), user()),
            GPT5,
            True,
        ),
        (conversation(user(), Message("assistant", (Thinking("", "x", "messages"), Text("a"))), user()), GPT5, False),
        (
            conversation(tools=(Tool("a"),)),
            target(sampling=False, thinking="effort", provider={"responses": False}),
            False,
        ),
    ],
)
def test_responses_is_asked_where_chat_cannot_carry_the_turns(given: Conversation, to: Any, needed: bool) -> None:
    assert responses.needed(given, to) is needed


# ---- verbatim bodies and storage


def test_a_body_is_forwarded_unchanged_and_nothing_is_stored() -> None:
    given = body(field_of_tomorrow=1, tools=[{"type": "web_search"}])
    forwarded = responses.forward(responses_call(**given), GPT5)
    assert forwarded == {**given, "model": "gpt-5", "store": False, "include": ["reasoning.encrypted_content"]}
    assert responses.forward(responses_call(store=False), GPT5)["store"] is False


STORING = [
    ("store", True),
    ("background", True),
    ("previous_response_id", "resp_1"),
    ("conversation", {"id": "conv_1"}),
]


@pytest.mark.parametrize(("name", "value"), STORING)
def test_storage_needs_the_operator_s_permission(name: str, value: Any) -> None:
    asked = responses_call(**{name: value})
    with pytest.raises(errors.UnsupportedParameter) as caught:
        responses.forward(asked, GPT5)
    assert (caught.value.param, caught.value.code) == (name, "storage_not_allowed")
    assert "LLM_SERVICE_UPSTREAM_STORAGE" in caught.value.message
    allowed = responses.forward(asked, target(model="gpt-5", provider={"storage": True}))
    assert allowed[name] == value
    assert allowed["store"] is (name == "store")


@pytest.mark.parametrize("provider_says", [True, False])
@pytest.mark.parametrize("key_says", [True, False, None])
def test_the_key_s_storage_setting_overrides_the_provider_s(key_says: bool | None, provider_says: bool) -> None:
    asked = replace(responses_call(store=True), caller=Caller("k", storage=key_says))
    to = target(model="gpt-5", provider={"storage": provider_says})
    if key_says or (key_says is None and provider_says):
        assert responses.forward(asked, to)["store"] is True
        return
    with pytest.raises(errors.UnsupportedParameter, match="keys update --storage allow"):
        responses.forward(asked, to)


def test_reasoning_of_another_vendor_is_not_forwarded() -> None:
    foreign = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "carried:messages:EqQ=="}
    own = {"type": "reasoning", "id": "rs_2", "summary": [], "encrypted_content": "gAAAA"}
    question = {"role": "user", "content": "Hello"}
    asked = responses_call(input=[question, foreign, own, question])
    assert responses.forward(asked, GPT5)["input"] == [question, own, question]
    provider = GPT5.provider
    assert responses.left_out(asked, provider) == ("input[].reasoning",)
    assert responses.left_out(responses_call(input=[question, own]), provider) == ()
    assert responses.left_out(responses_call(), provider) == ()


# ---- items that OpenAI would have to look up


QUESTION = {"role": "user", "content": "Hello"}
REFERENCE = {"type": "item_reference", "id": "msg_1"}
SUMMARY = {"type": "reasoning", "id": "rs_1", "summary": []}
CALLED = {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f", "arguments": "{}"}
RESULT = {"type": "function_call_output", "call_id": "c", "output": "x"}


@pytest.mark.parametrize("store", [None, False])
@pytest.mark.parametrize(
    ("item", "name"),
    [
        (REFERENCE, "item_reference"),
        ({"id": "msg_1"}, "item_reference"),
        (SUMMARY, "reasoning"),
        ({**SUMMARY, "encrypted_content": None}, "reasoning"),
        ({**SUMMARY, "encrypted_content": "", "summary": [{"type": "summary_text", "text": "Hm"}]}, "reasoning"),
    ],
)
def test_an_item_that_was_never_kept_is_left_out(item: dict[str, Any], name: str, store: bool | None) -> None:
    asked = responses_call(input=[QUESTION, item, CALLED, RESULT], **({} if store is None else {"store": store}))
    assert responses.forward(asked, GPT5)["input"] == [QUESTION, CALLED, RESULT]
    assert responses.left_out(asked, GPT5.provider) == (f"input[].{name}",)


def test_an_item_that_holds_its_own_text_is_forwarded() -> None:
    open_weights = {**SUMMARY, "content": [{"type": "reasoning_text", "text": "Hm"}]}
    asked = responses_call(input=[QUESTION, open_weights, CALLED, RESULT])
    assert responses.forward(asked, GPT5)["input"] == asked.body["input"]


@pytest.mark.parametrize("extra", [{"store": True}, {"store": False}, {"previous_response_id": "resp_1"}])
def test_an_item_that_may_have_been_kept_is_forwarded(extra: dict[str, Any]) -> None:
    asked = replace(responses_call(input=[QUESTION, REFERENCE, SUMMARY], **extra), caller=Caller("k", storage=True))
    assert responses.forward(asked, GPT5)["input"] == asked.body["input"]
    assert responses.left_out(asked, GPT5.provider) == ()


def test_storage_that_is_allowed_and_not_asked_for_keeps_nothing() -> None:
    asked = replace(responses_call(input=[QUESTION, REFERENCE]), caller=Caller("k", storage=True))
    assert responses.forward(asked, GPT5)["input"] == [QUESTION]


@pytest.mark.parametrize("kind", ["function_call_output", "local_shell_call_output", "custom_tool_call_output"])
def test_the_result_of_a_call_that_was_only_referred_to_is_rejected(kind: str) -> None:
    asked = responses_call(input=[QUESTION, {"type": "item_reference", "id": "fc_1"}, {**RESULT, "type": kind}])
    with pytest.raises(errors.UnsupportedParameter, match="send the call itself") as caught:
        responses.forward(asked, GPT5)
    assert caught.value.param == "input[2]"


def test_an_input_of_references_alone_is_rejected() -> None:
    with pytest.raises(errors.UnsupportedParameter, match="send the items themselves") as caught:
        responses.forward(responses_call(input=[REFERENCE, SUMMARY]), GPT5)
    assert caught.value.param == "input"


@pytest.mark.parametrize(
    ("include", "expected"),
    [
        (None, ["reasoning.encrypted_content"]),
        ([], ["reasoning.encrypted_content"]),
        (["reasoning.encrypted_content"], ["reasoning.encrypted_content"]),
        (["web_search_call.results"], ["web_search_call.results", "reasoning.encrypted_content"]),
    ],
)
def test_reasoning_comes_back_encrypted_where_the_service_turns_storage_off(
    include: list[str] | None, expected: list[str]
) -> None:
    asked = responses_call(**({} if include is None else {"include": include}))
    assert responses.forward(asked, GPT5)["include"] == expected


@pytest.mark.parametrize(
    ("body", "to"),
    [
        ({"store": False}, GPT5),  # the client knows that nothing is kept
        ({}, target(model="gpt-4o")),  # this model has no reasoning, and OpenAI rejects the field
        ({}, target(model="gpt-5", thinking="effort", provider={"store": False})),  # the server does not know store
    ],
)
def test_nothing_is_included_that_the_client_did_not_ask_for_otherwise(body: dict[str, Any], to: Target) -> None:
    assert "include" not in responses.forward(responses_call(**body), to)


# ---- round trips


NAMES = st.text(string.ascii_letters, min_size=1, max_size=5)
TEXTS = st.builds(Text, st.text(max_size=10))
IMAGES = st.sampled_from([Image(url="https://x/y.png"), Image(data="iVBO", media_type="image/png")])
DOCUMENTS = st.sampled_from(
    [Document(url="https://x/a.pdf"), Document(data="JVBE", media_type="application/pdf", title="a.pdf")]
)
ARGUMENTS = st.dictionaries(NAMES, st.integers(-(2**63), 2**63 - 1)).map(lambda value: orjson.dumps(value).decode())
CONTENT = st.lists(TEXTS | IMAGES | DOCUMENTS, min_size=1, max_size=3)
THOUGHTS = st.builds(lambda text, word: Thinking(text, f"rs:{word}", "responses"), st.text(min_size=1), NAMES)
ANSWER_PARTS = st.lists(TEXTS | st.builds(Refusal, st.text(max_size=5)), min_size=1, max_size=3)


@st.composite
def conversations(draw: st.DrawFn) -> Conversation:
    """What both sides can express: each call has its result, and the last message is the user's."""
    turns: list[Message] = [user(*draw(CONTENT))]
    tools = tuple(Tool(name, schema=SCHEMA, strict=draw(st.booleans())) for name in draw(st.sets(NAMES, max_size=3)))
    for number in range(draw(st.integers(0, 3))):
        calls: list[Part] = [
            ToolCall(f"call_{number}_{at}", draw(NAMES), draw(ARGUMENTS)) for at in range(draw(st.integers(0, 2)))
        ]
        thought: list[Part] = draw(st.lists(THOUGHTS, max_size=1))
        turns.append(Message("assistant", (*thought, *draw(ANSWER_PARTS), *calls)))
        results = [ToolResult(part.id, tuple(draw(CONTENT))) for part in calls if isinstance(part, ToolCall)]
        content: list[Any] = draw(CONTENT) if not results or draw(st.booleans()) else []
        turns.append(user(*results, *content))
    return Conversation(
        messages=tuple(turns),
        system=tuple(draw(st.lists(st.builds(Text, st.text(min_size=1)), max_size=2))),
        max_tokens=draw(st.none() | st.integers(16, 1000)),
        user=draw(st.none() | NAMES),
        tools=tools,
        tool_choice=draw(st.none() | st.just(ToolChoice("auto"))) if tools else None,
        parallel_tool_calls=draw(st.none() | st.booleans()) if tools else None,
        format=draw(st.none() | st.sampled_from([JsonFormat(), JsonFormat(SCHEMA, "n", "d", True)])),
        reasoning=draw(st.none() | st.sampled_from([Reasoning("high"), Reasoning("low", summary=True)])),
        tier=draw(st.none() | st.sampled_from(["standard", "flex"])),
    )


@settings(deadline=None)
@given(conversations())
def test_the_client_s_side_reads_what_the_upstream_s_side_writes(given: Conversation) -> None:
    sent, dropped = write(given)
    assert dropped == ()
    assert responses.read_request(responses.check(orjson.loads(orjson.dumps(sent)))) == given
