"""The rows of models.toml as values. A wrong row raises a ValueError with its name and what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from llm_service.core.money import nanodollars
from llm_service.core.periods import PERIODS, Period
from llm_service.core.target import Provider, Timeouts
from llm_service.settings import Settings

# The kinds of providers that come with the service, and the wire formats that each speaks. Any other kind is the
# dotted name of a module with a function ``connect``, like those in llm_service.providers.
KINDS: Final[Mapping[str, tuple[str, ...]]] = {
    "anthropic": ("messages", "count_tokens"),
    "openai": ("chat", "responses", "input_tokens", "completions", "embeddings"),
    "echo": (),
}
# The fields of Provider that a row does not have under this name.
_DERIVED: Final = frozenset({"key", "counts_tokens", "own_address"})
MAX_LIMIT: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class TierBudget:
    """The amount that each key of the tier may spend per period."""

    amount_nanousd: int
    period: Period


@dataclass(frozen=True, slots=True)
class Tier:
    """The limits of each key in a tier: requests and tokens per minute, simultaneous calls, money. None: no limit."""

    name: str
    rpm: int | None = None
    tpm: int | None = None
    parallel: int | None = None
    budget: TierBudget | None = None


def tier(name: str, row: Mapping[str, Any]) -> Tier:
    where = f"[tiers.{name}]"
    if not isinstance(row, Mapping):
        raise ValueError(f"{where}: must be a table of limits")
    unknown = set(row) - {"rpm", "tpm", "parallel", "budget"}
    if unknown:
        raise ValueError(f"{where}: unknown field {sorted(unknown)[0]}")
    for limit in ("rpm", "tpm", "parallel"):
        value = row.get(limit)
        if value is not None and (type(value) is not int or not 1 <= value <= MAX_LIMIT):
            raise ValueError(f"{where}: {limit} must be a whole number from 1 to {MAX_LIMIT:,}")
    budget = _tier_budget(f"{where} budget", row["budget"]) if "budget" in row else None
    return Tier(name, row.get("rpm"), row.get("tpm"), row.get("parallel"), budget)


def _tier_budget(where: str, row: Any) -> TierBudget:
    if not isinstance(row, Mapping) or set(row) != {"amount_usd", "per"}:
        raise ValueError(f'{where}: must be {{ amount_usd = 10, per = "month" }}')
    if row["per"] not in PERIODS:
        raise ValueError(f"{where}: per must be one of {', '.join(PERIODS)}")
    if not isinstance(row["amount_usd"], (int, float, str)):
        raise ValueError(f"{where}: amount_usd must be a number of dollars")
    try:
        return TierBudget(nanodollars(row["amount_usd"]), row["per"])
    except ValueError as error:
        raise ValueError(f"{where}: amount_usd {error}") from None


def alias_targets(name: str, row: Mapping[str, Any], providers: Mapping[str, Provider]) -> tuple[str, ...]:
    where = f"[aliases.{name}]"
    targets = row.get("targets")
    if not isinstance(targets, list) or not all(isinstance(target, str) for target in targets):
        raise ValueError(f'{where}: targets must be a list of names such as "provider/model"')
    for target in targets:
        if target.partition("/")[0] not in providers:
            raise ValueError(f"{where}: the provider of {target} is not in this file; a target is provider/model")
    return tuple(targets)


def provider(name: str, row: Mapping[str, Any], settings: Settings) -> Provider:
    where = f"[providers.{name}]"
    kind = row.get("kind")
    if not isinstance(kind, str) or not (kind in KINDS or _is_module_name(kind)):
        raise ValueError(f"{where}: kind must be one of {', '.join(KINDS)}, or the dotted name of a module")
    base_url = settings.secret(row["base_url_env"]) if "base_url_env" in row else None
    responses = _has_responses(where, row)
    formats = _formats(where, row, responses)
    result = Provider(
        name=name,
        kind=kind,
        key=settings.secret(row["key_env"]) if "key_env" in row else None,
        base_url=base_url or row.get("base_url"),
        keyless=bool(row.get("keyless", False)),
        serves=tuple(row.get("serves", ())),
        prices=row.get("prices"),
        max_tokens_field=row.get("max_tokens_field", "max_completion_tokens"),
        completions=tuple(row.get("completions", ())),
        responses=responses,
        counts_tokens="input_tokens" in formats if kind == "openai" else True,
        formats=formats,
        storage=bool(row.get("storage", settings.upstream_storage == "allow")),
        store=_store(where, row),
        own_address="base_url" in row,
        thoughts=row.get("thoughts", "none"),
    )
    unknown = set(row) - ({item.name for item in fields(Provider)} - _DERIVED) - {"key_env", "base_url_env"}
    if unknown:
        raise ValueError(f"{where}: unknown field {sorted(unknown)[0]}")
    return result


def _is_module_name(kind: str) -> bool:
    return "." in kind and all(map(str.isidentifier, kind.split(".")))


def _has_responses(where: str, row: Mapping[str, Any]) -> bool:
    """Whether the server has OpenAI's Responses API: the row's ``formats`` or ``responses`` say so.

    By default only a row without a ``base_url`` has it: that is OpenAI's own server, and few others have this API.
    """
    if not isinstance(row.get("formats"), list):
        return bool(row.get("responses", "base_url" not in row))
    has_responses = "responses" in row["formats"]
    if bool(row.get("responses", has_responses)) != has_responses:
        raise ValueError(f"{where}: responses contradicts formats; leave out responses")
    return has_responses


def _formats(where: str, row: Mapping[str, Any], responses: bool) -> tuple[str, ...]:
    """The formats that the row lists, or else those of its kind, without OpenAI's Responses API if it has none."""
    known = KINDS.get(row["kind"])
    if "formats" not in row:
        left_out = set() if responses else {"responses", "input_tokens"}
        return tuple(name for name in known or () if name not in left_out)
    listed = row["formats"]
    if not isinstance(listed, list) or not listed or not all(isinstance(name, str) for name in listed):
        raise ValueError(f"{where}: formats must be a list of names")
    unknown = set(listed) - set(known) if known is not None else set()
    if unknown:
        choices = f"may be {', '.join(known)}" if known else "must be left out for this kind"
        raise ValueError(f"{where}: unknown format {sorted(unknown)[0]}; formats {choices}")
    return tuple(listed)


def _store(where: str, row: Mapping[str, Any]) -> bool | None:
    if not isinstance(row.get("store", True), bool):
        raise ValueError(f"{where}: store must be true or false")
    return row.get("store")


def timeouts(base: Timeouts, row: Mapping[str, Any], where: str) -> Timeouts:
    """``base`` with the time-outs of ``row``."""
    known = [item.name for item in fields(Timeouts)]
    for name, value in row.items():
        if name not in known:
            raise ValueError(f"{where}: unknown time-out {name}; there are {', '.join(known)}")
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
            raise ValueError(f"{where}: {name} must be a positive number of seconds")
    return replace(base, **{name: float(value) for name, value in row.items()})
