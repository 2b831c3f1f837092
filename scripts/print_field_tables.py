"""Print the tables of fields into docs/fields*.md from the tables of the code and the notes of ``field_notes``.

    .venv/bin/python scripts/print_field_tables.py           # write the tables
    .venv/bin/python scripts/print_field_tables.py --check   # exit with 1 if a document has other tables

A document says where a table belongs: between ``<!-- fields: NAME -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from llm_service.formats import storage  # noqa: E402
from llm_service.formats.anthropic_messages import decode_messages as messages_content  # noqa: E402
from llm_service.formats.anthropic_messages import decode_request as messages_request  # noqa: E402
from llm_service.formats.anthropic_messages import decode_tools as messages_tools  # noqa: E402
from llm_service.formats.anthropic_messages import encode_request as messages_target  # noqa: E402
from llm_service.formats.anthropic_messages import schema as messages  # noqa: E402
from llm_service.formats.openai_chat import decode_messages as chat_content  # noqa: E402
from llm_service.formats.openai_chat import decode_tools as chat_tools  # noqa: E402
from llm_service.formats.openai_chat import extra_rules as chat_target  # noqa: E402
from llm_service.formats.openai_chat import schema as chat  # noqa: E402
from llm_service.formats.openai_responses import decode_messages as responses_content  # noqa: E402
from llm_service.formats.openai_responses import decode_parts as responses_parts  # noqa: E402
from llm_service.formats.openai_responses import decode_request as responses_request  # noqa: E402
from llm_service.formats.openai_responses import decode_tools as responses_tools  # noqa: E402
from llm_service.formats.openai_responses import encode_request as responses_target  # noqa: E402
from llm_service.formats.openai_responses import schema as responses  # noqa: E402
from llm_service.formats.rules import HINTS, NOTES, REJECT, ExtraField, FieldRule  # noqa: E402
from llm_service.formats.small import completions, count_tokens, embeddings, input_tokens, simple  # noqa: E402
from scripts import field_notes  # noqa: E402

DOCUMENTS: Final = tuple(ROOT / "docs" / name for name in ("fields.md", "fields_responses.md", "fields_others.md"))
TARGETS: Final[Mapping[str, tuple[str, Mapping[str, FieldRule]]]] = {
    "chat": ("OpenAI chat", chat_target.EXTRA_RULES),
    "responses": ("OpenAI Responses", responses_target.EXTRA_RULES),
    "messages": ("Anthropic Messages", messages_target.EXTRA_RULES),
}


@dataclass(frozen=True, slots=True)
class Request:
    """The fields of a client's request, and the formats that it may be translated into.

    ``rejected`` names the extra fields that the format's own reader rejects, whatever the target is. ``rewritten``
    names those that it writes as fields of another type, so that the target's neutral values are not theirs.
    """

    common: Collection[str]
    extras: Mapping[str, ExtraField]
    targets: tuple[str, ...]
    rejected: Collection[str] = ()
    rewritten: Collection[str] = ()

    def fields(self) -> list[str]:
        return [*sorted(self.common), *sorted(self.extras)]

    def rule(self, field: str, target: str) -> FieldRule:
        """What happens to the extra field ``field``."""
        if field in self.rejected:
            return REJECT
        return TARGETS[target][1].get(self.extras[field].name, REJECT)

    def neutral(self, field: str) -> list[Any]:
        """The values that mean the same as no field."""
        if field in self.common:
            return []
        found = list(self.extras[field].neutral)
        for target in () if field in self.rewritten else self.targets:
            found += [value for value in self.rule(field, target).neutral if _json(value) not in map(_json, found)]
        return found


REQUESTS: Final[Mapping[str, Request]] = {
    "chat": Request(chat.COMMON, chat.EXTRAS, ("responses", "messages")),
    "messages": Request(messages.COMMON, messages.EXTRAS, ("chat", "responses")),
    "responses": Request(
        responses.COMMON,
        {**responses.EXTRAS, **{f"text.{name}": field for name, field in responses.TEXT_EXTRAS.items()}},
        ("chat", "messages"),
        rejected={*storage.NEEDING, "prompt"},
    ),
    "completions": Request(
        completions.COMMON, completions.EXTRAS, ("chat", "responses", "messages"), rewritten={"logprobs"}
    ),
}

# What happens to the members of a message, a part, a tool, ... is the same for every target.
NESTED: Final[Mapping[str, Mapping[str, FieldRule]]] = {
    "chat: message": chat_content.MESSAGE_CROSSING,
    "chat: function message": chat_content.FUNCTION_MESSAGE_CROSSING,
    **{f"chat: call of a {kind}": table for kind, table in chat_tools.CALL_CROSSING.items()},
    **{f"chat: part {kind}": table for kind, table in chat_content.PART_CROSSING.items()},
    "chat: image_url": chat_content.IMAGE_CROSSING,
    "chat: file": chat_content.FILE_CROSSING,
    **{f"chat: tool {kind}": table for kind, table in chat_tools.TOOL_CROSSING.items()},
    "chat: function": chat_tools.FUNCTION_CROSSING,
    "chat: custom": chat_tools.CUSTOM_CROSSING,
    "chat: json_schema": chat_content.SCHEMA_CROSSING,
    "messages: metadata": messages_request.METADATA_CROSSING,
    "messages: message": messages_content.MESSAGE_CROSSING,
    **{f"messages: block {kind}": table for kind, table in messages_content.BLOCK_CROSSING.items()},
    "messages: tool": messages_tools.TOOL_CROSSING,
    "messages: tool_choice": messages_tools.CHOICE_CROSSING,
    "messages: thinking": messages_request.THINKING_CROSSING,
    "messages: output_config": messages_request.CONFIG_CROSSING,
    "messages: output_config.format": messages_request.FORMAT_CROSSING,
    "responses: text": responses_request.TEXT_CROSSING,
    "responses: text.format": responses_request.FORMAT_CROSSING,
    "responses: reasoning": responses_request.REASONING_CROSSING,
    **{f"responses: tool {kind}": table for kind, table in responses_tools.TOOL_CROSSING.items()},
    **{
        f"responses: {'reasoning item' if kind == 'reasoning' else kind}": table
        for kind, table in responses_content.ITEM_CROSSING.items()
    },
    **{
        f"responses: {'text part' if kind == 'text' else kind}": table
        for kind, table in responses_parts.PART_CROSSING.items()
    },
}

# The routes that count tokens read a request by the tables of the format for which they count.
COUNTED: Final[Mapping[str, tuple[Request, str, Collection[str]]]] = {
    "messages/count_tokens": (REQUESTS["messages"], "responses", count_tokens.FIELDS),
    "responses/input_tokens": (REQUESTS["responses"], "messages", input_tokens.FIELDS),
}
LISTED: Final[Mapping[str, tuple[str, Collection[str]]]] = {
    "embeddings": ("passes", tuple(embeddings.RequestSchema().fields)),
    "simple": ("translate", tuple(simple.RequestSchema().fields)),
}


def tables() -> dict[str, str]:
    """Every table by its name."""
    return {
        "housekeeping": ", ".join(f"`{name}`" for name in sorted(HINTS)),
        "notes": ", ".join(f"`{name}`" for name in sorted(NOTES)),
        **{name: _request_table(name, request) for name, request in REQUESTS.items()},
        **{name: _nested_table(name, table) for name, table in NESTED.items()},
        **{name: _counted_table(name, *row) for name, row in COUNTED.items()},
        **{
            name: _table(("field", "rule", "note"), ((f"`{field}`", rule, _note(name, field)) for field in fields))
            for name, (rule, fields) in LISTED.items()
        },
    }


def _request_table(name: str, request: Request) -> str:
    titles = (TARGETS[target][0] for target in request.targets)
    rows = (
        (f"`{field}`", _values(request.neutral(field)), *(_cell(name, request, field, to) for to in request.targets))
        for field in request.fields()
    )
    return _table(("field", "no effect", *titles), rows)


def _cell(name: str, request: Request, field: str, target: str) -> str:
    """The rule of a field towards one target, the target's name for it, and the note."""
    words = ["translate"]
    if field in request.extras:
        rule = request.rule(field, target)
        words = [rule.how]
        written = rule.field or request.extras[field].name
        if rule.how == "translate" and written not in (field, field.rpartition(".")[2]):
            words.append(f"`{written}`")
        older = chat_target.OLDER_SERVERS.get(request.extras[field].name) if target == "chat" else None
        if older is not None and older.how != rule.how and field not in request.rejected:
            words.append(f"{older.how} for an older server")
    note = field_notes.REQUESTS[name].get(field, {}).get(target)
    how, rest = _with_note(", ".join(words), note or "")
    return f"{how}: {rest}" if rest else how


def _with_note(how: str, note: str) -> tuple[str, str]:
    """The rule and the rest of the note: a note that begins with ``drop`` replaces the rule."""
    if note == "drop" or note.startswith("drop: "):
        return "drop", note[6:]
    return how, note


def _nested_table(name: str, table: Mapping[str, FieldRule]) -> str:
    notes = field_notes.NESTED.get(name, {})
    rows = []
    for field in sorted(table):
        how, note = _with_note(table[field].how, notes.get(field, ""))
        rows.append((f"`{field}`", how, _values(table[field].neutral), note))
    return _table(("field", "rule", "no effect", "note"), rows)


def _counted_table(name: str, request: Request, target: str, fields: Collection[str]) -> str:
    rows = []
    for field in sorted(fields):
        how: str = "translate" if field in request.common else REJECT.how
        if field in request.extras:
            how = request.rule(field, target).how
        neutral = request.neutral(field) if field in request.extras else ()
        how, note = _with_note(how, _note(name, field))
        rows.append((f"`{field}`", how, _values(neutral), note))
    return _table(("field", "rule", "no effect", "note"), rows)


def _note(name: str, field: str) -> str:
    return field_notes.COUNTED[name].get(field, "")


def _values(values: Collection[Any]) -> str:
    if len(values) > 4:  # the index of a tool call
        return "any number"
    return ", ".join(f"`{_json(value)}`" for value in values)


def _json(value: Any) -> str:
    return json.dumps(value)


def _table(titles: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    titles = tuple(titles)
    return "\n".join(_line(row) for row in (titles, ["---"] * len(titles), *rows))


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


_PLACE: Final = re.compile(r"(<!-- fields: (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)


def printed(document: str) -> str:
    """``document`` with the tables of the code at their places."""
    known = tables()
    return _PLACE.sub(lambda match: f"{match[1]}\n{known[match[2]]}\n\n{match[3]}", document)


def places(document: str) -> Iterator[str]:
    """The names of the tables that ``document`` has a place for."""
    return (match[2] for match in _PLACE.finditer(document))


def main(arguments: list[str]) -> int:
    different = []
    for path in DOCUMENTS:
        before = path.read_text(encoding="utf-8")
        after = printed(before)
        if after != before:
            different.append(path.name)
            if "--check" not in arguments:
                path.write_text(after, encoding="utf-8")
    if different and "--check" in arguments:
        print(f"The tables are not those of the code: {', '.join(different)}. Run scripts/print_field_tables.py.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
