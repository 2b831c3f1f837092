"""The catalogue: models.toml, read once into values.

A model's name in a request resolves to targets, the best one first:

* an alias (``fast``): its targets whose providers are configured;
* ``provider/model``: that model of a configured provider, whether the file lists the
  model or not;
* a vendor's name (``gpt-6-luna``): that model, if exactly one configured provider
  serves it (the patterns in ``serves``).

A provider is configured if its key variable is set or if it is ``keyless``.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from llm_service.catalog import load, model_fields, provider_fields
from llm_service.catalog.load import Tier
from llm_service.catalog.prices import library_price, read_price
from llm_service.core.call import Caller
from llm_service.core.errors import Forbidden, ModelNotFound
from llm_service.core.target import Price, Provider, Target, Timeouts
from llm_service.settings import Settings, SettingsError

PACKAGED = Path(__file__).with_name("models.toml")
# Rows of providers, ready to be turned on. They belong to the packaged catalogue.
READY = Path(__file__).with_name("providers.toml")
_SECTIONS = ("defaults", "tiers", "providers", "aliases", "models")
_DEFAULTS = ("tier", "model", "attempts", "retry_after_cap", "timeouts")


@dataclass(frozen=True, slots=True)
class _ModelRow:
    pattern: str
    values: Mapping[str, Any]


class Catalog:
    """Greenlets and threads may share it: it does not change after it was read."""

    def __init__(self, document: Mapping[str, Any], settings: Settings, source: str = "models.toml") -> None:
        self.source = source
        try:
            self._read(document, settings)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SettingsError(f"{source}: {error}") from None
        self._targets: dict[str, Target] = {}

    @classmethod
    def load(cls, settings: Settings) -> Catalog:
        """The catalogue of the settings. Raises SettingsError with the file's name and what is wrong in it."""
        path = settings.models or PACKAGED
        document = _read_file(path)
        if settings.models is None:
            for section, rows in _read_file(READY).items():
                document[section] |= rows
        return cls(document, settings, path.name)

    def _read(self, document: Mapping[str, Any], settings: Settings) -> None:
        load.check_names("the file", document, _SECTIONS)
        for section in _SECTIONS:
            if not isinstance(document.get(section, {}), Mapping):
                raise ValueError(f"[{section}]: must be a table")
        defaults = document.get("defaults", {})
        load.check_names("[defaults]", defaults, _DEFAULTS)
        self.default_tier: str = defaults.get("tier", "default")
        self.default_model: str = defaults.get("model", "fast")
        self.attempts = int(defaults.get("attempts", 3))
        self.retry_after_cap = float(defaults.get("retry_after_cap", 20))
        self._timeouts = load.timeouts(Timeouts(), defaults.get("timeouts", {}), "[defaults.timeouts]")
        self.tiers = {name: load.tier(name, row) for name, row in document.get("tiers", {}).items()}
        self.providers = {
            name: provider_fields.provider(name, row, settings) for name, row in document.get("providers", {}).items()
        }
        self._rows = [_ModelRow(pattern, row) for pattern, row in document.get("models", {}).items()]
        for row in self._rows:
            model_fields.check(row.pattern, row.values, self._timeouts)
        self.aliases: dict[str, tuple[str, ...]] = {
            name: load.alias_targets(name, row, self.providers) for name, row in document.get("aliases", {}).items()
        }

    @property
    def patterns(self) -> tuple[str, ...]:
        """The names of the ``[models]`` rows, in the file's order."""
        return tuple(row.pattern for row in self._rows)

    @property
    def listed(self) -> tuple[str, ...]:
        """The models that ``[models]`` lists by name and not by a pattern, as ``provider/model``."""
        return tuple(
            name
            for name in self.patterns
            if not set(name) & set("*?[") and name.partition("/")[2] and name.partition("/")[0] in self.providers
        )

    def tier(self, name: str) -> Tier:
        return self.tiers.get(name) or self.tiers.get(self.default_tier) or Tier(self.default_tier)

    def requests_per_minute(self, caller: Caller) -> int | None:
        """The caller's own limit, or else that of its tier; None means no limit."""
        return caller.rpm if caller.rpm is not None else self.tier(caller.tier).rpm

    def tokens_per_minute(self, caller: Caller) -> int | None:
        """The caller's own limit, or else that of its tier; None means no limit."""
        return caller.tpm if caller.tpm is not None else self.tier(caller.tier).tpm

    def parallel_calls(self, caller: Caller) -> int | None:
        """The caller's own limit, or else that of its tier; None means no limit."""
        return caller.parallel if caller.parallel is not None else self.tier(caller.tier).parallel

    def target(self, provider: Provider, model: str) -> Target:
        name = f"{provider.name}/{model}"
        if name not in self._targets:
            if len(self._targets) > 10_000:  # callers choose the names, so their number must be limited
                self._targets.clear()
            self._targets[name] = self._build(provider, model, name)
        return self._targets[name]

    def _build(self, provider: Provider, model: str, name: str) -> Target:
        row: dict[str, Any] = {}
        for model_row in reversed(self._rows):  # each field comes from the first matching row that has it
            if fnmatchcase(name, model_row.pattern):
                row.update(model_row.values)
        provider = replace(provider, **provider_fields.shared_values(row))
        price: Price | None = None
        if "price" in row:
            price = read_price(row["price"], f'[models."{name}"] price', self.source)
        elif provider.prices:
            known_as = (provider.price_as or model).replace("{name}", model.rpartition("/")[2])
            price = library_price(provider.prices, known_as)
        return Target(
            provider=provider,
            model=model,
            timeouts=load.timeouts(self._timeouts, row.get("timeouts", {}), name),
            price=price,
            **model_fields.values(row),
        )

    def resolve(self, name: str, caller: Caller | None = None) -> tuple[Target, ...]:
        """The targets of a model's name, the best one first.

        Raises:
            ModelNotFound: The model is unknown, or its provider is not configured.
            Forbidden: The caller's key does not allow the model.
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
                raise ModelNotFound(self._no_target(), param="model")
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
            raise ModelNotFound("Several providers serve this model. Ask for it as provider/model.", param="model")
        raise ModelNotFound(
            "The model does not exist, or its provider is not configured on this service.", param="model"
        )

    def _no_target(self) -> str:
        others = [name for name, row in self.providers.items() if row.configured and row.kind != "echo"]
        text = "No provider of this model is configured on this service."
        return f"{text} Ask for a model as {' or '.join(f'{name}/MODEL' for name in others)}." if others else text

    def _split(self, target: str) -> tuple[Provider, str]:
        provider, _, model = target.partition("/")
        return self.providers[provider], model

    def names(self, caller: Caller | None = None) -> list[tuple[str, Target]]:
        """The models that ``GET /v1/models`` lists: aliases, their targets, and the file's models without patterns.

        Those that are not configured or that the caller may not use are left out.
        """
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


def _read_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path.name}: {error}") from None


def _allowed(patterns: tuple[str, ...], name: str, targets: tuple[Target, ...]) -> bool:
    def matches(candidate: str) -> bool:
        return any(fnmatchcase(candidate, pattern) for pattern in patterns)

    return matches(name) or all(matches(target.name) or matches(target.model) for target in targets)
