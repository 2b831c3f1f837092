"""Whom a budget or limit is for, as it is typed: one of --key, --user, --org, --service."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from llm_service.cli import parameters as read
from llm_service.cli.keys import chosen

_HELP = {"key": "Of this key: its id or name.", "user": "Of this user.", "org": "Of this organisation."}


def options(*kinds: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Options for ``kinds`` (key, user, org) and the service."""

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        function = click.option("--service", is_flag=True, help="Of the whole service.")(function)
        for kind in reversed(kinds):
            function = click.option(f"--{kind}", type=read.LABEL, help=_HELP[kind])(function)
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
