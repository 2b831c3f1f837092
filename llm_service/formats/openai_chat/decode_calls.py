"""OpenAI Chat Completions, the upstream's side: the tool calls of a stream, put together from their pieces.

OpenAI gives each call an index and repeats only that. Other servers give every call the index 0 (Ollama), none at all,
or a new id in every piece, send the name late or in pieces, and arguments as an object. ``CallTracker`` says which call
a piece belongs to, ``CallSequencer`` puts the calls one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from llm_service.core.call import Call
from llm_service.core.events import Event, ToolCallDelta, ToolCallEnd, ToolCallStart
from llm_service.formats import decoding, tool_calls
from llm_service.formats.decoding import broken
from llm_service.formats.lenient_json import HalfJoiner, is_halved
from llm_service.formats.openai_chat import servers
from llm_service.formats.openai_chat.decode_pieces import arguments_text


class StreamedCall:
    """A tool call as far as it has come.

    ``number`` counts the calls from 0. ``id`` is unique among them, ``given_id`` is what the server sent. ``index`` is
    the server's. ``named`` is what the last piece added to the name. ``extra`` is a piece with ``extra_content``.
    """

    __slots__ = ("extra", "given_id", "id", "index", "name", "named", "number", "pieces", "sent", "started")

    def __init__(self, number: int, id: str, given_id: str, index: int | None) -> None:
        self.number, self.id, self.given_id, self.index = number, id, given_id, index
        self.name = self.named = ""
        self.pieces: list[str] = []
        self.sent = 0  # how many of the pieces were passed on
        self.started = False
        self.extra: Mapping[str, Any] | None = None

    @property
    def arguments(self) -> str:
        return "".join(self.pieces)

    def is_whole(self) -> bool:
        """Whether its arguments are a complete JSON object."""
        if not self.pieces or not self.pieces[-1].rstrip().endswith("}"):
            return False
        return tool_calls.is_arguments(self.arguments)


def call_id(given: Any, number: int, call: Call | None) -> str:
    """The call's id. Where the server sends none, the call gets one that is unique in the conversation."""
    return given if isinstance(given, str) and given else f"call_{call.id if call else ''}{number}"


class CallTracker:
    """Says which call a piece belongs to, and keeps the pieces."""

    def __init__(self, call: Call | None) -> None:
        self.calls: list[StreamedCall] = []
        self._call = call
        self._by_id: dict[str, StreamedCall] = {}
        self._by_index: dict[int, StreamedCall] = {}
        self.last: StreamedCall | None = None  # the call of the last piece
        self._joiner = HalfJoiner()

    def resume(self, given: Any) -> StreamedCall | None:
        """The call of a regular piece, after it was added: more of the arguments of the last call, as most are.

        None for all other pieces: they are for ``add_all``.
        """
        call = self.last
        if call is None or type(given) is not list or len(given) != 1:
            return None
        item = given[0]
        if type(item) is not dict or len(item) != 2 or item.get("index") != call.index:
            return None
        function = item.get("function")
        if type(function) is not dict or len(function) != 1:
            return None
        text = function.get("arguments")
        if type(text) is not str or not text or (not text.isascii() and is_halved(text)) or self._joiner.holds:
            return None
        call.named = ""
        call.pieces.append(text)
        return call

    def add_all(self, given: Any) -> Iterator[tuple[StreamedCall, Mapping[str, Any]]]:
        """The call of each item of a delta's ``tool_calls``, after the item was added to it."""
        if type(given) is not list:
            broken("its tool calls are not a list")
        seen: set[int] = set()
        for item in given:
            call = self._add(item, seen)
            seen.add(call.number)
            self.last = call
            yield call, item

    def _add(self, item: Any, seen: set[int]) -> StreamedCall:
        if type(item) is not dict or item.get("type") not in (None, "", "function"):
            broken("a tool call is not of a function")
        function, index = item.get("function") or {}, item.get("index")
        if type(function) is not dict or (index is not None and type(index) is not int):
            broken("a tool call is not of a function, or has no index")
        id = item.get("id") or function.get("id")  # llama.cpp had it in the function
        id, name, arguments = id if type(id) is str else "", function.get("name") or "", function.get("arguments")
        if type(name) is not str or (arguments and type(arguments) not in (str, dict)):
            broken("a tool call's name or arguments are not a string")
        text = arguments_text(arguments)
        call = self._find(id, index, name, text, seen) or self._begin(id, index)
        if index is not None:
            call.index = index
            self._by_index[index] = call
        if id and not call.given_id:  # it came late
            call.given_id = id
            if self._by_id.setdefault(id, call) is call and not call.started:
                call.id = id
        if servers.EXTRA in item:
            call.extra = item
        call.named = name if name != call.name and not (call.name and call.pieces) else ""
        call.name += call.named
        if text and (joined := self._joiner.join(call.number, text)):
            call.pieces.append(joined)
        return call

    def _find(self, id: str, index: int | None, name: str, text: str, seen: set[int]) -> StreamedCall | None:
        """The call that a piece goes on with; None if it begins a call."""
        last = self.calls[-1] if self.calls else None
        call = last if index is None else self._by_index.get(index)
        if id and id in self._by_id:
            known = self._by_id[id]
            if call is None or call.given_id != id:
                call = known
                if name and index is not None and known.index not in (None, index):  # two calls have the same id
                    return None
        elif call is None:
            # Without an id and a name it is the last call, whose index comes late.
            call = last if not id and not name and last is not None and last.index is None else None
        elif self._begins(call, id, name, text):
            return None
        # No server sends two pieces of one call at once and repeats its name in the second one.
        return None if call is None or (name and call.number in seen) else call

    def _begins(self, call: StreamedCall, id: str, name: str, text: str) -> bool:
        """Whether a piece at the index of ``call``, with an id that is not known or none, begins another call."""
        if id and call.given_id:
            # Some servers make a new id for every piece: such a piece has no name, and the arguments go on.
            return bool(name) or (bool(text) and call.is_whole())
        if not name or not call.name:
            return False
        if name == call.name:  # repeated with every piece, or called twice
            return bool(text) and call.is_whole()
        return bool(call.pieces) or {name, call.name} <= decoding.tool_names(self._call)

    def _begin(self, id: str, index: int | None) -> StreamedCall:
        number = len(self.calls)
        unique = call_id("" if id in self._by_id else id, number, self._call)
        call = StreamedCall(number, unique, id, index)
        self.calls.append(call)
        if id:
            self._by_id.setdefault(id, call)
        return call


class CallSequencer(CallTracker):
    """Puts the calls one after the other, because their pieces may come interleaved.

    The pieces of the open call pass as soon as its name is known. The pieces of the other calls wait until its
    arguments are complete or the answer ends.
    """

    def __init__(self, call: Call | None) -> None:
        super().__init__(call)
        self._open = 0  # the number of the open call; the calls before it have ended

    @property
    def idle(self) -> bool:
        return self._open == len(self.calls)

    def feed(self, given: Any) -> Iterator[Event]:
        """The events of a delta's ``tool_calls``."""
        resumed = self.resume(given)
        if resumed is not None and resumed.number == self._open:
            if resumed.started and resumed.sent == len(resumed.pieces) - 1:
                resumed.sent += 1
                yield ToolCallDelta(resumed.number, resumed.pieces[-1])
            else:
                yield from self._pass_on(resumed)
            return
        if resumed is not None:
            if resumed.number < self._open:
                broken("a tool call went on after its end")
            return
        known = len(self.calls)
        for call, _ in self.add_all(given):
            if call.number < self._open:
                if call.pieces and call.sent < len(call.pieces):
                    broken("a tool call went on after its end")
                continue
            if call.number >= known:
                known += 1
                yield from self._end_whole(call.number)
            if call.number == self._open:
                yield from self._pass_on(call)

    def end_whole(self) -> Iterator[Event]:
        """End the open call if its arguments are complete, then all waiting calls whose arguments are complete."""
        return self._end_whole(len(self.calls))

    def end(self, *, cut: bool) -> Iterator[Event]:
        """End all calls. ``cut``: the answer was cut, perhaps in the middle of a call.

        Raises UpstreamBroken for a call that is not complete.
        """
        while not self.idle:
            call = self.calls[self._open]
            check_arguments(call.arguments, cut=cut)
            if not call.name and cut:
                self._open += 1
            else:
                yield from self._end(call)

    def _end_whole(self, limit: int) -> Iterator[Event]:
        while self._open < limit and self.calls[self._open].is_whole():
            yield from self._end(self.calls[self._open])

    def _end(self, call: StreamedCall) -> Iterator[Event]:
        if not call.name:
            broken("a tool call has no name")
        yield from self._start(call)
        yield from self._pass_on(call)
        yield ToolCallEnd(call.number)
        self._open += 1
        if not self.idle:
            yield from self._pass_on(self.calls[self._open])

    def _start(self, call: StreamedCall) -> Iterator[Event]:
        if not call.started:
            call.started = True
            if call.extra is not None:
                yield from servers.carried([(call.id, call.extra)])
            yield ToolCallStart(call.number, call.id, call.name)

    def _pass_on(self, call: StreamedCall) -> Iterator[Event]:
        """What of the open call was not passed on yet. Its name may come in pieces until its arguments begin."""
        if call.sent == len(call.pieces) or not call.name:
            return
        yield from self._start(call)
        text = "".join(call.pieces[call.sent :])
        call.sent = len(call.pieces)
        yield ToolCallDelta(call.number, text)


def check_arguments(arguments: str, *, cut: bool) -> None:
    """Raises UpstreamBroken unless the arguments are a JSON object, or the answer was ``cut`` in the middle of them."""
    if not cut and not tool_calls.is_arguments(arguments):
        broken("a tool call's arguments are not a JSON object")
