"""The rows of models.toml as values. A wrong row raises a ValueError with its name and what is wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from difflib import SequenceMatcher
from typing import Any, Final

from llm_service.core.money import nanodollars
from llm_service.core.periods import PERIODS, Period
from llm_service.core.target import Provider, Timeouts

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


def check_names(where: str, row: Mapping[str, Any], known: Iterable[str]) -> None:
    """Raises ValueError for a name in ``row`` that is not known, with the nearest name that is."""
    names = tuple(known)
    for name in sorted(set(row) - set(names)):
        nearest = max(names, key=lambda known: _likeness(name, known))
        raise ValueError(f"{where}: unknown field {name}; did you mean {nearest}? There are {', '.join(names)}")


def _likeness(name: str, known: str) -> float:
    """How much two names are alike. A whole word in common says more than letters: api_key is like key_env."""
    in_common = set(name.split("_")) & set(known.split("_"))
    return SequenceMatcher(None, name, known).ratio() + bool(in_common) / 2


def tier(name: str, row: Mapping[str, Any]) -> Tier:
    where = f"[tiers.{name}]"
    if not isinstance(row, Mapping):
        raise ValueError(f"{where}: must be a table of limits")
    check_names(where, row, ("rpm", "tpm", "parallel", "budget"))
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
    if not isinstance(row, Mapping):
        raise ValueError(f"{where}: must be a table with targets")
    check_names(where, row, ("targets",))
    targets = row.get("targets")
    if not isinstance(targets, list) or not all(isinstance(target, str) for target in targets):
        raise ValueError(f'{where}: targets must be a list of names such as "provider/model"')
    for target in targets:
        if target.partition("/")[0] not in providers:
            raise ValueError(f"{where}: the provider of {target} is not in this file; a target is provider/model")
    return tuple(targets)


def timeouts(base: Timeouts, row: Mapping[str, Any], where: str) -> Timeouts:
    """``base`` with the time-outs of ``row``."""
    if not isinstance(row, Mapping):
        raise ValueError(f"{where}: timeouts must be a table such as {{ idle = 60 }}")
    check_names(f"{where} timeouts", row, [item.name for item in fields(Timeouts)])
    for name, value in row.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
            raise ValueError(f"{where}: {name} must be a positive number of seconds")
    return replace(base, **{name: float(value) for name, value in row.items()})
