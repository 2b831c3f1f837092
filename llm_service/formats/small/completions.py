"""OpenAI's older Completions: ``POST /v1/completions``, both ends.

Verbatim for models that a provider serves there (``completions`` in its row);
for any other the prompt is one message of the user's, as text.
Field by field this follows the openai SDK 3.52.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from marshmallow import fields as base

from llm_service.core import errors
from llm_service.core.call import Call
from llm_service.core.content import Message, Text
from llm_service.core.conversation import Conversation
from llm_service.core.events import Answer, Delta, Event, Finished, Relay, Started
from llm_service.core.target import Target
from llm_service.formats import decoding as upstream
from llm_service.formats import openai_chat as chat
from llm_service.formats import rules, sse, validation
from llm_service.formats import schema_fields as fields
from llm_service.formats.decoding import broken
from llm_service.formats.openai_chat import error as error
from llm_service.formats.openai_chat import error_headers as error_headers
from llm_service.formats.openai_chat import read_error as read_error
from llm_service.formats.openai_chat import status as status
from llm_service.formats.openai_chat.decode_answer import STOP_REASONS, read_usage
from llm_service.formats.openai_chat.schema import wants_usage
from llm_service.formats.rules import TRANSLATE, FieldRule, drop_unless, reject_unless

NAME = "completions"
KEEP_ALIVE = sse.KEEP_ALIVE
DONE: Final = sse.frame(b"[DONE]")
# What the vendor generates when it is not told how much.
DEFAULT_MAX_TOKENS: Final = 16
_NO_HEADERS: Mapping[str, str] = {}


class Prompt(fields._Strict, base.Raw):
    """A string, tokens (integers), or a list of either; left out, the vendor begins a new document."""

    rule = "a string, a list of strings, a list of tokens, or a list of those"

    def __init__(self, help: str, **options: Any) -> None:
        word, token = {"type": "string"}, {"type": "integer", "minimum": 0}
        tokens = {"type": "array", "items": token}
        several = [{"type": "array", "items": item} for item in (word, tokens)]
        super().__init__(help, metadata={"oneOf": [word, tokens, *several]}, **options)

    def accepts(self, value: Any) -> bool:
        if isinstance(value, str):
            return True
        if not isinstance(value, list):
            return False
        return all(isinstance(item, str) for item in value) or _tokens(value) or all(map(_tokens, value))


def _tokens(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


class RequestSchema(fields.WireSchema):
    """``POST /v1/completions``. Fields not listed here pass to OpenAI as they are."""

    model = fields.Word("A model of this service, or an alias.", 256, filled=True, required=True)
    prompt = Prompt("What to complete.")
    max_tokens = fields.Integer("Most tokens to generate; 16 when left out.", 0, fields.MAX_TOKENS)
    temperature = fields.Number("Sampling temperature.", 0, 2)
    top_p = fields.Number("Nucleus sampling.", 0, 1)
    stop = fields.StopSequences("Where to stop.", 4)
    stream = fields.Flag("Answer as server-sent events.")
    stream_options = fields.StreamOptions("include_usage: send a last chunk with the usage.")
    n = fields.Integer("How many choices for each prompt.", 1, 128)
    best_of = fields.Integer("Of how many the best.", 0, 20)
    echo = fields.Flag("Repeat the prompt before the completion.")
    suffix = fields.Word("What comes after the completion.")
    logprobs = fields.Integer("Return log probabilities.", 0, 5)
    logit_bias = fields.JsonObject("Bias by token id.")
    frequency_penalty = fields.Number("Penalty for frequent tokens.", -2, 2)
    presence_penalty = fields.Number("Penalty for repeated tokens.", -2, 2)
    seed = fields.Integer("Best-effort determinism.", -(2**63), 2**63 - 1)
    user = fields.Word("Your end user.")


_SCHEMA = RequestSchema()

CROSSING: Mapping[str, FieldRule] = {
    **dict.fromkeys(("model", "prompt", "max_tokens", "temperature", "top_p"), TRANSLATE),
    **dict.fromkeys(("stop", "stream", "stream_options", "user"), TRANSLATE),
    "seed": drop_unless(),
    "best_of": reject_unless(0, 1),
    "echo": reject_unless(False),
    "frequency_penalty": reject_unless(0),
    "logit_bias": reject_unless({}),
    "logprobs": reject_unless(),
    "n": reject_unless(1),
    "presence_penalty": reject_unless(0),
    "suffix": reject_unless(""),
}


def check(body: Any) -> dict[str, Any]:
    """``body`` if it is a well-formed request, else InvalidRequest naming the field."""
    return validation.check(_SCHEMA, body)


def prompt(body: Mapping[str, Any]) -> list[Any]:
    """The JSON values that hold the prompt, for its keyed hash."""
    return [body.get("prompt"), body.get("suffix")]


def read_request(body: Mapping[str, Any], headers: Mapping[str, str] = _NO_HEADERS) -> Conversation:
    """A checked body as a conversation of one message. Raises UnsupportedParameter naming what cannot cross."""
    dropped = rules.cross(body, CROSSING)
    text = body.get("prompt")
    if isinstance(text, list) and len(text) == 1:
        text = text[0]
    if not isinstance(text, str) or not text:
        validation.unsupported("prompt", "it takes one prompt, as text that is not empty")
    limit = body.get("max_tokens")
    if limit == 0:
        validation.unsupported("max_tokens", "at least one token is generated there")
    stop = body.get("stop")
    return Conversation(
        messages=(Message("user", (Text(text),)),),
        max_tokens=DEFAULT_MAX_TOKENS if limit is None else limit,
        temperature=body.get("temperature"),
        top_p=body.get("top_p"),
        stop=(stop,) if isinstance(stop, str) else tuple(stop or ()),
        user=body.get("user"),
        dropped=tuple(dropped),
    )


# ---- the client's side


def write_answer(call: Call, answer: Answer) -> dict[str, Any]:
    """The reply's JSON object; a verbatim one is the vendor's own with ``usage.cost_usd`` added."""
    written = chat.write_answer(call, answer)
    if answer.body is not None:
        return written
    finish_reason = written["choices"][0]["finish_reason"]
    return {**_head(call, written["model"]), **_choices(answer.text, finish_reason), "usage": written["usage"]}


def _head(call: Call, model: str) -> dict[str, Any]:
    return {"id": f"cmpl-{call.id}", "object": "text_completion", "created": call.created, "model": model}


def _choices(text: str, finish_reason: str | None) -> dict[str, Any]:
    return {"choices": [{"text": text, "index": 0, "logprobs": None, "finish_reason": finish_reason}]}


class StreamEncoder:
    """One stream as ``text_completion`` events, which have the shape of the reply."""

    KEEP_ALIVE: ClassVar[bytes] = KEEP_ALIVE
    __slots__ = ("_call", "_chat", "_model", "_usage", "_verbatim")

    def __init__(self, call: Call) -> None:
        self._call, self._model = call, call.model
        self._chat = chat.StreamEncoder(call)  # for what the two formats have in common
        self._usage: dict[str, Any] = {"usage": None} if wants_usage(call.body) else {}
        self._verbatim = False

    def feed(self, event: Event) -> bytes:
        """The bytes for ``event``; none for those the client does not see."""
        match event:
            case Relay(data):
                return data
            case Delta(text):
                return self._chunk(text)
            case Started():
                self._verbatim, self._model = event.verbatim, event.model or self._model
                self._chat.feed(event)
            case Finished(answer):
                return self._chat.feed(event) if self._verbatim else self._closing(answer)
        return b""

    def error(self, failure: errors.ServiceError, request_id: str = "") -> bytes:
        """The failure as the stream's last event: no ``[DONE]`` follows."""
        return self._chat.error(failure, request_id)

    def _closing(self, answer: Answer) -> bytes:
        written = write_answer(self._call, answer)
        closing = self._chunk("", written["choices"][0]["finish_reason"])
        if self._usage:
            usage = {**_head(self._call, self._model), "choices": [], "usage": written["usage"]}
            closing += sse.json_frame(usage)
        return closing + DONE

    def _chunk(self, text: str, finish_reason: str | None = None) -> bytes:
        return sse.json_frame({**_head(self._call, self._model), **_choices(text, finish_reason), **self._usage})


# ---- the upstream's side


def forward(call: Call, target: Target) -> dict[str, Any]:
    """The client's own body for ``target``; a stream is made to tell its usage, which the client may not see."""
    return chat.forward(call, target)


def read_verbatim(body: Mapping[str, Any], call: Call | None = None) -> Answer:
    """A plain answer that the client gets as it is. Raises UpstreamBroken when it is none."""
    if body.get("error"):  # some servers say 200 and mean 500
        raise upstream.in_band(NAME, read_error(body), ())
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices or not all(isinstance(choice, dict) for choice in choices):
        broken("it has no choices")
    return Answer(
        usage=read_usage(body.get("usage"), sum(map(_characters, choices)), call),
        stop_reason=STOP_REASONS.get(str(choices[0].get("finish_reason")), "other"),
        model=upstream.model_name(body.get("model")),
        body=body,
    )


def _characters(choice: Mapping[str, Any]) -> int:
    text = choice.get("text")
    return len(text) if isinstance(text, str) else 0


class Passthrough(chat.Passthrough):
    """As chat's: chunks differ only in where their text is."""

    __slots__ = ()

    def _chunk(self, data: bytes) -> dict[str, Any]:
        chunk = super()._chunk(data)
        self._characters += sum(_characters(choice) for choice in chunk["choices"] if isinstance(choice, dict))
        return chunk
