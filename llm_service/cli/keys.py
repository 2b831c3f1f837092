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

# The same word clears a field in `update` and leaves it unset in `create`.
_LABELS: tuple[tuple[str, Any, str], ...] = (
    ("--org", read.OPTIONAL_LABEL, "Organisation the key's calls are counted for; none for no organisation."),
    ("--user", read.OPTIONAL_LABEL, "User the key's calls are counted for; none for no user."),
    ("--tier", read.LABEL, "Tier of the catalogue, which sets the limits."),
    ("--rpm", read.RPM, "Requests per minute, instead of the tier's; none for the tier's."),
    ("--tpm", read.TPM, "Tokens per minute, instead of the tier's; none for the tier's."),
    ("--parallel", read.PARALLEL, "Calls at the same time, instead of the tier's; none for the tier's."),
    ("--budget", read.OPTIONAL_USD, "Dollars the key may spend per period; none for no budget of its own."),
    ("--per", click.Choice(periods.PERIODS), "Period of --budget; without it that of the key's budget, else month."),
    ("--networks", read.NETWORKS, "Comma-separated networks (CIDR) the key may call from; all for any."),
    ("--models", read.MODELS, "Comma-separated models or patterns the key may use; all for every model."),
    ("--json-answers", read.JSON_ANSWERS, "What to do with answers asked to be JSON: check, repair, retry or off."),
    ("--storage", read.STORAGE, "Whether the vendor may keep content when asked to: allow, refuse or default."),
    ("--expires", read.EXPIRY, "When it ends: 30d, 24h, a time in ISO 8601, or never."),
)


def _label_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for name, kind, text in reversed(_LABELS):
        function = click.option(name, type=kind, help=text)(function)
    return function


@group.command()
@click.option("--name", type=read.LABEL, required=True, help="What people call the key.")
@_label_options
@output.json_option
def create(as_json: bool, name: str, **given: Any) -> None:
    """Create a key and print it, once: only its digest is stored."""
    service = current_app.extensions["llm_service"]
    if given["per"] and given["budget"] is None:
        raise click.UsageError("--per needs --budget.")
    tier = _known_tier(given["tier"] or service.catalog.default_tier)
    if keys.matching(name):
        click.echo(f"Warning: another key is called {output.cell(name)}; commands will need its id.", err=True)
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
    _say_issued(issued, as_json, "Created")


@group.command("list")
@output.json_option
def list_(as_json: bool) -> None:
    """List all keys, revoked and expired ones too, oldest first."""
    by_key: dict[str, list[Budget]] = {}
    for budget in budgets.list_all():
        if budget.kind == "key":
            by_key.setdefault(budget.name, []).append(budget)
    found = [describe(stored, by_key.get(stored.id, ())) for stored in keys.list_all()]
    if as_json:
        output.echo_json(found)
        return
    numbers = ("rpm", "tpm", "parallel")
    columns = ("id", "name", "org", "user", "tier", *numbers, "budgets", "models", "status", "expires_at", "created_at")
    table = [[_shown(row)[name] for name in columns] for row in found]
    output.echo_table(columns, table, numbers=numbers)


@group.command()
@_key_argument
@output.json_option
def show(key: str, as_json: bool) -> None:
    """Show one key: KEY is its id, or its name where that is the only one."""
    _say(chosen(key), as_json)


@group.command()
@_key_argument
@click.option("--name", type=read.LABEL, help="What people call the key.")
@_label_options
@output.json_option
def update(key: str, as_json: bool, **given: Any) -> None:
    """Change a key; what is not named stays."""
    ctx = click.get_current_context()
    given["expires_at"] = given.pop("expires")
    sources = {"expires_at": "expires"}
    # None is a value here (--rpm none): what was typed decides, not what it means.
    typed = {
        name: value
        for name, value in given.items()
        if ctx.get_parameter_source(sources.get(name, name)) is click.core.ParameterSource.COMMANDLINE
    }
    if not typed:
        raise click.UsageError("Nothing to change: name at least one option.")
    if "tier" in typed:
        _known_tier(typed["tier"])
    if "per" in typed and "budget" not in typed:
        raise click.UsageError("--per needs --budget.")
    stored = chosen(key)
    money = {name: typed.pop(name) for name in ("budget", "per") if name in typed}
    if money.get("budget") is not None:
        money.setdefault("per", _usual_period(stored.id))
    try:
        changed = keys.change(stored.id, typed)
    except keys.KeyRevoked:
        raise _revoked(stored) from None
    over = _set_budget(stored.id, money["budget"], money.get("per")) if money else 0
    if "tier" in typed or ("budget" in money and money["budget"] is None):
        counters.count_from_before_in(changed.caller.tier)
    _say(changed, as_json, over_by_nanousd=over)


@group.command()
@_key_argument
@click.option("--grace", type=read.DURATION, default="0s", help="How long the old secret stays valid, e.g. 24h.")
@output.json_option
def rotate(key: str, grace: timedelta, as_json: bool) -> None:
    """Give a key a new secret and print it, once. The id, name and limits stay."""
    stored = chosen(key)
    try:
        issued = keys.rotate(stored.id, current_app.extensions["llm_service"].settings.hmac_key, grace)
    except keys.KeyRevoked:
        raise _revoked(stored) from None
    _say_issued(issued, as_json, "Rotated")


@group.command()
@_key_argument
@output.json_option
def revoke(key: str, as_json: bool) -> None:
    """Refuse a key from now on. Final."""
    _say(keys.revoke(chosen(key).id), as_json)


def chosen(reference: str) -> StoredKey:
    """The one key that ``reference`` means.

    Raises:
        click.ClickException: none, or several by this name (it lists their ids).
    """
    found = keys.matching(reference)
    if not found:
        # Not quoted: a mistyped key is still most of a secret.
        raise click.ClickException("There is no key with this id or name; `flask --app wsgi keys list` shows them.")
    if len(found) > 1:
        ids = ", ".join(stored.id for stored in found)
        raise click.ClickException(f"Several keys have this name; use one of the ids: {ids}.")
    return found[0]


def _usual_period(key_id: str) -> Any:
    """That of the key's one budget for all models, so that a new amount changes it instead of adding another."""
    own = [budget.period for budget in budgets.of_scope("key", key_id) if not budget.model]
    if len(own) > 1:
        raise click.UsageError(f"The key has several budgets ({', '.join(own)}): name one with --per.")
    return own[0] if own else "month"


def _set_budget(key_id: str, amount: int | None, per: Any) -> int:
    """Set or, with None, remove the key's budget for all models; by how much it is overspent."""
    if amount is None:
        for budget in budgets.of_scope("key", key_id):
            if not budget.model and per in (None, budget.period):
                budgets.remove(budget.id)
        return 0
    budget = budgets.put("key", key_id, amount, per)
    zone = current_app.extensions["llm_service"].settings.time_zone
    (spent,) = budgets.spent([budget], zone, patience=output.PATIENCE).values()
    counters.count_from_before(budget, spent)
    return max(0, spent - amount)


def describe(stored: StoredKey, budgeted: Iterable[Budget]) -> dict[str, Any]:
    """A key as every command prints it; never its digest."""
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
            for item in budgeted
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
    return click.ClickException(f"Key {stored.id} is revoked, which is final; create a new one.")


def _say(stored: StoredKey, as_json: bool, *, over_by_nanousd: int = 0) -> None:
    fields = describe(stored, budgets.of_scope("key", stored.id))
    if as_json:
        output.echo_json({**fields, "over_by_usd": as_dollars(over_by_nanousd)} if over_by_nanousd else fields)
        return
    output.echo_fields(list(_shown(fields).items()))
    if over_by_nanousd:
        over = output.dollars(over_by_nanousd)
        click.echo(f"Warning: {over} more than this budget is already spent: nothing is left of it.", err=True)


def _shown(fields: dict[str, Any]) -> dict[str, Any]:
    """For people: a budget in a few words."""
    parts = []
    for budget in fields["budgets"]:
        per = "in all" if budget["per"] == "total" else f"per {budget['per']}"
        for_model = f" for {budget['model']}" if budget["model"] else ""
        parts.append(f"{output.dollars(budget['amount_nanousd'])} {per}{for_model}")
    return {**fields, "budgets": "; ".join(parts) or None}


def _say_issued(issued: Issued, as_json: bool, done: str) -> None:
    stored = issued.stored
    if as_json:
        fields = describe(stored, budgets.of_scope("key", stored.id))
        output.echo_json({"id": fields.pop("id"), "key": issued.text, **fields})
        return
    click.echo(f"{done} key {stored.id} ({output.cell(stored.caller.name)}):\n\n  {issued.text}\n")
    click.echo("This is the only time it is shown: store it now.")
    if stored.previous_until is not None:
        click.echo(f"The secret before it stays valid until {output.cell(stored.previous_until)} UTC.")
