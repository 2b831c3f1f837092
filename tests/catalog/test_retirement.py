"""Models that retire: who is warned of, from when on, and in which words."""

from __future__ import annotations

import logging
from datetime import date

import pytest

from llm_service.catalog.catalog import Catalog
from llm_service.catalog.retirement import NOTICE_DAYS, retirements
from llm_service.server import launch
from llm_service.settings import Settings

END = date(2026, 12, 11)
LATER = date(2027, 1, 1)
DOCUMENT = {
    "providers": {"p": {"kind": "openai", "keyless": True}, "off": {"kind": "openai", "key_env": "NOT_SET"}},
    "aliases": {
        "fast": {"targets": ["p/old", "p/new"]},
        "cheap": {"targets": ["p/old-1"]},
        "other": {"targets": ["p/old", "off/old"]},
    },
    "models": {
        "p/listed": {"retires": END},
        "*/old*": {"retires": END, "replacement": "p/new"},
        "p/never-asked*": {"retires": END},
    },
}
CATALOG = Catalog(DOCUMENT, Settings.load({}))


def warned(today: date, *, configured: bool = True) -> dict[str, int]:
    return {item.target: item.days for item in retirements(CATALOG, today, configured=configured)}


def test_a_warning_comes_sixty_days_before_and_stays() -> None:
    assert NOTICE_DAYS == 60
    assert warned(date(2026, 10, 11)) == {}
    assert set(warned(date(2026, 10, 12)).values()) == {60}
    assert set(warned(date(2030, 1, 1)).values()) == {-1117}


def test_only_models_that_the_catalogue_offers_and_that_are_configured_are_warned_of() -> None:
    assert set(warned(END)) == {"p/listed", "p/old", "p/old-1"}
    assert set(warned(END, configured=False)) == {"p/listed", "p/old", "p/old-1", "off/old"}


@pytest.mark.parametrize(
    ("today", "expected"),
    [
        (date(2026, 11, 28), "p/old (behind fast, other) retires on 2026-12-11, in 13 days"),
        (date(2026, 12, 10), "p/old (behind fast, other) retires on 2026-12-11, in 1 day"),
        (END, "p/old (behind fast, other) retired on 2026-12-11, and the vendor does not serve it any more"),
        (
            date(2027, 1, 1),
            "p/old (behind fast, other) retired on 2026-12-11, and the vendor does not serve it any more",
        ),
    ],
)
def test_the_sentence_names_the_aliases_the_day_and_the_replacement(today: date, expected: str) -> None:
    (old,) = [item for item in retirements(CATALOG, today) if item.target == "p/old"]
    assert old.sentence() == f"{expected}; its replacement is p/new"
    assert old.sentence(with_aliases=False) == f"{expected}; its replacement is p/new".replace(
        " (behind fast, other)", ""
    )


def test_without_a_replacement_the_sentence_ends_with_the_day() -> None:
    (listed,) = [item for item in retirements(CATALOG, END) if item.target == "p/listed"]
    assert listed.sentence() == "p/listed retired on 2026-12-11, and the vendor does not serve it any more"


def test_the_start_logs_a_warning_for_each_model(caplog: pytest.LogCaptureFixture) -> None:
    past = {**DOCUMENT, "models": {"p/old": {"retires": date(2026, 1, 31), "replacement": "p/new"}}}
    with caplog.at_level(logging.WARNING):
        launch.warn_of_retirements(Catalog(past, Settings.load({})))
    (record,) = caplog.records
    assert record.getMessage() == "a model of the catalogue retires"
    assert record.__dict__["fields"]["warning"].startswith("p/old (behind fast, other) retired on 2026-01-31")
