"""What the writers of upstream requests share: the names of dropped fields, and the rules for extra fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from llm_service.core.call import Call
from llm_service.core.conversation import Conversation, Extra
from llm_service.core.target import Target
from llm_service.formats import target_rules, validation
from llm_service.formats.rules import REJECT, FieldRule, is_neutral
from llm_service.formats.target_rules import TargetRules


class RequestWriter:
    """One request to ``target``. ``dropped`` holds the client's names of the fields that are left out.

    ``conversation`` obeys ``RULES``. Raises InvalidRequest and UnsupportedParameter if it cannot be made to.
    """

    RULES: ClassVar[TargetRules | None] = None

    def __init__(self, call: Call, conversation: Conversation, target: Target) -> None:
        self.call, self.conversation, self.target = call, conversation, target
        self.dropped: dict[str, None] = {}
        if self.RULES is not None:
            self.conversation = target_rules.fit(self.RULES, call, conversation, target, self.drop)

    def client_name(self, name: str) -> str:
        """What the client's format calls a field of ``Conversation``."""
        return self.conversation.field_names.get(name, name)

    def drop(self, name: str) -> None:
        """Leave out a field of ``Conversation`` and name it."""
        self.dropped[self.client_name(name)] = None

    def write_extras(self, rules: Mapping[str, FieldRule], body: dict[str, Any]) -> None:
        """Write, drop or reject each extra field of the conversation by the target's ``rules``.

        A field without a rule is rejected. Raises UnsupportedParameter naming the first field that is rejected or
        malformed, or that contradicts what is in ``body`` already.
        """
        for name, extra in self.conversation.extras.items():
            rule = rules.get(name, REJECT)
            if is_neutral(extra.value, rule.neutral):
                continue
            if rule.how == "translate":
                with validation.for_this_target():
                    if rule.write is not None:
                        rule.write(body, extra)
                    else:
                        write_field(body, rule.field or name, extra)
            elif rule.how == "drop":
                self.dropped[extra.path] = None
            else:
                validation.unsupported(extra.path, rule.why)


def write_field(body: dict[str, Any], field: str, extra: Extra) -> None:
    """Write the value of ``extra`` at the path ``field`` of ``body``.

    Raises InvalidRequest naming the client's path if another field has put a different value there.
    """
    *parents, name = field.split(".")
    holder: Any = body
    for parent in parents:
        given = holder.get(parent)
        if not isinstance(given, dict | None):
            validation.invalid(extra.path, f"contradicts another field of the request: both set {field}")
        holder[parent] = dict(given or {})  # a copy: it may be part of the client's own body
        holder = holder[parent]
    if name in holder and holder[name] != extra.value:
        validation.invalid(extra.path, f"contradicts another field of the request: both set {field}")
    holder[name] = extra.value
