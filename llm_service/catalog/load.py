"""The rows of models.toml as values, and what is wrong with a row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from llm_service.core.money import nanodollars
from llm_service.core.periods import PERIODS, Period
from llm_service.core.target import Provider, Timeouts
from llm_service.settings import Settings

# The kinds of providers that come with the service, and the wire formats that each speaks. Any other kind is the
# dotted name of a module that has ``connect``, as the modules of llm_service.providers do.
KINDS: Final[Mapping[str, tuple[str, ...]]] = {
    "anthropic": ("messages", "count_tokens"),
    "openai": ("chat", "responses", "input_tokens", "completions", "embeddings"),
    "echo": (),
}
MAX_LIMIT: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class TierBudget:
    """What each key of the tier may spend per period."""

    amount_nanousd: int
    period: Period


@dataclass(frozen=True, slots=True)
class Tier:
    """Limits of each key in it: requests and tokens per minute, calls at the same time, money. None: no limit."""

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


def provider(name: str, row: Mapping[str, Any], settings: Settings) -> Provider:
    """Raises ValueError naming the row and what is wrong in it."""
    where = f"[providers.{name}]"
    kind = row["kind"]
    if kind not in KINDS and not (
        isinstance(kind, str) and all(map(str.isidentifier, kind.split("."))) and "." in kind
    ):
        raise ValueError(f"{where}: kind must be one of {', '.join(KINDS)}, or the dotted name of a module")
    base_url = settings.secret(row["base_url_env"]) if "base_url_env" in row else None
    # A row that names a base_url is another server than OpenAI's, and few of those have the newer API.
    has_responses = "responses" in row["formats"] if isinstance(row.get("formats"), list) else "base_url" not in row
    responses = bool(row.get("responses", has_responses))
    made = Provider(
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
        counts_tokens=responses if kind == "openai" else True,
        formats=_formats(where, row, responses),
        storage=bool(row.get("storage", settings.upstream_storage == "allow")),
    )
    unknown = set(row) - {item.name for item in fields(Provider)} - {"key_env", "base_url_env"}
    if unknown or {"key", "counts_tokens"} & set(row):
        raise ValueError(f"{where}: unknown field {sorted(unknown | {'key', 'counts_tokens'} & set(row))[0]}")
    return made


def _formats(where: str, row: Mapping[str, Any], responses: bool) -> tuple[str, ...]:
    """The formats that the row lists, else those of its kind; ``responses = false`` takes out OpenAI's newer API."""
    known = KINDS.get(row["kind"])
    if "formats" not in row:
        without = set() if responses else {"responses", "input_tokens"}
        return tuple(name for name in known or () if name not in without)
    listed = row["formats"]
    if not isinstance(listed, list) or not listed or not all(isinstance(name, str) for name in listed):
        raise ValueError(f"{where}: formats must be a list of names")
    unknown = set(listed) - set(known) if known is not None else set()
    if unknown:
        raise ValueError(f"{where}: {sorted(unknown)[0]} is no format of this kind; it speaks {', '.join(known or ())}")
    return tuple(listed)


def timeouts(base: Timeouts, row: Mapping[str, Any], where: str) -> Timeouts:
    for name, value in row.items():
        if name not in {item.name for item in fields(Timeouts)}:
            raise ValueError(f"{where}: unknown time-out {name}")
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
            raise ValueError(f"{where}: {name} must be a positive number of seconds")
    return replace(base, **{name: float(value) for name, value in row.items()})
