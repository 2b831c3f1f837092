"""The client libraries under test: their environments, and what the vendor has to answer so that each does its task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.clients.targets import CLAUDE
from tests.upstream import Step

CHAT, RESPONSES, MESSAGES = "chat", "responses", "messages"
EVERY = (CHAT, RESPONSES, MESSAGES)
TEXT = "Good morning to you"
LOOKS = ("found a", "found b", "found c é")


def calls(*names_and_inputs: tuple[str, Mapping[str, Any]], thinking: str | None = "Let me look.") -> Step:
    return Step(tools=[{"name": name, "input": value} for name, value in names_and_inputs], thinking=thinking)


def loop(*last: Step) -> tuple[Step, ...]:
    """Two turns with calls of the tool ``look``, and the last turn."""
    looks = [("look", {"q": name}) for name in ("a", "b", "c é")]
    return (calls(looks[0]), calls(*looks[1:]), *last)


@dataclass(frozen=True)
class Library:
    """``module`` is a script in ``python/``, which runs in ``environment``.

    ``steps`` has the vendor's answers to the cases that need other answers than ``STEPS``. ``answer_tool`` is the name
    of the tool by which the library gets structured output, where it does not ask for a JSON format. ``results`` and
    ``last_text`` are what its loop with tools returns.
    """

    module: str
    environment: str
    apis: Sequence[str] = EVERY
    steps: Mapping[str, Sequence[Step]] = field(default_factory=dict)
    answer_tool: Mapping[str, str] = field(default_factory=dict)
    results: Sequence[str] = LOOKS
    last_text: str = "All found."

    def script(self, case: str, api: str, model: str) -> Sequence[Step]:
        # LlamaIndex knows by their names which of Claude's models take a JSON format.
        by_tool = api in self.answer_tool and not (self.only_names_of_claude(api) and model == CLAUDE)
        if case == "structured" and by_tool:
            return (calls((self.answer_tool[api], {"q": "x"}), thinking=None),)
        return self.steps.get(case) or STEPS[case]

    def only_names_of_claude(self, api: str) -> bool:
        return self.module == "llama_index_agent" and api == MESSAGES


STEPS: dict[str, Sequence[Step]] = {
    "chat": (Step(text=TEXT, thinking="Hm."),),
    "stream": (Step(text=TEXT, thinking="Hm."),),
    "tools": loop(Step(text="All found.")),
    "structured": (Step(text='{"q": "x"}'),),
}


def marked(field_: str, text: str) -> Step:
    """An answer in DSPy's own marks."""
    return Step(text=f"[[ ## {field_} ## ]]\n{text}\n\n[[ ## completed ## ]]")


def thought(name: str, q: str | None) -> Step:
    """One turn of DSPy's ReAct, which calls one tool at a time, by text."""
    arguments = "{}" if q is None else f'{{"q": "{q}"}}'
    return Step(
        text=f"[[ ## next_thought ## ]]\nHm.\n\n[[ ## next_tool_name ## ]]\n{name}\n\n"
        f"[[ ## next_tool_args ## ]]\n{arguments}\n\n[[ ## completed ## ]]"
    )


LIBRARIES = {
    library.module: library
    for library in (
        Library("openai_agents", "modern", (CHAT, RESPONSES)),
        Library("langchain", "modern", answer_tool={MESSAGES: "Answer"}),
        Library("pydantic_agent", "modern", answer_tool=dict.fromkeys(EVERY, "final_result")),
        Library("litellm_library", "modern"),
        Library("haystack_agent", "modern"),
        Library(
            "smolagents_agent",
            "modern",
            (CHAT, MESSAGES),
            steps={"tools": loop(calls(("final_answer", {"answer": "All found."})))},
        ),
        Library(
            "dspy_program",
            "modern",
            steps={
                "chat": (marked("answer", TEXT),),
                "stream": (marked("answer", TEXT),),
                "structured": (Step(text='{"answer": {"q": "x"}}'),),
                "tools": (
                    thought("look", "a"),
                    thought("look", "b"),
                    thought("look", "c é"),
                    thought("finish", None),
                    Step(text="[[ ## reasoning ## ]]\nHm.\n\n[[ ## answer ## ]]\nAll found.\n\n[[ ## completed ## ]]"),
                ),
            },
        ),
        Library("llama_index_agent", "llamaindex", answer_tool=dict.fromkeys((CHAT, MESSAGES), "Answer")),
        Library("llm_library", "llm"),
        Library("anthropic_runner", "modern", (MESSAGES,)),
    )
}
# instructor only asks for structured output. Its loop is one answer that does not fit, and one that does.
ANSWER = calls(("Answer", {"q": TEXT}), thinking=None)
LIBRARIES["instructor_client"] = Library(
    "instructor_client",
    "instructor",
    steps={
        "chat": (ANSWER,),
        "stream": (ANSWER,),
        "tools": (calls(("Answer", {"no": 1}), thinking=None), ANSWER),
        "structured": (calls(("Answer", {"q": "x"}), thinking=None),),
    },
    results=(),
    last_text=TEXT,
)
