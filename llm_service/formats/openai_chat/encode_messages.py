"""OpenAI Chat Completions, the upstream's side: the messages of a request."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llm_service.core.content import (
    Document,
    Image,
    Message,
    Part,
    RedactedThinking,
    Refusal,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
)
from llm_service.core.conversation import Conversation
from llm_service.formats import media, validation
from llm_service.formats.encoding import RequestWriter
from llm_service.formats.openai_chat import servers


def reject_prefill(conversation: Conversation) -> None:
    """OpenAI cannot continue a last message of the assistant: it would begin a new turn after it."""
    if conversation.messages and conversation.messages[-1].role == "assistant":
        path = conversation.messages[-1].path
        validation.unsupported(
            f"{path}.role", "the last message must be a user message: the model cannot continue an answer"
        )


class MessageWriter(RequestWriter):
    """Writes the messages of one request."""

    def messages(self, conversation: Conversation) -> list[dict[str, Any]]:
        reject_prefill(conversation)
        system = self.target.provider.system_role or ("system" if self.target.sampling else "developer")
        written: list[dict[str, Any]] = []
        if conversation.system:
            written.append({"role": system, "content": self._content(conversation.system, ())})
        for message in conversation.messages:
            if message.role == "assistant":
                written.append(self._assistant(message))
            elif message.role == "system":
                written.append({"role": system, "content": self._content(message.parts, message.paths)})
            else:
                written += self._user_turn(message)
        return written

    def _assistant(self, message: Message) -> dict[str, Any]:
        said: list[Part] = []
        thoughts: list[Part] = []
        calls: list[dict[str, Any]] = []
        for part in message.parts:
            if type(part) is ToolCall:
                self._check_hint(part.cache)
                function = {"name": part.name, "arguments": (part.arguments.strip() and part.arguments) or "{}"}
                calls.append({"id": part.id, "type": "function", "function": function})
            elif isinstance(part, Thinking | RedactedThinking):
                thoughts.append(part)
            elif type(part) is Refusal and self.target.provider.own_address:
                said.append(Text(part.text))  # only OpenAI has parts for refusals
            else:
                said.append(part)
        content = self._content(tuple(said), message.paths) if said else None
        written: dict[str, Any] = {"role": "assistant", "content": content}
        if calls:
            written["tool_calls"] = calls
        if not servers.write_thoughts(written, thoughts, self.target.provider.thoughts) and thoughts:
            self.drop("thoughts")
        return written

    def _user_turn(self, message: Message) -> Iterable[dict[str, Any]]:
        results = [part for part in message.parts if type(part) is ToolResult]
        said = message.parts[len(results) :]
        shown: list[dict[str, Any]] = []
        for index, result in enumerate(results):
            yield {"role": "tool", "tool_call_id": result.id, "content": self._result(result, shown, message, index)}
        if shown:  # after all messages of the tools, which must come first
            yield {"role": "user", "content": shown}
        if said:
            yield {"role": "user", "content": self._content(said, message.paths[len(results) :])}

    def _result(self, result: ToolResult, shown: list[dict[str, Any]], message: Message, index: int) -> Any:
        """The text of a tool's result. Its images and documents are added to ``shown``."""
        self._check_hint(result.cache)
        texts = ["Error:"] if result.is_error else []
        others = []
        for part in result.parts:
            if type(part) is Text:
                self._check_hint(part.cache)
                texts.append(part.text)
            else:
                others.append(self._part(part, message.path_of(index)))
        if others:
            texts.append("(The tool's result is in the next user message.)")
            shown += [{"type": "text", "text": f"The result of tool call {result.id}:"}, *others]
        if len(texts) == 1 and not result.is_error:
            return texts[0]
        if result.is_error:
            return " ".join(texts)
        return [{"type": "text", "text": text} for text in texts] if texts else ""

    def _content(self, parts: tuple[Part, ...], paths: tuple[str, ...]) -> Any:
        """A single text as a string, which every server takes. Anything else as a list of parts."""
        if len(parts) == 1 and type(parts[0]) is Text and not self._kept(parts[0].cache):
            self._check_hint(parts[0].cache)
            return parts[0].text
        return [
            self._part(part, paths[index] if index < len(paths) else "messages") for index, part in enumerate(parts)
        ]

    def _part(self, part: Part, path: str) -> dict[str, Any]:
        match part:
            case Text(text, cache):
                written: dict[str, Any] = {"type": "text", "text": text}
            case Image(url, data, media_type, cache, detail):
                shown = {"url": url if url is not None else media.data_url(media_type, data or "")}
                written = {"type": "image_url", "image_url": shown if detail is None else {**shown, "detail": detail}}
            case Document(cache=cache):
                written = _document(part, path)
            case Refusal(text):
                return {"type": "refusal", "refusal": text}
            case _:
                validation.unsupported(path)
        self._check_hint(cache)
        if cache is not None and self._kept(cache):
            written["prompt_cache_breakpoint"] = media.write_cache(cache, media.EXPLICIT, media.OPENAI_TTL)
        return written

    def _kept(self, cache: int | None) -> bool:
        return cache is not None and self.target.cache_breakpoints

    def _check_hint(self, cache: int | None) -> None:
        if cache is not None and not self.target.cache_breakpoints:
            self.drop("cache")


def _document(document: Document, path: str) -> dict[str, Any]:
    if document.file_id is not None:
        return {"type": "file", "file": {"file_id": document.file_id}}
    about = [text for text in (document.title, document.context) if text]
    if document.text is not None:
        return {"type": "text", "text": "\n".join([*about, document.text])}
    if document.data is None:
        validation.unsupported(f"{path}.source", "send the document itself in place of its URL")
    if document.context is not None:
        validation.unsupported(f"{path}.context")
    data = media.data_url(document.media_type, document.data)
    return {"type": "file", "file": {"filename": document.title or "document.pdf", "file_data": data}}
