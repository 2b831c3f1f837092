"""``flask models``: show the catalogue of models and check it for mistakes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import click
from flask import current_app

from llm_service.catalog import key_sources
from llm_service.catalog.catalog import Catalog
from llm_service.catalog.prices.rates import COUNTED, KINDS, Rates
from llm_service.catalog.retirement import retirements
from llm_service.cli import output
from llm_service.core.target import Target
from llm_service.settings import SettingsError

group = output.Group("models", help="Look at the catalogue of models.")


@group.command("list")
@output.json_option
def list_(as_json: bool) -> None:
    """List the names callers can use now: aliases and models of configured providers."""
    catalog: Catalog = current_app.extensions["llm_service"].catalog
    rows = [{"id": name, **_describe(target), **_size(target)} for name, target in catalog.names()]
    if as_json:
        output.echo_json(rows)
        return
    _echo_priced(("id", "target", "context", "max_output", "retires", "replacement"), rows)
    others = [name for name, row in catalog.providers.items() if row.configured and row.kind != "echo"]
    if others:
        click.echo(f"Other models of these providers can be asked for as PROVIDER/MODEL: {', '.join(others)}")


@group.command()
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@output.json_option
def check(file: Path | None, as_json: bool) -> None:
    """Check the catalogue (or FILE): print every alias and target with its price. Exit 1 if there is an error."""
    service = current_app.extensions["llm_service"]
    catalog: Catalog = service.catalog
    if file is not None:
        try:
            catalog = Catalog.load(replace(service.settings, models=file))
        except SettingsError as error:
            raise click.ClickException(str(error)) from None
    targets = list(_targets(catalog))
    problems = [*_problems(catalog), *_wrong_keys(catalog)]
    warnings = list(_warnings(catalog, targets))
    providers = [
        {"name": name, "kind": row.kind, "configured": row.configured, "missing": list(row.missing)}
        for name, row in catalog.providers.items()
    ]
    if as_json:
        output.echo_json(
            {
                "ok": not problems,
                "source": catalog.source,
                "providers": providers,
                "targets": targets,
                "problems": problems,
                "warnings": warnings,
            }
        )
    else:
        _echo_priced(("alias", "target", "configured"), targets)
        for state, is_on in (("on", True), ("off", False)):
            names = [row["name"] for row in providers if row["configured"] is is_on]
            click.echo(f"Providers that are {state}: {', '.join(names) or 'none'}")
        for text in warnings:
            click.echo(f"Warning: {text}", err=True)
        for text in problems:
            click.echo(f"Error: {text}", err=True)
    if problems:
        raise click.exceptions.Exit(1)


def _targets(catalog: Catalog) -> Iterator[dict[str, Any]]:
    """Yield every target of every alias, in order, and then the models that are listed by name."""
    for alias, names in catalog.aliases.items():
        for name in names:
            yield {"alias": alias, **_describe(_find_target(catalog, name))}
    aliased = {name for names in catalog.aliases.values() for name in names}
    for name in catalog.listed:
        if name not in aliased:
            yield {"alias": None, **_describe(_find_target(catalog, name))}


def _find_target(catalog: Catalog, name: str) -> Target:
    provider, _, model = name.partition("/")
    return catalog.target(catalog.providers[provider], model)


def _describe(target: Target) -> dict[str, Any]:
    """``price`` has the form of a price in models.toml (dollars per million tokens). It is None if it is unknown."""
    rates = None if target.price is None else target.price.in_force()
    return {
        "target": target.name,
        "provider": target.provider.name,
        "model": target.model,
        "configured": target.provider.configured,
        "price": None if rates is None else _price(rates),
        "price_source": None if rates is None else rates.source,
        "price_since": None if rates is None or rates.since is None else rates.since.isoformat(),
        "retires": None if target.retires is None else target.retires.isoformat(),
        "replacement": target.replacement,
    }


def _price(rates: Rates) -> dict[str, Any]:
    price: dict[str, Any] = {kind: float(rate) for kind, rate in rates.rates().items()}
    if rates.above:
        price["above"] = [{"tokens": start, **_price(above)} for start, above in rates.above]
    # A service tier with the standard price needs no line of its own.
    tiers = {name: table for name, tier_rates in rates.tiers if (table := _price(tier_rates)) != price}
    return {**price, "tiers": tiers} if tiers else price


def _size(target: Target) -> dict[str, Any]:
    return {"context": target.context, "max_output": target.max_output}


def _problems(catalog: Catalog) -> Iterator[str]:
    """Yield what can never work, whatever is configured."""
    if catalog.default_tier not in catalog.tiers:
        yield f"[defaults] tier = {catalog.default_tier}: there is no [tiers.{catalog.default_tier}]"
    if not _resolvable(catalog, catalog.default_model):
        yield f"[defaults] model = {catalog.default_model}: no alias, target or provider serves this name"
    for alias, names in catalog.aliases.items():
        if not names:
            yield f"[aliases.{alias}]: has no targets"
        if "/" in alias:
            yield f"[aliases.{alias}]: an alias with a slash hides the target of that name"
        for name in names:
            if not name.partition("/")[2]:
                yield f"[aliases.{alias}]: {name} must be provider/model"
    for pattern in catalog.patterns:
        provider, _, model = pattern.partition("/")
        if not model or not any(fnmatchcase(name, provider) for name in catalog.providers):
            yield f'[models."{pattern}"]: matches no provider/model, so it is never used'


def _wrong_keys(catalog: Catalog) -> Iterator[str]:
    """Yield which providers have a key file or a key command that gives no key. This runs the commands."""
    for row in catalog.providers.values():
        try:
            key_sources.check(row)
        except ValueError as error:
            yield str(error)


def _resolvable(catalog: Catalog, name: str) -> bool:
    if name in catalog.aliases:
        return True
    provider, slash, model = name.partition("/")
    if slash:
        return bool(model) and provider in catalog.providers
    return any(fnmatchcase(name, pattern) for row in catalog.providers.values() for pattern in row.serves)


def _warnings(catalog: Catalog, targets: list[dict[str, Any]]) -> Iterator[str]:
    """Yield what does not work with the current configuration, or soon will not. It may be intended."""
    for name, provider in catalog.providers.items():
        if provider.key is not None and provider.missing:
            yield f"provider {name} is off, although it has a key: {', '.join(provider.missing)} must be set too"
    for alias, names in catalog.aliases.items():
        if names and not any(_find_target(catalog, name).provider.configured for name in names):
            yield f"alias {alias} cannot be used: none of its providers has a key"
    unpriced: dict[str, list[str]] = {}
    for row in targets:
        if row["configured"] and row["price"] is None:
            unpriced.setdefault(row["target"], []).extend([row["alias"]] if row["alias"] else [])
    for target, aliases in unpriced.items():
        behind = f" (behind {', '.join(aliases)})" if aliases else ""
        yield (
            f"{target}{behind} has no known price: its calls are logged without a cost, "
            "and keys with a budget cannot use it"
        )
    # The check of a file comes before its keys are set, so targets of providers without a key count too.
    for retirement in retirements(catalog, datetime.now(UTC).date(), configured=False):
        yield retirement.sentence()


def _echo_priced(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Print a line per row with its standard price, and a line for each service tier and each price of long prompts."""
    table = []
    for row in rows:
        lines = list(_lines(row["price"]))
        where = [row["price_source"], row["price_since"]]
        table.append([*(row[name] for name in columns), *lines[0], *where])
        table += [["" for _ in columns] + [*line, "", ""] for line in lines[1:]]
    numbers = ("context", "max_output")
    output.echo_table((*columns, "tier", "$ per million tokens", "price_source", "since"), table, numbers=numbers)


def _lines(price: Mapping[str, Any] | None) -> Iterator[tuple[str | None, str]]:
    if price is None:
        yield None, "unknown"
        return
    for tier, table in (("standard", price), *price.get("tiers", {}).items()):
        yield tier, _price_text(table)
        for above in table.get("above", ()):
            yield f"{tier}, above {above['tokens']:,}", _price_text(above)


def _price_text(price: Mapping[str, Any]) -> str:
    texts = [f"{kind} {price[kind]:g}" + (" per 1,000" if kind in COUNTED else "") for kind in KINDS if kind in price]
    return ", ".join(texts)
