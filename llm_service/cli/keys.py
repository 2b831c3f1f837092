"""``flask keys``: the API keys of the callers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import click
from flask import current_app

from llm_service.cli import counters, output
from llm_service.cli import parameters as read
from llm_service.core import periods
from llm_service.core.money import as_dollars
from llm_service.store import budgets, keys
from llm_service.store.budgets import Budget
from llm_service.store.keys import Issued, StoredKey

group = output.Group("keys", help="Create and manage API keys.")
_key_argument = click.argument("key", metavar="KEY")

# The same word (none, all, never, ...) clears a field in `update` and leaves it unset in `create`.
_LABELS: tuple[tuple[str, Any, str], ...] = (
    ("--org", read.OPTIONAL_LABEL, "Organisation the key's calls are counted for; none for no organisation."),
    ("--user", read.OPTIONAL_LABEL, "User the key's calls are counted for; none for no user."),
    ("--tier", read.LABEL, "Tier of the catalogue; it sets the default limits."),
    ("--rpm", read.RPM, "Requests per minute; none uses the tier's limit."),
    ("--tpm", read.TPM, "Tokens per minute; none uses the tier's limit."),
    ("--parallel", read.PARALLEL, "Calls at the same time; none uses the tier's limit."),
    ("--budget", read.OPTIONAL_USD, "Dollars the key may spend per period; none for no budget of its own."),
    ("--per", click.Choice(periods.PERIODS), "Period of --budget. Default: that of the existing budget, or month."),
    ("--networks", read.NETWORKS, "Comma-separated networks (CIDR) the key may call from; all for any network."),
    ("--models", read.MODELS, "Comma-separated models or patterns the key may use; all for every model."),
    ("--json-answers", read.JSON_ANSWERS, "How to treat answers that must be JSON: check, repair, retry or off."),
    ("--storage", read.STORAGE, "Whether calls may ask the vendor to store content: allow, refuse or default."),
    ("--expires", read.EXPIRY, "When the key expires: 30d, 24h, a time in ISO 8601, or never."),
)


def _label_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for name, kind, text in reversed(_LABELS):
        function = click.option(name, type=kind, help=text)(function)
    return function


@group.command()
@click.option("--name", type=read.LABEL, required=True, help="Name of the key, for people.")
@_label_options
@output.json_option
def create(as_json: bool, name: str, **given: Any) -> None:
    """Create a key and print it. It is shown only this once: only its digest is stored."""
    service = current_app.extensions["llm_service"]
    if given["per"] and given["budget"] is None:
        raise click.UsageError("--per needs --budget.")
    tier = _known_tier(given["tier"] or service.catalog.default_tier)
    if keys.matching(name):
        click.echo(f"Warning: another key has the name {output.cell(name)}, so commands need the key's id.", err=True)
    issued = keys.issue(
        service.settings.hmac_key,
        name=name,
        org=given["org"],
        user=given["user"],
        tier=tier,
        rpm=given["rpm"],
        tpm=given["tpm"],
        parallel=given["parallel"],
        models=given["models"] or (),
        networks=given["networks"] or (),
        json_answers=given["json_answers"],
        storage=given["storage"],
        expires_at=given["expires"],
    )
    if given["budget"] is not None:
        budgets.put("key", issued.stored.id, given["budget"], given["per"] or "month")
    _print_issued(issued, as_json, "Created")


@group.command("list")
@output.json_option
def list_(as_json: bool) -> None:
    """List all keys, revoked and expired ones too, oldest first."""
    by_key: dict[str, list[Budget]] = {}
    for budget in budgets.list_all():
        if budget.kind == "key":
            by_key.setdefault(budget.name, []).append(budget)
    rows = [describe(stored, by_key.get(stored.id, ())) for stored in keys.list_all()]
    if as_json:
        output.echo_json(rows)
        return
    numbers = ("rpm", "tpm", "parallel")
    columns = ("id", "name", "org", "user", "tier", *numbers, "budgets", "models", "status", "expires_at", "created_at")
    table = [[_for_table(row)[name] for name in columns] for row in rows]
    output.echo_table(columns, table, numbers=numbers)


@group.command()
@_key_argument
@output.json_option
def show(key: str, as_json: bool) -> None:
    """Show one key. KEY is its id, or its name if no other key has this name."""
    _print(find_key(key), as_json)


@group.command()
@_key_argument
@click.option("--name", type=read.LABEL, help="Name of the key, for people.")
@_label_options
@output.json_option
def update(key: str, as_json: bool, **given: Any) -> None:
    """Change a key. What is not given stays as it is."""
    ctx = click.get_current_context()
    given["expires_at"] = given.pop("expires")
    sources = {"expires_at": "expires"}
    # None is a valid value here (--rpm none), so the question is whether the option was typed.
    typed = {
        name: value
        for name, value in given.items()
        if ctx.get_parameter_source(sources.get(name, name)) is click.core.ParameterSource.COMMANDLINE
    }
    if not typed:
        raise click.UsageError("Nothing to change: give at least one option.")
    if "tier" in typed:
        _known_tier(typed["tier"])
    if "per" in typed and "budget" not in typed:
        raise click.UsageError("--per needs --budget.")
    stored = find_key(key)
    money = {name: typed.pop(name) for name in ("budget", "per") if name in typed}
    if money.get("budget") is not None:
        money.setdefault("per", _existing_period(stored.id))
    try:
        changed = keys.change(stored.id, typed)
    except keys.KeyRevoked:
        raise _revoked(stored) from None
    over = _set_budget(stored.id, money["budget"], money.get("per")) if money else 0
    if "tier" in typed or ("budget" in money and money["budget"] is None):
        counters.count_earlier_costs_for_tier(changed.caller.tier)
    _print(changed, as_json, over_by_nanousd=over)


@group.command()
@_key_argument
@click.option("--grace", type=read.DURATION, default="0s", help="How long the old secret stays valid, e.g. 24h.")
@output.json_option
def rotate(key: str, grace: timedelta, as_json: bool) -> None:
    """Give a key a new secret and print it. It is shown only this once. The id, name and limits stay."""
    stored = find_key(key)
    try:
        issued = keys.rotate(stored.id, current_app.extensions["llm_service"].settings.hmac_key, grace)
    except keys.KeyRevoked:
        raise _revoked(stored) from None
    _print_issued(issued, as_json, "Rotated")


@group.command()
@_key_argument
@output.json_option
def revoke(key: str, as_json: bool) -> None:
    """Reject a key from now on. This cannot be undone."""
    _print(keys.revoke(find_key(key).id), as_json)


def find_key(reference: str) -> StoredKey:
    """Return the one key that has ``reference`` as its id or name.

    Raises:
        click.ClickException: there is none, or several have this name (the message lists their ids).
    """
    found = keys.matching(reference)
    if not found:
        # The message does not quote the reference: a mistyped key still contains most of a secret.
        raise click.ClickException("There is no key with this id or name. `flask --app wsgi keys list` shows all keys.")
    if len(found) > 1:
        ids = ", ".join(stored.id for stored in found)
        raise click.ClickException(f"Several keys have this name; use one of the ids: {ids}.")
    return found[0]


def _existing_period(key_id: str) -> Any:
    """Return the period of the key's one budget for all models, or "month" if it has none.

    So a new amount changes that budget instead of adding another one.
    """
    own = [budget.period for budget in budgets.of_scope("key", key_id) if not budget.model]
    if len(own) > 1:
        raise click.UsageError(f"The key has several budgets ({', '.join(own)}): choose one with --per.")
    return own[0] if own else "month"


def _set_budget(key_id: str, amount: int | None, per: Any) -> int:
    """Set the key's budget for all models, or remove it if ``amount`` is None. Return by how much it is overspent."""
    if amount is None:
        for budget in budgets.of_scope("key", key_id):
            if not budget.model and per in (None, budget.period):
                budgets.remove(budget.id)
        return 0
    budget = budgets.put("key", key_id, amount, per)
    zone = current_app.extensions["llm_service"].settings.time_zone
    (spent,) = budgets.spent([budget], zone, statement_timeout=output.STATEMENT_TIMEOUT).values()
    counters.count_earlier_costs(budget, spent)
    return max(0, spent - amount)


def describe(stored: StoredKey, own_budgets: Iterable[Budget]) -> dict[str, Any]:
    """Return a key as every command prints it. Its digest is never printed."""
    caller = stored.caller
    return {
        "id": stored.id,
        "name": caller.name,
        "org": caller.org,
        "user": caller.user,
        "tier": caller.tier,
        "rpm": caller.rpm,
        "tpm": caller.tpm,
        "parallel": caller.parallel,
        "budgets": [
            {
                "id": item.id,
                "amount_usd": as_dollars(item.amount_nanousd),
                "amount_nanousd": item.amount_nanousd,
                "per": item.period,
                "model": item.model or None,
            }
            for item in own_budgets
        ],
        "networks": list(stored.networks),
        "models": list(caller.models),
        "json_answers": caller.json_answers,
        "storage": read.storage_word(caller.storage),
        "status": stored.status(datetime.now(UTC)),
        "expires_at": stored.expires_at,
        "revoked_at": stored.revoked_at,
        "previous_until": stored.previous_until,
        "created_at": stored.created_at,
    }


def _known_tier(name: str) -> str:
    known = current_app.extensions["llm_service"].catalog.tiers
    if name not in known:
        names = ", ".join(sorted(known)) or "none"
        raise click.BadParameter(f"is not in the catalogue; known tiers: {names}", param_hint="--tier")
    return name


def _revoked(stored: StoredKey) -> click.ClickException:
    return click.ClickException(f"Key {stored.id} is revoked, which cannot be undone. Create a new key.")


def _print(stored: StoredKey, as_json: bool, *, over_by_nanousd: int = 0) -> None:
    fields = describe(stored, budgets.of_scope("key", stored.id))
    if as_json:
        output.echo_json({**fields, "over_by_usd": as_dollars(over_by_nanousd)} if over_by_nanousd else fields)
        return
    output.echo_fields(list(_for_table(fields).items()))
    if over_by_nanousd:
        over = output.dollars(over_by_nanousd)
        click.echo(f"Warning: {over} more than this budget is already spent, so nothing is left of it.", err=True)


def _for_table(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields for people: each budget becomes a few words."""
    parts = []
    for budget in fields["budgets"]:
        per = "in all" if budget["per"] == "total" else f"per {budget['per']}"
        for_model = f" for {budget['model']}" if budget["model"] else ""
        parts.append(f"{output.dollars(budget['amount_nanousd'])} {per}{for_model}")
    return {**fields, "budgets": "; ".join(parts) or None}


def _print_issued(issued: Issued, as_json: bool, done: str) -> None:
    stored = issued.stored
    if as_json:
        fields = describe(stored, budgets.of_scope("key", stored.id))
        output.echo_json({"id": fields.pop("id"), "key": issued.text, **fields})
        return
    click.echo(f"{done} key {stored.id} ({output.cell(stored.caller.name)}):\n\n  {issued.text}\n")
    click.echo("This is the only time it is shown: store it now.")
    if stored.previous_until is not None:
        click.echo(f"The previous secret stays valid until {output.cell(stored.previous_until)} UTC.")
