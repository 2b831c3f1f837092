"""OpenAI's older Completions: ``POST /v1/completions``, both ends.

A request travels verbatim to models that their provider serves on this route
(``completions`` in its row). For any other model the prompt becomes one user message.
Field by field this follows the openai SDK 3.52.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from marshmallow import fields as base

from llm_service.core import errors, identifiers
from llm_service.core.call import Call
from llm_service.core.content import Message, Refusal, Text, TokenLogprob
from llm_service.core.conversation import Conversation, Extra
from llm_service.core.events import Answer, Choice, ChoiceDelta, Delta, Event, Finished, RefusalDelta, Relay, Started
from llm_service.core.target import Target
from llm_service.formats import decoding, rules, service_tiers, sse, validation
from llm_service.formats import openai_chat as chat
from llm_service.formats import schema_fields as fields
from llm_service.formats.decoding import broken
from llm_service.formats.defaults import ERROR_TYPE as ERROR_TYPE
from llm_service.formats.defaults import json_format as json_format
from llm_service.formats.defaults import native_system
from llm_service.formats.defaults import response_headers as response_headers
from llm_service.formats.defaults import with_turn as with_turn
from llm_service.formats.openai_chat import error as error
from llm_service.formats.openai_chat import error_headers as error_headers
from llm_service.formats.openai_chat import finish_reasons
from llm_service.formats.openai_chat import read_error as read_error
from llm_service.formats.openai_chat import status as status
from llm_service.formats.openai_chat.decode_answer import reported_usage as reported_usage
from llm_service.formats.openai_chat.decode_answer import usage_in
from llm_service.formats.openai_chat.encode_answer import finish_reason_of, usage_object
from llm_service.formats.openai_chat.encode_stream import DONE
from llm_service.formats.openai_chat.schema import wants_usage
from llm_service.formats.rules import ExtraField
from llm_service.formats.small.completions_bounds import BOUNDS as BOUNDS
from llm_service.formats.small.completions_bounds import DEFAULT_MAX_TOKENS

NAME = "completions"
PATHS = ("/v1/completions",)
KEEP_ALIVE = sse.KEEP_ALIVE
_NO_HEADERS: Mapping[str, str] = {}


class Prompt(fields._Strict, base.Raw):
    """A string, tokens (integers), or a list of either. Without a prompt the vendor begins a new document."""

    rule = "a string, a list of strings, a list of tokens, or a list of those"

    def __init__(self, help: str, **options: Any) -> None:
        text, token = {"type": "string"}, {"type": "integer", "minimum": 0}
        tokens = {"type": "array", "items": token}
        several = [{"type": "array", "items": item} for item in (text, tokens)]
        super().__init__(help, metadata={"oneOf": [text, tokens, *several]}, **options)

    def accepts(self, value: Any) -> bool:
        if isinstance(value, str):
            return True
        if not isinstance(value, list):
            return False
        return all(isinstance(item, str) for item in value) or _tokens(value) or all(map(_tokens, value))


def _tokens(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


class RequestSchema(fields.WireSchema):
    """``POST /v1/completions``. Fields that are not listed here pass to OpenAI unchanged."""

    model = fields.Word("A model of this service, or an alias.", 256, filled=True, required=True)
    prompt = Prompt("What to complete.")
    max_tokens = fields.Integer("The most tokens to generate; 16 when left out.", 0, fields.MAX_TOKENS)
    temperature = fields.Number("Sampling temperature.", 0, 2)
    top_p = fields.Number("Nucleus sampling.", 0, 1)
    stop = fields.StopSequences("Where to stop.", 4)
    stream = fields.Flag("Answer as server-sent events.")
    stream_options = fields.StreamOptions("include_usage: send a last chunk with the usage.")
    n = fields.Integer("How many choices for each prompt.", 1, 128)
    best_of = fields.Integer("How many completions to generate, of which the best are returned.", 0, 20)
    echo = fields.Flag("Repeat the prompt before the completion.")
    suffix = fields.Word("What comes after the completion.")
    logprobs = fields.Integer("Return log probabilities.", 0, 5)
    logit_bias = fields.JsonObject("Bias by token id.")
    frequency_penalty = fields.Number("Penalty for frequent tokens.", -2, 2)
    presence_penalty = fields.Number("Penalty for repeated tokens.", -2, 2)
    seed = fields.Integer("Best-effort determinism.", -(2**63), 2**63 - 1)
    user = fields.Word("Your end user.")


_SCHEMA = RequestSchema()

# The fields that become fields of ``Conversation``.
COMMON: Final = frozenset(
    {
        *("model", "prompt", "max_tokens", "temperature", "top_p", "stop", "stream", "stream_options", "user"),
        "service_tier",  # not a field of this API, but most models have it
    }
)

# What this format calls the field of ``Conversation`` that has another name here.
FIELD_NAMES: Final[Mapping[str, str]] = {"tier": "service_tier"}

# All other fields of this API.
EXTRAS: Final[Mapping[str, ExtraField]] = {
    field.name: field
    for field in (
        ExtraField("best_of"),
        ExtraField("echo", (False,)),
        ExtraField("frequency_penalty", (0,)),
        ExtraField("logit_bias", ({},)),
        ExtraField("logprobs"),
        ExtraField("n", (1,)),
        ExtraField("presence_penalty", (0,)),
        ExtraField("seed"),
        ExtraField("suffix", ("",)),
    )
}


def check(body: Any) -> dict[str, Any]:
    """``body`` itself if it is well-formed. Raises InvalidRequest naming the field otherwise."""
    return validation.check(_SCHEMA, body)


def prompt(body: Mapping[str, Any]) -> list[Any]:
    """The JSON values that hold the prompt, for its keyed hash."""
    return [body.get("prompt"), body.get("suffix"), *native_system(body)]


def read_request(body: Mapping[str, Any], headers: Mapping[str, str] = _NO_HEADERS) -> Conversation:
    """A checked body as a conversation of one message.

    Raises UnsupportedParameter for a prompt or a limit that no other format can express.
    """
    text = body.get("prompt")
    if isinstance(text, list) and len(text) == 1:
        text = text[0]
    if not isinstance(text, str) or not text:
        validation.unsupported("prompt", "send one prompt, as a text that is not empty")
    limit = body.get("max_tokens")
    if limit == 0:
        validation.unsupported("max_tokens", "it must be at least 1")
    stop = body.get("stop")
    return Conversation(
        messages=(Message("user", (Text(text),), ("prompt",)),),
        max_tokens=DEFAULT_MAX_TOKENS if limit is None else limit,
        temperature=body.get("temperature"),
        top_p=body.get("top_p"),
        stop=(stop,) if isinstance(stop, str) else tuple(stop or ()),
        user=body.get("user"),
        tier=service_tiers.read(body),
        field_names=FIELD_NAMES,
        extras=_read_extras(body),
    )


def _read_extras(body: Mapping[str, Any]) -> dict[str, Extra]:
    extras = rules.read_extras(body, COMMON, EXTRAS)
    asked = body.get("n") or 1
    if body.get("best_of") in (asked, 0 if asked == 1 else None):  # all generated completions are returned
        extras.pop("best_of", None)
    alternatives = body.get("logprobs")
    if alternatives is not None:  # chat has two fields for it
        extras["logprobs"] = Extra(True, "logprobs")
        rules.add_extra(extras, "top_logprobs", Extra(alternatives, "logprobs"))
    return extras


# ---- the client's side


def write_answer(call: Call, answer: Answer) -> dict[str, Any]:
    """The reply's JSON object. A verbatim reply is the vendor's own object with ``usage.cost_usd`` added."""
    if answer.body is not None:
        return chat.write_answer(call, answer)
    choices, offset = [], _prompt_length(call)
    for choice in _all(answer):
        kinds = {type(part) for part in choice.parts}
        reason = _finish_reason(choice, said=Text in kinds, refused=Refusal in kinds)
        choices.append(_choice(choice.index, choice.text, reason, choice.logprobs, offset))
    usage = usage_object(answer.usage, answer.cost_nanousd)
    return {**_head(call, answer.model or call.model), "choices": choices, "usage": usage}


def _prompt_length(call: Call) -> int:
    """The offset of an answer's first character: OpenAI counts from the beginning of the prompt, also without echo."""
    given = call.body["prompt"]  # one text, as ``read_request`` requires
    text: str = given[0] if isinstance(given, list) else given
    return len(text)


def _all(answer: Answer) -> tuple[Choice, ...]:
    return answer.choices or (Choice(0, answer.stop_reason, answer.parts, answer.logprobs),)


def _finish_reason(choice: Choice, *, said: bool, refused: bool) -> str:
    return finish_reason_of(choice.stop_reason, explained=refused and not said, older=False)


def _head(call: Call, model: str) -> dict[str, Any]:
    return {"id": f"cmpl-{call.id}", "object": "text_completion", "created": call.created, "model": model}


def _choice(
    index: int, text: str, finish_reason: str | None, logprobs: tuple[TokenLogprob, ...] = (), offset: int = 0
) -> dict[str, Any]:
    written = _logprobs(logprobs, offset) if logprobs else None
    return {"text": text, "index": index, "logprobs": written, "finish_reason": finish_reason}


def _logprobs(tokens: tuple[TokenLogprob, ...], offset: int) -> dict[str, Any]:
    """The tokens of a choice. ``offset`` is the number of characters before them, those of the prompt included."""
    tops = [{other.token: other.logprob for other in token.top} for token in tokens]
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token.token)
    return {
        "tokens": [token.token for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": tops if any(tops) else None,  # null if no alternatives were asked for, as at OpenAI
        "text_offset": offsets,
    }


class StreamEncoder:
    """One stream as ``text_completion`` events, which have the shape of the reply."""

    KEEP_ALIVE: ClassVar[bytes] = KEEP_ALIVE
    __slots__ = ("_call", "_chat", "_model", "_offsets", "_refused", "_said", "_usage", "_verbatim")

    def __init__(self, call: Call) -> None:
        self._call, self._model = call, call.model
        self._chat = chat.StreamEncoder(call)  # for verbatim streams and errors, which are the same in both formats
        self._said: set[int] = set()  # the choices with text
        self._refused: set[int] = set()  # the choices with a refusal
        self._offsets: dict[int, int] = {}  # characters sent so far, by choice; only kept when logprobs are sent
        self._usage: dict[str, Any] = {"usage": None} if wants_usage(call.body) else {}
        self._verbatim = False

    def feed(self, event: Event) -> bytes:
        """The bytes for ``event``; empty for events that the client does not see."""
        match event:
            case Relay(data):
                return data
            case ChoiceDelta(text, logprobs, index):
                offset = self._offsets.get(index) or _prompt_length(self._call)
                self._offsets[index] = offset + len(text)
                self._said.add(index)
                return self._chunk(_choice(index, text, None, logprobs, offset))
            case Delta(text):
                self._said.add(0)
                return self._chunk(_choice(0, text, None))
            case RefusalDelta(text, index):
                self._refused.add(index)
                return self._chunk(_choice(index, text, None))
            case Started():
                self._verbatim, self._model = event.verbatim, event.model or self._model
                self._chat.feed(event)
            case Finished(answer):
                return self._chat.feed(event) if self._verbatim else self._closing(answer)
        return b""

    def error(self, failure: errors.ServiceError, request_id: str = "") -> bytes:
        """The failure as the last event of the stream. No ``[DONE]`` follows it."""
        return self._chat.error(failure, request_id)

    def _closing(self, answer: Answer) -> bytes:
        closing = b""
        for choice in _all(answer):
            said, refused = choice.index in self._said, choice.index in self._refused
            closing += self._chunk(_choice(choice.index, "", _finish_reason(choice, said=said, refused=refused)))
        if self._usage:
            usage = usage_object(answer.usage, answer.cost_nanousd)
            closing += sse.json_frame({**_head(self._call, self._model), "choices": [], "usage": usage})
        return closing + DONE

    def _chunk(self, choice: dict[str, Any]) -> bytes:
        return sse.json_frame({**_head(self._call, self._model), "choices": [choice], **self._usage})


# ---- the upstream's side


def forward(call: Call, target: Target) -> dict[str, Any]:
    """The client's own body for ``target``. A stream is asked for its usage, even where the client did not ask."""
    return chat.forward(call, target)


def read_verbatim(body: Mapping[str, Any], call: Call | None = None) -> Answer:
    """A plain answer that the client gets unchanged. Raises UpstreamBroken when ``body`` is not an answer."""
    if body.get("error"):  # some servers send an error with status 200
        raise decoding.in_band(NAME, read_error(body))
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices or not all(isinstance(choice, dict) for choice in choices):
        broken("it has no choices")
    reasons = [finish_reasons.of_plain(choice, whole=_characters(choice) > 0) for choice in choices]
    return Answer(
        usage=usage_in(body, sum(map(_characters, choices)), call),
        stop_reason=reasons[0],
        model=identifiers.model_name(body.get("model")),
        body=body,
    )


def _characters(choice: Mapping[str, Any]) -> int:
    text = choice.get("text")
    return len(text) if isinstance(text, str) else 0


class Passthrough(chat.Passthrough):
    """The passthrough of chat. Only the path of the text in a chunk is different."""

    __slots__ = ()

    def _read_choice(self, chunk: Mapping[str, Any], choice: Any) -> Mapping[str, Any]:
        if type(choice) is not dict:
            broken("a choice is not an object")
        characters = _characters(choice)
        self._characters += characters
        self._note_choice(chunk, choice, adds=characters > 0)
        return choice
