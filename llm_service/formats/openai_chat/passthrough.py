"""OpenAI Chat Completions: what travels verbatim between a client and an upstream of this format."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from llm_service.core import identifiers
from llm_service.core.call import Call
from llm_service.core.errors import UpstreamError
from llm_service.core.events import Answer, Event, Finished, Relay, Started, StopReason
from llm_service.core.target import Target
from llm_service.formats import sse, storage
from llm_service.formats.decoding import broken
from llm_service.formats.openai_chat import finish_reasons, history, servers
from llm_service.formats.openai_chat.decode_answer import choices_of, stop_reason_of, usage_in
from llm_service.formats.openai_chat.decode_chunk import ChunkStream, index_of
from llm_service.formats.openai_chat.decode_pieces import characters_of
from llm_service.formats.openai_chat.encode_answer import usage_object
from llm_service.formats.openai_chat.encode_stream import DONE
from llm_service.formats.openai_chat.relay_calls import CallRepairer
from llm_service.formats.openai_chat.schema import KEEP_ALIVE, wants_usage


def takes(call: Call, target: Target) -> bool:
    """Whether the model takes the request at the chat route. Some models, or their tools, are only at /v1/responses."""
    if (target.chat_route and target.chat_tools == "always") or not target.provider.responses:
        return True
    if not target.chat_route:
        return False
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
        _name_limit(body, call, target)
        to_openai = not target.provider.own_address
        unnamed: dict[str, None] = {}  # ``left_out`` names them
        body["messages"] = history.forwarded(body["messages"], to_openai=to_openai, dropped=unnamed)
        if to_openai and body.get("tools"):
            body["tools"] = history.forwarded_tools(body["tools"], unnamed)
    if call.stream:
        body["stream_options"] = {**(call.body.get("stream_options") or {}), "include_usage": True}
    servers.fit(body, target.provider)
    return body


def left_out(call: Call, *, to_openai: bool = True) -> tuple[str, ...]:
    """The names of the fields that ``forward`` leaves out of a chat request."""
    dropped: dict[str, None] = {}
    history.forwarded(call.body["messages"], to_openai=to_openai, dropped=dropped)
    if to_openai:
        history.forwarded_tools(call.body.get("tools") or (), dropped)
    return tuple(dropped)


def _name_limit(body: dict[str, Any], call: Call, target: Target) -> None:
    """Give the limit of the output the name that the server knows.

    An older server would ignore the newer name, or reject it. OpenAI's reasoning models reject the older one, and a
    caller whose request falls back to them wrote it for another target.
    """
    older, newer = body.get("max_tokens"), body.get("max_completion_tokens")
    if target.provider.max_tokens_field == "max_tokens":
        if newer is not None and older is None:
            body["max_tokens"] = body.pop("max_completion_tokens")
    elif older is not None and newer is None and _was_for_another(call, target):
        body["max_completion_tokens"] = body.pop("max_tokens")


def _was_for_another(call: Call, target: Target) -> bool:
    """Whether the caller's limit has the name that an earlier target of the alias wants, and not this one."""
    if not call.targets or call.targets[0].name == target.name:
        return False
    to_openai = not target.provider.own_address
    return to_openai or call.targets[0].provider.max_tokens_field == "max_tokens"


def read_verbatim(body: Mapping[str, Any], call: Call | None = None) -> Answer:
    """A plain answer that the client gets unchanged. Raises UpstreamBroken when ``body`` is not an answer."""
    choices = choices_of(body)
    messages = [choice.get("message") for choice in choices]
    characters = sum(characters_of(message) for message in messages if isinstance(message, dict))
    reasons = [stop_reason_of(choice) for choice in choices]
    return Answer(
        usage=usage_in(body, characters, call),
        stop_reason=reasons[0],
        model=identifiers.model_name(body.get("model")),
        body=body,
    )


def _plain_text(choice: Any) -> int:
    """The length of the text of a choice that holds only text, as most do; 0 for all other choices."""
    try:
        if choice.get("finish_reason") is not None or "error" in choice:
            return 0
        content = choice["delta"].get("content")
    except (AttributeError, KeyError, TypeError):
        return 0
    return len(content) if type(content) is str else 0


def _says_something(choice: Any) -> bool:
    """Whether a choice is more than the empty one that LiteLLM sends with the usage."""
    return type(choice) is not dict or any(value for name, value in choice.items() if name != "index")


class Passthrough(ChunkStream):
    """A stream that is relayed unchanged, except for its usage chunk, which is held back.

    If the client asked for the usage chunk, it is the tail of ``Finished``, and
    ``StreamEncoder`` adds the cost to it. Otherwise it is left out, and the ``usage: null``
    members of the other chunks are removed too.

    Chunks that OpenAI's SDKs cannot read are repaired (``_repaired``), and those that add nothing become comments.
    """

    __slots__ = ("_alike", "_asked", "_calls", "_held", "_reasons", "_reported", "_usage_chunk")

    def __init__(self, call: Call) -> None:
        super().__init__(call)
        self._alike = sse.Alike()
        self._asked = wants_usage(call.body)
        self._calls: dict[int, CallRepairer] = {}  # by choice
        self._held: list[bytes] = []  # frames not yet relayed
        self._reasons: dict[int, StopReason | None] = {}  # by choice: why it ended; None while it has not
        self._reported = 0  # the number of characters already relayed
        self._usage_chunk: tuple[bytes, Mapping[str, Any]] | None = None  # its frame and its JSON

    def feed_many(self, blocks: Iterable[bytes]) -> Iterator[Event]:
        if self.finished:
            return
        begun = self._begun
        answer: Answer | None = None
        failure: UpstreamError | None = None
        try:
            for block in blocks:
                if length := self._alike.length(block):
                    self._characters += length
                    self._held.append(block)
                    continue
                event, data = sse.parse(block)
                if data.startswith(b"[DONE]"):
                    answer = self._answer(self._reasons, marked=True)
                    self._begun = True
                    break
                self._read_block(block, data, event)
        except UpstreamError as error:
            failure = error
        if self._begun and not begun:
            yield Started(model=self._model(), verbatim=True)
        if self._held and self._begun:
            yield self._relay()
        if failure is not None:
            raise failure
        if answer is not None:
            self.finished = True
            yield Finished(answer, self._tail(answer))

    def end(self) -> Iterator[Event]:
        if not self.finished and self._begun and self._reasons and None not in self._reasons.values():
            answer = self._answer(self._reasons, marked=False)
            self.finished = True
            yield Finished(answer, self._tail(answer))

    def _read_block(self, block: bytes, data: bytes, event: bytes | None) -> None:
        # The OpenAI SDK fails on an event without data and on a chunk without choices: the client gets a comment.
        chunk = self._chunk(data, event) if data else {}
        choices = chunk.get("choices")
        if not choices or (chunk.get("usage") is not None and not any(map(_says_something, choices))):
            self._read_empty(block, chunk)
            return
        if len(choices) == 1 and (length := _plain_text(choices[0])):
            self._characters += length
            self._held.append(block)
            self._begun = True
            self._reasons[index_of(choices[0])] = None
            if chunk.get("usage") is None:
                self._alike.learn(block, choices[0]["delta"]["content"])
            return
        if self._calls and len(choices) == 1 and (length := self._more_of_a_call(choices[0])):
            self._characters += length
            self._held.append(block)
            return
        shown = [self._read_choice(chunk, choice) for choice in choices]
        if shown != choices:
            block = sse.json_frame({**chunk, "object": "chat.completion.chunk", "choices": shown})
        self._held.append(block)

    def _more_of_a_call(self, choice: Any) -> int:
        """The length of a choice that only goes on with its last tool call, as most do; 0 for all other choices."""
        try:
            if choice.get("finish_reason") is not None or "error" in choice or len(choice["delta"]) != 1:
                return 0
            return self._calls[index_of(choice)].passed(choice["delta"]["tool_calls"])
        except (AttributeError, KeyError, TypeError):
            return 0

    def _read_empty(self, block: bytes, chunk: Mapping[str, Any]) -> None:
        """A block without choices: a comment, a heartbeat, the usage, or what Azure's filters found."""
        if chunk.get("usage") is not None:
            self._usage_chunk = block, chunk
        elif chunk.get("choices") == []:
            self._held.append(block)
        elif self._begun:
            self._held.append(KEEP_ALIVE)

    def _read_choice(self, chunk: Mapping[str, Any], choice: Any) -> Mapping[str, Any]:
        """Note what a choice says. Returns the choice itself, or what the client gets in its place."""
        if type(choice) is not dict:
            broken("a choice is not an object")
        delta = choice.get("delta")
        if type(delta) is not dict:
            delta = self._message_of(choice)
        characters = characters_of(delta)
        self._characters += characters
        adds = characters > 0 or any(value for name, value in delta.items() if name != "role")
        self._note_choice(chunk, choice, adds=adds)
        if delta.get("tool_calls"):
            delta = self._calls.setdefault(index_of(choice), CallRepairer(self._call)).repaired(delta)
        shown: dict[str, Any] = choice
        if choice.get("finish_reason") and self._reasons[index_of(choice)] is None:
            shown = {**choice, "finish_reason": None}  # some servers write "null", which clients take for an end
        if delta is choice.get("delta"):
            return shown
        return {**{name: value for name, value in shown.items() if name != "message"}, "delta": delta}

    def _note_choice(self, chunk: Mapping[str, Any], choice: Mapping[str, Any], *, adds: bool) -> None:
        """Note whether the choice ended. ``adds``: the chunk adds something to it, so it goes on."""
        index = index_of(choice)
        reason = None
        if choice.get("finish_reason") or "error" in choice:
            self._note_last_usage(chunk, choice)
            reason = finish_reasons.read(choice)
        self._begun = self._begun or adds or reason is not None
        if reason is not None:
            self._alike = sse.Alike()  # text after the end must be seen
        if adds or reason is not None or index not in self._reasons:
            self._reasons[index] = reason

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
        first = self._first or {}
        if self._usage_chunk is None:  # the client gets our own counts
            return sse.json_frame({**first, "choices": [], "usage": usage_object(answer.usage, None)}) + DONE
        block, chunk = self._usage_chunk
        if self._is_strict and chunk["choices"] == [] and chunk["usage"] == self._usage:
            return block + DONE
        return sse.json_frame({**first, **chunk, "choices": [], "usage": self._usage}) + DONE
