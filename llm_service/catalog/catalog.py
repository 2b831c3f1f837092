"""The catalogue: models.toml, read once into values.

A name a caller may ask for resolves to ordered targets:

* an alias (``fast``) to its configured targets;
* ``provider/model`` to itself, for any configured provider, listed or not;
* a bare vendor name (``gpt-4o-mini``) when exactly one configured provider is
  known to serve it (its ``serves`` patterns).

A provider is configured when its key variable is set, or when it is ``keyless``.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from llm_service.catalog import load
from llm_service.catalog.load import Tier
from llm_service.catalog.prices import library_price, read_price
from llm_service.core.call import Caller
from llm_service.core.errors import Forbidden, ModelNotFound
from llm_service.core.target import THINKING, Price, Provider, Target, Timeouts
from llm_service.settings import Settings, SettingsError

PACKAGED = Path(__file__).with_name("models.toml")


@dataclass(frozen=True, slots=True)
class _ModelRow:
    pattern: str
    values: Mapping[str, Any]


class Catalog:
    """Reads only; safe to share between greenlets and threads."""

    def __init__(self, document: Mapping[str, Any], settings: Settings, source: str = "models.toml") -> None:
        self.source = source
        try:
            self._read(document, settings)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SettingsError(f"{source}: {error}") from None
        self._targets: dict[str, Target] = {}

    @classmethod
    def load(cls, settings: Settings) -> Catalog:
        """Raises SettingsError naming the file and what is wrong in it."""
        path = settings.models or PACKAGED
        try:
            document = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise SettingsError(f"{path.name}: {error}") from None
        return cls(document, settings, path.name)

    def _read(self, document: Mapping[str, Any], settings: Settings) -> None:
        unknown = set(document) - {"defaults", "tiers", "providers", "aliases", "models"}
        if unknown:
            raise ValueError(f"unknown section [{sorted(unknown)[0]}]")
        defaults = document.get("defaults", {})
        self.default_tier: str = defaults.get("tier", "default")
        self.default_model: str = defaults.get("model", "fast")
        self.attempts = int(defaults.get("attempts", 3))
        self.retry_after_cap = float(defaults.get("retry_after_cap", 20))
        self._timeouts = load.timeouts(Timeouts(), defaults.get("timeouts", {}), "[defaults.timeouts]")
        self.tiers = {name: load.tier(name, row) for name, row in document.get("tiers", {}).items()}
        self.providers = {
            name: load.provider(name, row, settings) for name, row in document.get("providers", {}).items()
        }
        self._rows = [_ModelRow(pattern, row) for pattern, row in document.get("models", {}).items()]
        for row in self._rows:
            load.timeouts(self._timeouts, row.values.get("timeouts", {}), f'[models."{row.pattern}"]')
            if row.values.get("thinking", "none") not in THINKING:
                raise ValueError(f'[models."{row.pattern}"]: thinking must be one of {", ".join(THINKING)}')
            if "price" in row.values:
                read_price(row.values["price"], f'[models."{row.pattern}"] price')
        self.aliases: dict[str, tuple[str, ...]] = {
            name: tuple(row["targets"]) for name, row in document.get("aliases", {}).items()
        }
        for name, targets in self.aliases.items():
            for target in targets:
                if target.partition("/")[0] not in self.providers:
                    raise ValueError(f"[aliases.{name}]: {target} is of no provider in this file")

    @property
    def patterns(self) -> tuple[str, ...]:
        """The names of the ``[models]`` rows, in the file's order."""
        return tuple(row.pattern for row in self._rows)

    def tier(self, name: str) -> Tier:
        return self.tiers.get(name) or self.tiers.get(self.default_tier) or Tier(self.default_tier)

    def requests_per_minute(self, caller: Caller) -> int | None:
        """The caller's own limit, else its tier's; None is unlimited."""
        return caller.rpm if caller.rpm is not None else self.tier(caller.tier).rpm

    def tokens_per_minute(self, caller: Caller) -> int | None:
        """The caller's own limit, else its tier's; None is unlimited."""
        return caller.tpm if caller.tpm is not None else self.tier(caller.tier).tpm

    def parallel_calls(self, caller: Caller) -> int | None:
        """The caller's own limit, else its tier's; None is unlimited."""
        return caller.parallel if caller.parallel is not None else self.tier(caller.tier).parallel

    def target(self, provider: Provider, model: str) -> Target:
        name = f"{provider.name}/{model}"
        if name not in self._targets:
            if len(self._targets) > 10_000:  # names come from callers: the memory must not grow with them
                self._targets.clear()
            self._targets[name] = self._build(provider, model, name)
        return self._targets[name]

    def _build(self, provider: Provider, model: str, name: str) -> Target:
        row: dict[str, Any] = {}
        for item in reversed(self._rows):  # the first matching row of the file wins, field by field
            if fnmatchcase(name, item.pattern):
                row.update(item.values)
        price: Price | None = None
        if "price" in row:
            price = read_price(row["price"], f'[models."{name}"] price', self.source)
        elif provider.prices:
            price = library_price(provider.prices, model)
        return Target(
            provider=provider,
            model=model,
            timeouts=load.timeouts(self._timeouts, row.get("timeouts", {}), name),
            max_output=row.get("max_output"),
            context=row.get("context"),
            sampling=bool(row.get("sampling", True)),
            price=price,
            thinking=row.get("thinking", "none"),
            efforts=tuple(row.get("efforts", ())),
            system_turns=bool(row.get("system_turns", False)),
            cache_breakpoints=bool(row.get("cache_breakpoints", False)),
        )

    def resolve(self, name: str, caller: Caller | None = None) -> tuple[Target, ...]:
        """The targets behind ``name``, best first.

        Raises:
            ModelNotFound: unknown, or of a provider that is not configured.
            Forbidden: the caller's key does not allow it.
        """
        targets = self._resolve(name)
        if caller is not None and caller.models and not _allowed(caller.models, name, targets):
            raise Forbidden("This API key may not use this model.", param="model", code="model_not_allowed")
        return targets

    def _resolve(self, name: str) -> tuple[Target, ...]:
        if name in self.aliases:
            targets = tuple(
                self.target(provider, model)
                for provider, model in map(self._split, self.aliases[name])
                if provider.configured
            )
            if not targets:
                raise ModelNotFound("No provider behind this model is configured on this service.", param="model")
            return targets
        prefix, slash, model = name.partition("/")
        if slash and model and prefix in self.providers and self.providers[prefix].configured:
            return (self.target(self.providers[prefix], model),)
        serving = [
            provider
            for provider in self.providers.values()
            if provider.configured and any(fnmatchcase(name, pattern) for pattern in provider.serves)
        ]
        if len(serving) == 1:
            return (self.target(serving[0], name),)
        if serving:
            raise ModelNotFound("Several providers serve this model: name it as provider/model.", param="model")
        raise ModelNotFound(
            "The model does not exist, or its provider is not configured on this service.", param="model"
        )

    def _split(self, target: str) -> tuple[Provider, str]:
        provider, _, model = target.partition("/")
        return self.providers[provider], model

    def names(self, caller: Caller | None = None) -> list[tuple[str, Target]]:
        """What ``GET /v1/models`` lists: usable aliases, then the listed models without patterns."""
        listed: dict[str, Target] = {}
        candidates = [*self.aliases]
        candidates += [target for targets in self.aliases.values() for target in targets]
        candidates += [row.pattern for row in self._rows if not set(row.pattern) & set("*?[")]
        for name in candidates:
            try:
                listed.setdefault(name, self.resolve(name, caller)[0])
            except (ModelNotFound, Forbidden):
                continue
        return list(listed.items())


def _allowed(patterns: tuple[str, ...], name: str, targets: tuple[Target, ...]) -> bool:
    def matches(candidate: str) -> bool:
        return any(fnmatchcase(candidate, pattern) for pattern in patterns)

    return matches(name) or all(matches(target.name) or matches(target.model) for target in targets)
