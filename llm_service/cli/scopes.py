"""The scope of a budget or limit on the command line: --key, --user, --org, --network, --model or --service."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from llm_service.cli import parameters as read
from llm_service.cli.keys import find_key

_KINDS: dict[str, tuple[Any, str]] = {
    "key": (read.LABEL, "For this key: its id or name."),
    "user": (read.LABEL, "For this user."),
    "org": (read.LABEL, "For this organisation."),
    "network": (read.NETWORK, "For all calls from this address or network (CIDR)."),
    "model": (read.LABEL, "For all calls to this model or pattern, e.g. openai/gpt-6*."),
}


def options(*kinds: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that adds the options for ``kinds`` and for the service."""

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        function = click.option("--service", is_flag=True, help="For the whole service.")(function)
        for kind in reversed(kinds):
            parser, text = _KINDS[kind]
            function = click.option(f"--{kind}", type=parser, help=text)(function)
        return function

    return add


def selected(given: dict[str, Any]) -> tuple[Any, str]:
    """Return (kind, name) of the one scope in ``given``. The name of a key is its id, that of the service is "".

    Raises:
        click.UsageError: no scope is given, or several.
    """
    named = [(kind, value) for kind, value in given.items() if value]
    if len(named) != 1:
        names = ", ".join(f"--{kind}" for kind in given)
        raise click.UsageError(f"Give exactly one of {names}.")
    kind, value = named[0]
    if kind == "service":
        return kind, ""
    return kind, find_key(value).id if kind == "key" else value
