"""Which models of the catalogue a vendor will soon not serve any more, or serves no longer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Final

from llm_service.catalog.catalog import Catalog

NOTICE_DAYS: Final = 60


@dataclass(frozen=True, slots=True)
class Retirement:
    """A model with a known end. ``aliases`` are those that have it as a target; ``days`` are left, and 0 is today."""

    target: str
    aliases: tuple[str, ...]
    retires: date
    replacement: str | None
    days: int

    def sentence(self, *, with_aliases: bool = True) -> str:
        behind = f" (behind {', '.join(self.aliases)})" if with_aliases and self.aliases else ""
        what = (
            f"retired on {self.retires}, and the vendor does not serve it any more"
            if self.days <= 0
            else f"retires on {self.retires}, in {self.days} day{'s' if self.days > 1 else ''}"
        )
        instead = f"; its replacement is {self.replacement}" if self.replacement else ""
        return f"{self.target}{behind} {what}{instead}"


def retirements(catalog: Catalog, today: date, *, configured: bool = True) -> Iterator[Retirement]:
    """Yield the retired models, and those that retire within ``NOTICE_DAYS``, of the targets of aliases and of the
    models that the file lists by name; only those of configured providers, unless ``configured`` is False.
    """
    for name, aliases in _in_use(catalog).items():
        provider, _, model = name.partition("/")
        target = catalog.target(catalog.providers[provider], model)
        if target.retires is None or (configured and not target.provider.configured):
            continue
        days = (target.retires - today).days
        if days <= NOTICE_DAYS:
            yield Retirement(name, tuple(aliases), target.retires, target.replacement, days)


def _in_use(catalog: Catalog) -> dict[str, list[str]]:
    """The targets that the catalogue names, each with the aliases that it stands behind."""
    found: dict[str, list[str]] = {name: [] for name in catalog.listed}
    for alias, targets in catalog.aliases.items():
        for name in targets:
            found.setdefault(name, []).append(alias)
    return found
