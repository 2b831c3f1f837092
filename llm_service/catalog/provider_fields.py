"""A row of ``[providers]``: where a server is, how it is asked, and how it differs from the API that it speaks.

A wrong row raises a ValueError with its name and what is wrong. The values of environment variables are never quoted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

from llm_service.catalog import body_fields, load
from llm_service.catalog.environment import Named, clean_key, expanded, header_value, is_header_name, keeps_host
from llm_service.core.target import SYSTEM_ROLES, THOUGHTS, Provider
from llm_service.settings import Settings

# The kinds of providers that come with the service, and the wire formats that each speaks. Any other kind is the
# dotted name of a module with a function ``connect``, like those in llm_service.providers.
KINDS: Final[Mapping[str, tuple[str, ...]]] = {
    "anthropic": ("messages", "count_tokens"),
    "openai": ("chat", "responses", "input_tokens", "completions", "embeddings"),
    "echo": (),
}
# The format in which a server of each kind counts tokens.
_COUNTING: Final[Mapping[str, str]] = {"anthropic": "count_tokens", "openai": "input_tokens"}
_STREAMED: Final = ("chat", "responses", "completions", "messages")
_SCHEMES: Final = re.compile(r"https?://https?://")
_SLASHES: Final = re.compile("//+")
_VERSIONS: Final = re.compile("(/v1)+$")
_ROUTES: Final = ("/completions", "/responses", "/messages", "/embeddings")
# Headers of the connection, which the transport writes.
_OF_THE_TRANSPORT: Final = frozenset(
    {
        "host", "content-length", "content-encoding", "transfer-encoding", "accept-encoding", "connection",
        "keep-alive", "expect", "te", "trailer", "upgrade",
    }
)  # fmt: skip

Check: TypeAlias = tuple[Callable[[Any], bool], str]


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_table_of_texts(value: Any) -> bool:
    return isinstance(value, Mapping) and all(map(_is_text, value.values()))


def _is_own_header(name: Any) -> bool:
    """Whether a row may set the header: the transport writes some itself."""
    return is_header_name(name) and name.lower() not in _OF_THE_TRANSPORT


def _one_of(*words: str) -> Check:
    return (lambda value: isinstance(value, str) and value in words), f"must be one of {', '.join(words)}"


TEXT: Final[Check] = (_is_text, "must be a text that is not empty")
TEXTS: Final[Check] = (_is_texts, "must be a list of texts")
FLAG: Final[Check] = (lambda value: isinstance(value, bool), "must be true or false")
TABLE: Final[Check] = (_is_table_of_texts, 'must be a table of texts such as { name = "text" }')
# The fields that a row of ``[models]`` may have too: there they replace those of the provider.
SHARED: Final[Mapping[str, Check]] = {
    "max_tokens_field": _one_of("max_completion_tokens", "max_tokens"),
    "system_role": _one_of(*SYSTEM_ROLES),
    "stream_usage": FLAG,
    "thoughts": _one_of(*THOUGHTS),
    "store": FLAG,
    "drop": (body_fields.is_drop, 'must be a list of paths such as ["user", "messages[].name", "n=1"]'),
    "add": (lambda value: isinstance(value, Mapping), "must be a table such as { field = 1 }"),
    "prices": TEXT,
    "price_as": TEXT,
}
FIELDS: Final[Mapping[str, Check]] = {
    "kind": (lambda value: True, ""),
    "key_env": TEXT,
    "key_file": TEXT,
    "key_command": (lambda value: _is_texts(value) and bool(value), 'must be a list such as ["program", "argument"]'),
    "key_seconds": (
        lambda value: isinstance(value, int | float) and not isinstance(value, bool) and 1 <= value <= 86_400,
        "must be a number of seconds from 1 to 86,400",
    ),
    "key_header": (_is_own_header, "must be the name of a header, and of none that the connection needs"),
    "keyless": FLAG,
    "needs_env": TEXTS,
    "base_url": TEXT,
    "base_url_env": TEXT,
    "headers": TABLE,
    "paths": TABLE,
    "formats": (lambda value: _is_texts(value) and bool(value), "must be a list of names"),
    "chat": FLAG,
    "responses": FLAG,
    "count_tokens": FLAG,
    "completions": TEXTS,
    "serves": TEXTS,
    "storage": FLAG,
    **SHARED,
}


def check_shared(where: str, row: Mapping[str, Any]) -> None:
    """Raises ValueError if a field of ``row`` that providers and models share has a wrong value."""
    _check(where, row, SHARED)
    limits = body_fields.limits_in(row.get("drop", ()), row.get("max_tokens_field", ""))
    if limits:
        raise ValueError(
            f"{where}: drop must not name {limits[0]}: nothing would limit the output then, which budgets rely on. "
            'Servers that know only the older name have max_tokens_field = "max_tokens"'
        )
    costly = body_fields.costly_in(row.get("add", ()))
    if costly:
        raise ValueError(
            f"{where}: add must not name {costly[0]}: it may change what a call costs after its budget was checked"
        )


def shared_values(row: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a checked row for ``Provider``."""
    return {name: tuple(value) if name == "drop" else value for name, value in row.items() if name in SHARED}


def provider(name: str, row: Mapping[str, Any], settings: Settings) -> Provider:
    where = f"[providers.{name}]"
    if not isinstance(row, Mapping):
        raise ValueError(f"{where}: must be a table")
    kind = row.get("kind")
    if not isinstance(kind, str) or not (kind in KINDS or _is_module_name(kind)):
        raise ValueError(f"{where}: kind must be one of {', '.join(KINDS)}, or the dotted name of a module")
    load.check_names(where, row, FIELDS)
    _check(where, row, FIELDS)
    check_shared(where, row)
    formats = _formats(where, row)
    responses = _has_responses(where, row)
    own = "base_url" not in row
    missing = tuple(variable for variable in row.get("needs_env", ()) if not _is_set(settings, variable))
    keys = _keys(where, row, settings)
    is_on = not missing and any(keys.values())
    if is_on:
        keys |= _server(where, row, keys, settings)
    counting = _COUNTING.get(kind)
    return Provider(
        name=name,
        kind=kind,
        missing=missing,
        serves=tuple(row.get("serves", ())),
        completions=tuple(row.get("completions", ())),
        chat="chat" in formats if kind == "openai" else True,
        responses=responses,
        counts_tokens=counting in formats if counting else True,
        formats=formats,
        storage=row.get("storage", settings.upstream_storage == "allow"),
        key_seconds=float(row.get("key_seconds", 300)),
        key_header=row.get("key_header", "Authorization"),
        is_the_vendor=own and row.get("base_url_env") in (None, f"{kind.upper()}_BASE_URL"),
        own_address=not own,
        **shared_values(row),
        **keys,
    )


def _check(where: str, row: Mapping[str, Any], checks: Mapping[str, Check]) -> None:
    for name, value in row.items():
        if name in checks and not checks[name][0](value):
            raise ValueError(f"{where}: {name} {checks[name][1]}")


def _is_set(settings: Settings, variable: str) -> bool:
    return bool((settings.secret(variable) or "").strip())


def _is_module_name(kind: str) -> bool:
    return "." in kind and all(map(str.isidentifier, kind.split(".")))


def _keys(where: str, row: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """Where the key comes from: the variable, the file that the variable with _FILE names, ``key_file``, the command.

    The first of these that is set is used.
    """
    none: dict[str, Any] = {"key": None, "key_file": None, "key_command": (), "keyless": row.get("keyless", False)}
    variable = row.get("key_env", "")
    if variable and _is_set(settings, variable):
        return {**none, "key": clean_key(f"{where}: the key in {variable}", settings.secret(variable) or "")}
    if variable and _is_set(settings, f"{variable}_FILE"):
        return {**none, "key_file": (settings.secret(f"{variable}_FILE") or "").strip()}
    if "key_file" in row:
        return {**none, "key_file": row["key_file"]}
    return {**none, "key_command": tuple(row.get("key_command", ()))}


def _server(where: str, row: Mapping[str, Any], keys: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """What may name environment variables. It is read only for a provider that is turned on."""
    found: dict[str, Any] = {"base_url": _base_url(where, row, settings), "headers": {}}
    if keys["key_file"]:
        path = expanded(f"{where}: key_file", keys["key_file"], settings)
        is_own = keys["key_file"] == row.get("key_file")
        found["key_file"] = Named(path, row["key_file"] if is_own else f"that {row['key_env']}_FILE names")
    found["key_command"] = tuple(
        Named(expanded(f"{where}: key_command", text, settings), text) for text in keys["key_command"]
    )
    found["paths"] = _paths(where, row, settings)
    for name, text in row.get("headers", {}).items():
        if not _is_own_header(name):
            raise ValueError(f"{where}: headers: {name} cannot be set")
        what = f"{where}: headers: {name}"
        found["headers"][name] = header_value(what, expanded(what, text, settings))
    return found


def _base_url(where: str, row: Mapping[str, Any], settings: Settings) -> str | None:
    variable = row.get("base_url_env", "")
    template = ""
    if variable and _is_set(settings, variable):
        source, url = variable, (settings.secret(variable) or "").strip()
    elif "base_url" in row:
        template = row["base_url"]
        source = f"base_url {template}" if "${" in template else "base_url"
        url = expanded(f"{where}: base_url", template, settings)
    elif variable and variable != f"{row['kind'].upper()}_BASE_URL":
        # Without this check another server's key and prompts would go to OpenAI.
        raise ValueError(f"{where}: {variable} is not set, so it is not known where the server is")
    else:
        return None
    if _SCHEMES.match(url):  # https://${HOST}, where people write the variable with or without its own scheme
        url = url.partition("://")[2]
    if template and not keeps_host(template, url):
        raise ValueError(f"{where}: {source}: the value of a variable must not change the host that the row names")
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError(f"{where}: {source} must be a URL such as https://host/v1")
    if "?" in url or "#" in url:
        raise ValueError(f"{where}: {source} must not have a query; put it into paths")
    url = url.rstrip("/")
    url = f"{parts.scheme}://{_SLASHES.sub('/', url.partition('://')[2])}"
    if url.endswith(_ROUTES):
        raise ValueError(f"{where}: {source} must end before the route, which the service adds")
    # People copy the URL with or without /v1, and both are clear.
    return _VERSIONS.sub("" if row["kind"] == "anthropic" else "/v1", url)


def _paths(where: str, row: Mapping[str, Any], settings: Settings) -> dict[str, str]:
    known = KINDS.get(row["kind"])
    if known is not None and row.get("paths"):
        streams = [f"{name}_stream" for name in known if name in _STREAMED]
        load.check_names(f"{where} paths", row["paths"], (*known, *streams))
    found = {}
    for name, text in row.get("paths", {}).items():
        path = found[name] = expanded(f"{where} paths: {name}", text, settings)
        if not path.startswith("/") or set(path.replace("{model}", "")) & set("{} #"):
            raise ValueError(f"{where} paths: {name} must begin with / and may hold {{model}}, but no other braces")
    return found


def _has_responses(where: str, row: Mapping[str, Any]) -> bool:
    """Whether the server has OpenAI's Responses API: the row's ``formats`` or ``responses`` say so.

    By default only a row without a ``base_url`` has it: that is OpenAI's own server, and few others have this API.
    """
    if "formats" in row:
        return "responses" in row["formats"]
    return bool(row.get("responses", "base_url" not in row))


def _formats(where: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    """The formats that the row lists, or else those of its kind, as its switches say."""
    known = KINDS.get(row["kind"])
    counting = _COUNTING.get(row["kind"], "")
    switches = {"chat": "chat", "responses": "responses", "count_tokens": counting}
    if "formats" in row:
        listed: list[str] = row["formats"]
        unknown = set(listed) - set(known) if known is not None else set()
        if unknown:
            choices = f"may be {', '.join(known)}" if known else "must be left out for this kind"
            raise ValueError(f"{where}: unknown format {sorted(unknown)[0]}; formats {choices}")
        for switch, name in switches.items():
            if switch in row and row[switch] != (name in listed):
                raise ValueError(f"{where}: {switch} contradicts formats; leave out {switch}")
        return tuple(listed)
    has_responses = _has_responses(where, row)
    default = {"chat": True, "responses": has_responses, "count_tokens": row["kind"] != "openai" or has_responses}
    left_out = {name for switch, name in switches.items() if not row.get(switch, default[switch])}
    return tuple(name for name in known or () if name not in left_out)
