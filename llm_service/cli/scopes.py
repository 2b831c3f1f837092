"""Whom a budget or limit is for, as it is typed: one of --key, --user, --org, --network, --model, --service."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from llm_service.cli import parameters as read
from llm_service.cli.keys import chosen

_KINDS: dict[str, tuple[Any, str]] = {
    "key": (read.LABEL, "Of this key: its id or name."),
    "user": (read.LABEL, "Of this user."),
    "org": (read.LABEL, "Of this organisation."),
    "network": (read.NETWORK, "Of this address or network (CIDR): all calls from there."),
    "model": (read.LABEL, "Of this model or pattern, e.g. openai/gpt-5*: all calls to it."),
}


def options(*kinds: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Options for ``kinds`` and the service."""

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        function = click.option("--service", is_flag=True, help="Of the whole service.")(function)
        for kind in reversed(kinds):
            typed, text = _KINDS[kind]
            function = click.option(f"--{kind}", type=typed, help=text)(function)
        return function

    return add


def meant(given: dict[str, Any]) -> tuple[Any, str]:
    """(kind, name) of the one scope in ``given``; the name is a key's id, and "" for the service.

    Raises:
        click.UsageError: none or several.
    """
    named = [(kind, value) for kind, value in given.items() if value]
    if len(named) != 1:
        names = ", ".join(f"--{kind}" for kind in given)
        raise click.UsageError(f"Name exactly one of {names}.")
    kind, value = named[0]
    if kind == "service":
        return kind, ""
    return kind, chosen(value).id if kind == "key" else value
