"""OpenAI Chat Completions: what travels verbatim between a client and an upstream of this format."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from llm_service.core import identifiers
from llm_service.core.call import Call
from llm_service.core.errors import UpstreamError
from llm_service.core.events import Answer, Event, Finished, Relay, Started
from llm_service.core.target import Target
from llm_service.formats import sse, storage
from llm_service.formats.openai_chat import history
from llm_service.formats.openai_chat.decode_answer import STOP_REASONS, characters_of, choices_of, read_usage
from llm_service.formats.openai_chat.decode_stream import ChunkStream, read_delta, read_finish_reason
from llm_service.formats.openai_chat.encode_answer import usage_object
from llm_service.formats.openai_chat.encode_stream import DONE
from llm_service.formats.openai_chat.schema import KEEP_ALIVE, wants_usage


def takes(call: Call, target: Target) -> bool:
    """Whether the model takes the request at the chat route. Some models take tools only at ``/v1/responses``."""
    if target.chat_tools == "always" or not target.provider.responses:
        return True
    offers_tools = call.body.get("tools") or call.body.get("functions")
    return not offers_tools or target.takes_chat_tools(call.body.get("reasoning_effort"))


def forward(call: Call, target: Target) -> dict[str, Any]:
    """The client's own body for ``target``. A stream is asked for its usage, even where the client did not ask.

    Raises UnsupportedParameter for storage that is not allowed.
    """
    storage.check(call, target.provider)
    body = {**call.body, "model": target.model}
    if "messages" in body:
        # Without the field a setting of OpenAI's account decides (docs/privacy.md). Few other servers know it.
        storage.write(body, target.provider, by_default=not target.provider.own_address)
        _name_limit(body, target.provider.max_tokens_field)
        to_openai = not target.provider.own_address
        unnamed: dict[str, None] = {}  # ``left_out`` names them
        body["messages"] = history.forwarded(body["messages"], to_openai=to_openai, dropped=unnamed)
        if to_openai and body.get("tools"):
            body["tools"] = history.forwarded_tools(body["tools"], unnamed)
    if call.stream:
        body["stream_options"] = {**(call.body.get("stream_options") or {}), "include_usage": True}
    return body


def left_out(call: Call, *, to_openai: bool = True) -> tuple[str, ...]:
    """The names of the fields that ``forward`` leaves out of a chat request."""
    dropped: dict[str, None] = {}
    history.forwarded(call.body["messages"], to_openai=to_openai, dropped=dropped)
    if to_openai:
        history.forwarded_tools(call.body.get("tools") or (), dropped)
    return tuple(dropped)


def _name_limit(body: dict[str, Any], field: str) -> None:
    """Give the limit of the output the name that an older server knows: it would ignore the newer one."""
    if field == "max_tokens" and body.get("max_tokens") is None and body.get("max_completion_tokens") is not None:
        body["max_tokens"] = body.pop("max_completion_tokens")


def read_verbatim(body: Mapping[str, Any], call: Call | None = None) -> Answer:
    """A plain answer that the client gets unchanged. Raises UpstreamBroken when ``body`` is not an answer."""
    choices = choices_of(body)
    messages = [choice.get("message") for choice in choices]
    characters = sum(characters_of(message) for message in messages if isinstance(message, dict))
    return Answer(
        usage=read_usage(body.get("usage"), characters, call, body.get("service_tier")),
        stop_reason=STOP_REASONS.get(str(choices[0].get("finish_reason")), "other"),
        model=identifiers.model_name(body.get("model")),
        body=body,
    )


def _plain_text(choice: Any) -> int:
    """The length of the text of a choice that holds only text, as most do; 0 for all other choices."""
    try:
        if choice["finish_reason"] is not None:
            return 0
        content = choice["delta"]["content"]
    except (KeyError, TypeError, IndexError):
        return 0
    return len(content) if type(content) is str else 0


class Passthrough(ChunkStream):
    """A stream that is relayed unchanged, except for its usage chunk, which is held back.

    If the client asked for the usage chunk, it is the tail of ``Finished``, and
    ``StreamEncoder`` adds the cost to it. Otherwise it is left out, and the ``usage: null``
    members of the other chunks are removed too.
    """

    __slots__ = ("_alike", "_asked", "_held", "_reported", "_usage_frame")

    def __init__(self, call: Call) -> None:
        super().__init__(call)
        self._alike = sse.Alike()
        self._asked = wants_usage(call.body)
        self._held: list[bytes] = []  # frames not yet relayed
        self._reported = 0  # the number of characters already relayed
        self._usage_frame: bytes | None = None

    def feed_many(self, blocks: Iterable[bytes]) -> Iterator[Event]:
        if self.finished:
            return
        begun = self._first is not None
        answer: Answer | None = None
        failure: UpstreamError | None = None
        try:
            for block in blocks:
                if length := self._alike.length(block):
                    self._characters += length
                    self._held.append(block)
                    continue
                _, data = sse.parse(block)
                if data.startswith(b"[DONE]"):
                    answer = self._end()
                    break
                self._read_block(block, data)
        except UpstreamError as error:
            failure = error
        if not begun and self._first is not None:
            yield Started(model=self._model(), verbatim=True)
        if self._held and self._first is not None:
            yield self._relay()
        if failure is not None:
            raise failure
        if answer is not None:
            yield Finished(answer, self._tail(answer))

    def _read_block(self, block: bytes, data: bytes) -> None:
        if not data:
            # The OpenAI SDK fails on an event without data, so the client gets a comment in its place.
            if self._first is not None:
                self._held.append(KEEP_ALIVE)
            return
        chunk = self._chunk(data)
        if self._first is None:
            self._first = chunk
        choices = chunk["choices"]
        if len(choices) == 1 and (length := _plain_text(choices[0])):
            self._characters += length
            self._held.append(block)
            if chunk.get("usage") is None:
                self._alike.learn(block, choices[0]["delta"]["content"])
            return
        if not choices and chunk.get("usage") is not None:
            self._usage_frame = block
            return
        for given in choices:
            choice, delta = read_delta(given)
            content = delta.get("content")
            self._characters += len(content) if type(content) is str and content else characters_of(delta)
            if choice.get("finish_reason") is not None:
                self._finish_reason = read_finish_reason(choice)
        self._held.append(block)

    def _relay(self) -> Relay:
        data = b"".join(self._held)
        self._held.clear()
        characters, self._reported = self._characters - self._reported, self._characters
        if not self._asked:
            # These bytes are always a member: inside a string the quotes would be escaped.
            plain = data.replace(b',"usage":null', b"")
            data = plain if plain is not data else data.replace(b', "usage": null', b"")
        return Relay(data, characters)

    def _tail(self, answer: Answer) -> bytes:
        if not self._asked:
            return DONE
        if self._usage_frame is not None:
            return self._usage_frame + DONE
        # The client asked for the usage, and the server sent none: the client gets our own counts.
        assert self._first is not None
        chunk = {**self._first, "choices": [], "usage": usage_object(answer.usage, None)}
        return sse.json_frame(chunk) + DONE
