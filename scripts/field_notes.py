"""The notes in the tables of fields: what a rule of the code does not say by itself.

A note of a request's field is for one target's format (``REQUESTS``). A note of a nested field is for all (``NESTED``).
A note that begins with ``drop`` replaces the rule: the target's writer drops the field, whatever its value is.
"""

from __future__ import annotations

from collections.abc import Mapping

_MODEL = "the target's own name"
_SAMPLING = "dropped for a model without sampling"
_SAMPLING_CLAUDE = "above 1 becomes 1; dropped for a model without sampling and for a model that thinks"
_TOP_P_CLAUDE = "dropped beside `temperature`, for a model without sampling and for a model that thinks"
_STOP_CLAUDE = "`stop_sequences`; white space alone is rejected"
_STOP_CHAT = "at most 4; dropped for a model without sampling"
_DROPPED = "drop"
_OLDER_LIMIT = "as `max_completion_tokens`, which counts if both are given"
_OLDER_USER = "as `safety_identifier`; dropped beside another `safety_identifier`"
_USER_OPENAI = "`safety_identifier`, `user` for an older server; over 64 characters its digest"
_TIER_CLAUDE = "`default` is `standard_only`; `auto` is left out; other values are dropped"
_THINKING_CLAUDE = (
    "`thinking` and `output_config.effort`, as the model has them; dropped where the model would reject it"
)
_LIMIT = "the model's own limit if the field is missing"
_USAGE = "this service reads the usage itself"
_FORMAT_CLAUDE = "`output_config.format`; `json_object` becomes an instruction, and the answer is checked"

Notes = Mapping[str, Mapping[str, str]]  # field -> target's format -> note
REQUESTS: Mapping[str, Notes] = {
    "chat": {
        "model": {"responses": _MODEL, "messages": _MODEL},
        "messages": {"responses": "`input`", "messages": "`messages` and `system`, see below"},
        "max_completion_tokens": {
            "responses": "`max_output_tokens`, at least 16",
            "messages": f"`max_tokens`; {_LIMIT}",
        },
        "max_tokens": {"responses": _OLDER_LIMIT, "messages": _OLDER_LIMIT},
        "temperature": {"responses": _SAMPLING, "messages": _SAMPLING_CLAUDE},
        "top_p": {"responses": _SAMPLING, "messages": _TOP_P_CLAUDE},
        "stop": {"responses": _DROPPED, "messages": _STOP_CLAUDE},
        "stream_options": {"responses": _USAGE, "messages": _USAGE},
        "user": {"responses": _OLDER_USER, "messages": _OLDER_USER},
        "safety_identifier": {"responses": "over 64 characters its digest", "messages": "`metadata.user_id`"},
        "tools": {"responses": "see below", "messages": "see below"},
        "tool_choice": {"messages": "`auto`, `any`, `tool` or `none`; `allowed_tools` leaves out the other tools"},
        "parallel_tool_calls": {"messages": "`tool_choice.disable_parallel_tool_use`"},
        "functions": {
            "responses": "deprecated: `tools`, one call at a time",
            "messages": "deprecated: `tools`, one call at a time; rejected beside `tools`",
        },
        "function_call": {"responses": "deprecated: `tool_choice`", "messages": "deprecated: `tool_choice`"},
        "response_format": {"responses": "`text.format`", "messages": _FORMAT_CLAUDE},
        "reasoning_effort": {"responses": "`reasoning.effort`, as the model has it", "messages": _THINKING_CLAUDE},
        "service_tier": {"messages": _TIER_CLAUDE},
    },
    "messages": {
        "container": dict.fromkeys(("chat", "responses"), "its `skills` are rejected"),
        "context_management": dict.fromkeys(("chat", "responses"), "`clear_thinking` has no effect"),
        "model": {"chat": _MODEL, "responses": _MODEL},
        "messages": {"chat": "see below", "responses": "`input`"},
        "system": {
            "chat": "the first message, `developer` for a reasoning model",
            "responses": "the first item of `input`, `developer` for a reasoning model",
        },
        "max_tokens": {
            "chat": "`max_completion_tokens`, `max_tokens` for an older server; 0 is rejected",
            "responses": "`max_output_tokens`, at least 16; 0 is rejected",
        },
        "metadata": {"chat": "see below", "responses": "see below"},
        "service_tier": {"chat": "`standard_only` is `default`", "responses": "`standard_only` is `default`"},
        "cache_control": {
            "chat": "drop: OpenAI caches prompts by itself",
            "responses": "drop: OpenAI caches prompts by itself",
        },
        "temperature": {"chat": _SAMPLING, "responses": _SAMPLING},
        "top_p": {"chat": _SAMPLING, "responses": _SAMPLING},
        "top_k": {"chat": _DROPPED, "responses": _DROPPED},
        "stop_sequences": {"chat": f"`stop`; {_STOP_CHAT}", "responses": _DROPPED},
        "tools": {"chat": "see below", "responses": "see below"},
        "tool_choice": {"chat": "see below", "responses": "see below"},
        "thinking": {
            "chat": "`reasoning_effort`, the effort of the budget; dropped for a model that does not reason",
            "responses": "`reasoning`, the effort of the budget; dropped for a model that does not reason",
        },
        "output_config": {"chat": "see below", "responses": "see below"},
    },
    "responses": {
        "model": {"chat": _MODEL, "messages": _MODEL},
        "input": {
            "chat": "`messages`, see below",
            "messages": "`messages`, see below: the assistant's items in a row are one turn, and tool results begin "
            "the next user turn",
        },
        "instructions": {
            "chat": "the first system message",
            "messages": "the first block of `system`; leading `system` and `developer` messages follow it",
        },
        "max_output_tokens": {
            "chat": "`max_completion_tokens`, `max_tokens` for an older server",
            "messages": f"`max_tokens`; {_LIMIT}",
        },
        "temperature": {"chat": _SAMPLING, "messages": _SAMPLING_CLAUDE},
        "top_p": {"chat": _SAMPLING, "messages": _TOP_P_CLAUDE},
        "stream_options": {"chat": "nothing is padded", "messages": "nothing is padded"},
        "tools": {"chat": "see below", "messages": "see below"},
        "tool_choice": {"chat": "see below", "messages": "see below"},
        "parallel_tool_calls": {"messages": "`tool_choice.disable_parallel_tool_use`"},
        "text": {"chat": "see below", "messages": "see below"},
        "reasoning": {"chat": "see below", "messages": "see below"},
        "include": {
            "chat": "`message.output_text.logprobs` is `logprobs`; other values are dropped",
            "messages": "`reasoning.encrypted_content` is always there; `message.output_text.logprobs` is rejected, "
            "other values are dropped",
        },
        "user": {"chat": _OLDER_USER, "messages": _OLDER_USER},
        "safety_identifier": {"chat": _USER_OPENAI, "messages": "`metadata.user_id`"},
        "service_tier": {"messages": _TIER_CLAUDE, "chat": "dropped for an older server"},
        "max_tool_calls": {"chat": "it counts OpenAI's own tools", "messages": "it counts OpenAI's own tools"},
        "metadata": {"messages": "the response repeats it"},
        "context_management": dict.fromkeys(("chat", "messages"), "nothing is shortened"),
        "truncation": dict.fromkeys(("chat", "messages"), "an input that is too long is an error"),
        "top_logprobs": {"chat": "with `logprobs`"},
        "text.verbosity": {"chat": "`verbosity`"},
        "background": {"chat": "needs storage", "messages": "needs storage"},
        "conversation": {"chat": "needs storage", "messages": "needs storage"},
        "previous_response_id": {"chat": "needs storage", "messages": "needs storage"},
        "store": {"chat": "needs storage", "messages": "needs storage"},
        "prompt": {"chat": "OpenAI keeps the template", "messages": "OpenAI keeps the template"},
    },
    "completions": {
        "model": {"chat": _MODEL, "responses": _MODEL, "messages": _MODEL},
        "prompt": dict.fromkeys(
            ("chat", "responses", "messages"),
            "one user message: one prompt, as text that is not empty; tokens and several prompts are rejected",
        ),
        "max_tokens": {
            "chat": "16 if the field is missing, as at OpenAI; 0 is rejected",
            "responses": "`max_output_tokens`, at least 16; 0 is rejected",
            "messages": "16 if the field is missing; 0 is rejected",
        },
        "temperature": {"chat": _SAMPLING, "responses": _SAMPLING, "messages": _SAMPLING_CLAUDE},
        "top_p": {"chat": _SAMPLING, "responses": _SAMPLING, "messages": _TOP_P_CLAUDE},
        "stop": {"chat": _STOP_CHAT, "responses": _DROPPED, "messages": _STOP_CLAUDE},
        "stream_options": {"chat": _USAGE, "responses": _USAGE, "messages": _USAGE},
        "user": {"chat": _USER_OPENAI, "responses": "`safety_identifier`", "messages": "`metadata.user_id`"},
        "best_of": dict.fromkeys(("chat", "responses", "messages"), "no effect if it is equal to `n`"),
        "logprobs": {"chat": "with `top_logprobs`"},
    },
}

_CUSTOM = "a tool with one property, the string `input`"
_CACHE = "for Claude `cache_control` with the shortest time that is not shorter, else the longest time"
_HINT = "for OpenAI `prompt_cache_breakpoint` if the model takes it, else dropped"
_CLAUDES = "Anthropic's own name for the hint"
_NO_HINT = "drop: OpenAI has no such hint here"

NESTED: Mapping[str, Mapping[str, str]] = {
    "chat: message": {
        "audio": "its transcript, if the message has no text; without either it is rejected",
        "cache_control": "Anthropic's own name for the hint, for the last part of the message",
        "claude_thinking": "a field of this service: Claude's thinking with its signature, in answers and back",
        "content": "see below",
        "function_call": "deprecated: a tool call with an id of this service",
        "refusal": "its text",
        "role": "leading `system` and `developer` messages are the system prompt; a later one keeps its place, for a "
        "model without system turns as a user message that begins with `System:`",
        "tool_call_id": "for Claude, results in a row and the user's text after them are one turn",
        "prompt_cache_breakpoint": "as `cache_control`",
        "provider_specific_fields": "LiteLLM's: the `claude_thinking` in it is used",
        "tool_calls": "ids and arguments stay as they are; arguments that are not JSON become the one "
        "property `malformed_arguments`",
    },
    "chat: function message": {"content": "the result of a tool", "name": "the function that the turn before calls"},
    "chat: call of a function": {"index": "part of a stream; it means nothing here"},
    "chat: call of a custom": {
        "custom": "its `input` is the property `input` of the call's object",
        "index": "part of a stream; it means nothing here",
    },
    "chat: image_url": {
        "detail": "dropped for Claude",
        "url": "a URL, or base64 of JPEG, PNG, GIF or WebP",
    },
    "chat: file": {
        "file_data": "a PDF in base64",
        "file_id": "rejected for Claude: only OpenAI has the file",
        "filename": "for Claude `title`",
    },
    "chat: custom": {"format": "Claude is told the grammar in the description"},
    "chat: function": {
        "cache_control": _CLAUDES,
        "parameters": "for Claude `input_schema`",
        "strict": "for Claude with the schema in its subset",
    },
    "chat: json_schema": {
        "description": "Claude has no counterpart, and it has no effect there",
        "name": "Claude has no counterpart, and it has no effect there",
        "schema": "for Claude as `anthropic.transform_schema` writes it",
        "strict": "Claude is always strict",
    },
    "chat: tool function": {"cache_control": _CLAUDES},
    "chat: tool custom": {"cache_control": _CLAUDES, "custom": _CUSTOM},
    **{
        f"chat: part {kind}": {"prompt_cache_breakpoint": _CACHE, "cache_control": _CLAUDES}
        for kind in ("text", "image_url", "file", "refusal")
    },
    "messages: metadata": {"user_id": _USER_OPENAI},
    "messages: block text": {"cache_control": _HINT},
    "messages: block image": {"cache_control": _HINT, "source": "base64 or a URL; `file` is rejected"},
    "messages: block document": {
        "cache_control": _HINT,
        "context": "before the text; rejected with a PDF",
        "source": "a PDF in base64 is a file, a text is a text part; a URL and a `file` are rejected",
        "title": "the file's name, or the first line of the text",
    },
    "messages: block search_result": {
        "cache_control": _HINT,
        "content": "its text, after the title and the source",
    },
    "messages: block tool_reference": {"tool_name": "a text that says that the tool can be called"},
    "messages: block tool_use": {"cache_control": _NO_HINT, "input": "`arguments`"},
    "messages: block tool_result": {
        "cache_control": _NO_HINT,
        "content": "text; in chat, images and documents follow in a user message",
        "is_error": "`Error:` before the text",
    },
    "messages: block thinking": {
        "signature": "as `thinking`",
        "thinking": "kept for the vendor that wrote it, dropped for others",
    },
    "messages: block redacted_thinking": {"data": "drop: only Anthropic can read it"},
    "messages: tool": {
        "cache_control": _NO_HINT,
        "strict": "where OpenAI's strict mode takes the schema",
        "type": "`custom`; Anthropic's own tools are dropped, and rejected where `tool_choice` forces one",
        "allowed_callers": "the model may call the tool directly",
        "defer_loading": "the tool is offered at once",
    },
    "messages: tool_choice": {
        "disable_parallel_tool_use": "`parallel_tool_calls`",
        "type": "`any` is `required`",
    },
    "messages: thinking": {
        "display": "`summarized` asks Responses for a summary; dropped for chat, which shows no reasoning",
        "budget_tokens": "may be missing: then the model decides",
        "type": "`between_tools` is dropped",
    },
    "messages: output_config": {
        "effort": "`reasoning_effort` or `reasoning.effort`",
        "format": "`response_format` or `text.format`",
    },
    "messages: output_config.format": {"schema": "strict where OpenAI's strict mode takes it"},
    "responses: text": {
        "format": "`json_schema` is enforced; for Claude `json_object` is an instruction, and the answer is checked",
        "verbosity": "the target decides: see the first table",
    },
    "responses: reasoning": {
        "effort": "the nearest that the model has",
        "generate_summary": "the older name of `summary`",
        "summary": "any value shows the thinking",
    },
    "responses: tool function": {
        "defer_loading": "the tool is offered at once",
        "strict": "a missing field means no, unlike at OpenAI",
    },
    "responses: tool custom": {
        "defer_loading": "the tool is offered at once",
        "format": "a grammar is added to the description, and its enforcement is dropped and named",
        "name": f"the name of {_CUSTOM}",
    },
    "responses: tool namespace": {
        "name": "joined with the names of its tools: `namespace__name`",
        "tools": "functions and custom tools",
    },
    "responses: message": {"role": "`developer` and `system` are system messages"},
    "responses: function_call": {
        "arguments": "a JSON object, or empty",
        "call_id": "kept as it is, in both directions",
        "namespace": "joined with the name, as in `tools`",
    },
    "responses: custom_tool_call": {"input": "the argument `input`"},
    "responses: local_shell_call": {"action": "the arguments of a call of `local_shell`"},
    "responses: local_shell_call_output": {"id": "the call's id, if there is no `call_id`"},
    "responses: shell_call": {"action": "the arguments of a call of `shell`"},
    "responses: shell_call_output": {"output": "as JSON"},
    "responses: apply_patch_call": {"operation": "the arguments of a call of `apply_patch`"},
    "responses: apply_patch_call_output": {"status": "`failed` is an error of the tool"},
    "responses: computer_call": {
        "action": "the arguments of a call of `computer`",
        "actions": "the arguments of a call of `computer`",
    },
    "responses: computer_call_output": {"output": "an image; one that OpenAI keeps (`file_id`) is rejected"},
    "responses: reasoning item": {
        "encrypted_content": "Claude's own signature goes back to Claude unchanged; OpenAI's is dropped and named",
    },
    "responses: input_image": {"image_url": "a URL, or a data URL of JPEG, PNG, GIF or WebP"},
    "responses: input_file": {"file_data": "a PDF, or a text, in base64 or as a data URL"},
}

# The routes that count tokens, and the service's own route.
COUNTED: Mapping[str, Mapping[str, str]] = {
    "messages/count_tokens": {
        "model": _MODEL,
        "messages": "`input`",
        "system": "the first item of `input`",
        "tool_choice": "with `parallel_tool_calls`",
        "thinking": "`reasoning`; dropped for a model that does not reason",
        "output_config": "`text.format` and `reasoning.effort`",
        "cache_control": "drop: OpenAI caches prompts by itself",
    },
    "responses/input_tokens": {
        "model": f"{_MODEL}; required here",
        "input": "`messages`",
        "instructions": "`system`",
        "parallel_tool_calls": "`tool_choice.disable_parallel_tool_use`",
        "reasoning": "`thinking` and `output_config.effort`, as the model has them",
        "text": "`output_config.format`",
        "conversation": "needs storage",
        "previous_response_id": "needs storage",
    },
    "embeddings": {
        "model": _MODEL,
        "input": "checked: 1 to 2,048 strings that are not empty, or as many lists of tokens",
        "dimensions": "only requests with the same value are sent as one batch",
        "encoding_format": "`float` or `base64`; only requests with the same value are sent as one batch",
        "user": "only requests with the same value are sent as one batch",
    },
    "simple": {
        "prompt": "one user message; instead of `messages`",
        "messages": "leading `system` messages join `system`",
        "model": f"{_MODEL}; the service's default if the field is missing",
        "system": "the system prompt",
        "max_tokens": _LIMIT,
        "temperature": f"for Claude {_SAMPLING_CLAUDE}; for others {_SAMPLING}",
        "top_p": f"for Claude {_TOP_P_CLAUDE}; for others {_SAMPLING}",
        "stop": f"for Claude {_STOP_CLAUDE}; for chat {_STOP_CHAT}; dropped for Responses",
        "stream": "`/v1/stream` always streams",
    },
}
