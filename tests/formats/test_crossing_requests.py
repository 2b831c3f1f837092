"""A conversation that both formats can express is the same after it was written and read again."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_service.core import errors
from llm_service.core.content import (
    Document,
    Image,
    JsonFormat,
    Message,
    Reasoning,
    RedactedThinking,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from llm_service.core.conversation import Conversation
from llm_service.formats import anthropic_messages as messages
from llm_service.formats import openai_chat as chat
from tests.formats.examples import asked_by, call, target

# Text of white space alone is left out on the way to Anthropic (test_target_rules).
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(str.strip)
ARGUMENTS = st.dictionaries(
    TEXTS, st.none() | st.booleans() | st.integers(-(2**63), 2**63) | TEXTS | st.lists(TEXTS, max_size=2), max_size=3
).map(lambda value: orjson.dumps(value).decode())
IMAGES = st.builds(Image, url=TEXTS.map("https://example.com/".__add__)) | st.builds(
    Image, data=st.just("AAAA"), media_type=st.sampled_from(["image/png", "image/webp"])
)
PDFS = st.builds(Document, data=st.just("JVBE"), media_type=st.just("application/pdf"), title=TEXTS)
_EITHER = st.booleans()
SAID = st.lists(TEXTS.map(Text) | IMAGES | PDFS, min_size=1, max_size=3).map(tuple)
SCHEMAS: list[dict[str, Any]] = [
    {"type": "object", "properties": {}},
    {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False},
]
TOOLS = [Tool("first", "What it does", SCHEMAS[0]), Tool("second", schema=SCHEMAS[1], strict=True)]
CHOICES = st.sampled_from(
    [None, ToolChoice("auto"), ToolChoice("none"), ToolChoice("required"), ToolChoice("tool", "second")]
)


@st.composite
def turns(draw: st.DrawFn, thoughts: bool) -> tuple[Message, ...]:
    said: list[Message] = [Message("user", draw(SAID))]
    for number in range(draw(st.integers(0, 3))):
        parts: list[Any] = []
        if thoughts:
            parts += draw(
                st.lists(
                    st.builds(Thinking, st.text("abc"), st.just("sig"), st.just("messages"))
                    | st.builds(RedactedThinking, st.just("data"), st.just("messages")),
                    max_size=2,
                )
            )
        parts += draw(st.lists(TEXTS.map(Text), max_size=2))
        calls = [
            ToolCall(f"id_{number}_{n}", "first", text)
            for n, text in enumerate(draw(st.lists(ARGUMENTS, max_size=2 if parts else 3)))
        ]
        if not calls and not any(type(part) is Text for part in parts):
            parts.append(Text("x"))
        said.append(Message("assistant", (*parts, *calls)))
        results = [ToolResult(call.id, tuple(draw(st.lists(TEXTS.map(Text), max_size=2)))) for call in calls]
        silent = bool(results) and draw(_EITHER)
        said.append(Message("user", (*results, *(() if silent else draw(SAID)))))
    return tuple(said)


@st.composite
def conversations(draw: st.DrawFn, /, thoughts: bool = False, **extra: Any) -> Conversation:
    choice = draw(CHOICES)
    parallel = draw(st.none() | st.booleans())
    if choice is None or choice.mode == "none":
        parallel = None
    return Conversation(
        messages=draw(turns(thoughts)),
        system=tuple(draw(st.lists(TEXTS.map(Text), max_size=2))),
        max_tokens=draw(st.integers(1, 10**6)),
        tools=tuple(TOOLS),
        tool_choice=choice,
        parallel_tool_calls=parallel,
        tier=draw(st.sampled_from([None, "standard"])),
        **extra,
    )


FORMATS = st.sampled_from([None, SCHEMAS[1]])
EFFORTS = st.sampled_from([None, "none", "low", "high"])


@settings(deadline=None)  # the machine may be busy
@given(conversations(), FORMATS, EFFORTS)
def test_a_request_to_openai_is_read_back_unchanged(conversation: Conversation, schema: Any, effort: Any) -> None:
    given_format = schema and JsonFormat(schema, "answer", strict=True)
    asked = Conversation(
        **{name: getattr(conversation, name) for name in conversation.__slots__}
        | {"format": given_format, "reasoning": effort and Reasoning(effort)}
    )
    model = target(model="gpt-5", sampling=False, thinking="effort")
    sent, dropped = chat.write_request(call("messages", {}), asked_by(messages, asked), model)
    assert dropped == ()
    assert chat.read_request(chat.check(orjson.loads(orjson.dumps(sent)))) == asked


@settings(deadline=None)  # the machine may be busy
@given(conversations(thoughts=True), FORMATS, EFFORTS, st.sampled_from([None, 0, 300, 3600]))
def test_a_request_to_anthropic_is_read_back_unchanged(
    conversation: Conversation, schema: Any, effort: Any, cache: int | None
) -> None:
    asked = Conversation(
        **{name: getattr(conversation, name) for name in conversation.__slots__}
        | {"format": schema and JsonFormat(schema), "reasoning": effort and Reasoning(effort), "cache": cache}
    )
    model = target("anthropic", "claude-opus-4-8", sampling=False, thinking="adaptive")
    sent, dropped = messages.write_request(call("chat", {}), asked_by(chat, asked), model)
    assert dropped == ()
    assert messages.read_request(messages.check(orjson.loads(orjson.dumps(sent)))) == asked


HINTS = [None, 0, 300, 1800, 3600, 43200]


@pytest.mark.parametrize("seconds", HINTS)
def test_a_hint_to_cache_gets_a_time_that_is_as_long_or_the_longest(seconds: int | None) -> None:
    asked = Conversation((Message("user", (Text("x", seconds),)),))
    sent, dropped = chat.write_request(call("messages", {}), asked_by(messages, asked), target(cache_breakpoints=True))
    there: Any = chat.read_request(sent).messages[0].parts[0]
    assert there.cache == {None: None, 0: 0, 300: 1800, 1800: 1800, 3600: 43200, 43200: 43200}[seconds]
    assert dropped == ()
    sent, _ = messages.write_request(call("chat", {}), asked_by(chat, asked), target("anthropic"))
    here: Any = messages.read_request(sent).messages[0].parts[0]
    assert here.cache == {None: None, 0: 0, 300: 300, 1800: 3600, 3600: 3600, 43200: 3600}[seconds]
    _, dropped = chat.write_request(call("messages", {}), asked_by(messages, asked), target())
    assert dropped == (() if seconds is None else ("cache_control",))


def test_numbers_in_arguments_keep_every_digit() -> None:
    exact = '{"n": 123456789012345678901234567890, "f": 0.10000000000000000001, "n": 1}'
    turns = (
        Message("user", (Text("x"),)),
        Message("assistant", (ToolCall("a", "t", exact),)),
        Message("user", (ToolResult("a"),)),
    )
    sent, _ = messages.write_request(call("chat", {}), asked_by(chat, Conversation(turns)), target("anthropic"))
    assert exact.encode() in orjson.dumps(sent)


def test_images_from_tools_follow_after_all_tool_results() -> None:
    picture = Image(data="AAAA", media_type="image/png")
    turns = (
        Message("user", (Text("x"),)),
        Message("assistant", (ToolCall("a", "t", "{}"), ToolCall("b", "t", "{}"))),
        Message(
            "user", (ToolResult("a", (Text("see"), picture)), ToolResult("b", (picture,), is_error=True), Text("y"))
        ),
    )
    sent, dropped = chat.write_request(call("messages", {}), asked_by(messages, Conversation(turns)), target())
    roles = [message["role"] for message in sent["messages"]]
    assert roles == ["user", "assistant", "tool", "tool", "user", "user"]
    kinds = [part["type"] for part in sent["messages"][4]["content"]]
    assert kinds == ["text", "image_url", "text", "image_url"]
    assert sent["messages"][3]["content"].startswith("Error:")
    assert dropped == ()


def test_reasoning_of_another_vendor_is_dropped_by_name() -> None:
    thoughts = (Thinking("hm", "sig", "responses"), Thinking("hm"), RedactedThinking("x", "responses"), Text("said"))
    asked = Conversation((Message("user", (Text("x"),)), Message("assistant", thoughts), Message("user", (Text("y"),))))
    sent, dropped = messages.write_request(call("chat", {}), asked_by(chat, asked), target("anthropic"))
    assert sent["messages"][1]["content"] == [{"type": "text", "text": "said"}]
    assert dropped == ("messages[].claude_thinking",)
    sent, dropped = chat.write_request(call("messages", {}), asked_by(messages, asked), target())
    assert sent["messages"][1]["content"] == "said"
    assert dropped == ("messages[].thinking",)


@pytest.mark.parametrize(
    ("part", "place"),
    [
        (Document(url="https://example.com/a.pdf"), "messages[0].content[1].source"),
        (Document(data="AA", media_type="application/pdf", context="c"), "messages[0].content[1].context"),
    ],
)
def test_a_document_that_chat_cannot_carry_is_rejected_by_its_path(part: Document, place: str) -> None:
    said = Message("user", (Text("x"), part), ("messages[0].content[0]", "messages[0].content[1]"))
    with pytest.raises(errors.UnsupportedParameter) as refusal:
        chat.write_request(call("messages", {}), asked_by(messages, Conversation((said,))), target())
    assert refusal.value.param == place


@pytest.mark.parametrize(
    ("budget", "effort"), [(1024, "low"), (2048, "low"), (2049, "medium"), (16384, "high"), (10**6, "max")]
)
def test_a_budget_stands_for_an_effort(budget: int, effort: str) -> None:
    asked = Conversation((Message("user", (Text("x"),)),), reasoning=Reasoning(budget=budget))
    sent, _ = chat.write_request(
        call("messages", {}), asked_by(messages, asked), target(model="gpt-5", thinking="effort")
    )
    assert sent["reasoning_effort"] == effort
    sent, dropped = chat.write_request(call("messages", {}), asked_by(messages, asked), target())
    assert "reasoning_effort" not in sent
    assert dropped == ("thinking",)
