"""What the writers of upstream requests share: the names of what is left out, and the rules for extra fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_service.core.call import Call
from llm_service.core.conversation import Conversation
from llm_service.core.target import Target
from llm_service.formats import validation
from llm_service.formats.rules import REJECT, FieldRule


class RequestWriter:
    """One request to ``target``. ``dropped`` holds, in the client's words, the names of what is left out."""

    def __init__(self, call: Call, conversation: Conversation, target: Target) -> None:
        self.call, self.conversation, self.target = call, conversation, target
        self.dropped: dict[str, None] = {}

    def client_name(self, name: str) -> str:
        """What the client's format calls a field of ``Conversation``."""
        return self.conversation.field_names.get(name, name)

    def drop(self, name: str) -> None:
        """Leave out a field of ``Conversation`` and name it."""
        self.dropped[self.client_name(name)] = None

    def write_extras(self, rules: Mapping[str, FieldRule], body: dict[str, Any]) -> None:
        """Write, drop or reject each extra field of the conversation by the target's ``rules``.

        Raises UnsupportedParameter naming the first field that is rejected; a field without a rule is.
        """
        for name, extra in self.conversation.extras.items():
            rule = rules.get(name, REJECT)
            if extra.value in rule.neutral:
                continue
            if rule.how == "translate":
                body[name] = extra.value
            elif rule.how == "drop":
                self.dropped[extra.path] = None
            else:
                validation.unsupported(extra.path)
