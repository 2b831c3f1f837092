"""Days, weeks and months of budgets, through every change of clocks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llm_service.core.periods import PERIODS, ends_at, period_id, starts_at, zone_named

ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Havana",  # clocks go back from 1:00 to 0:00: two midnights
    "America/Sao_Paulo",  # until 2018 they went forward at midnight: none
    "America/St_Johns",  # until 2011 they went back at 0:01: a piece of the day before again
    "Africa/Cairo",
    "Asia/Kathmandu",
    "Pacific/Apia",  # left out 30 December 2011
    "Australia/Lord_Howe",
)


def at(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type, misc]


def test_the_identifiers_have_the_documented_form() -> None:
    moment = at(2026, 11, 21, 12)
    names = [period_id(period, "UTC", moment) for period in PERIODS]
    assert names == ["day:2026-11-21", "week:2026-W47", "month:2026-11", "total"]
    assert period_id("week", "UTC", at(2027, 1, 2)) == "week:2026-W53"  # ISO 8601: the year of its Thursday


def test_a_period_begins_when_it_does_in_its_zone() -> None:
    moment = at(2025, 11, 30, 23, 30)
    assert period_id("month", "UTC", moment) == "month:2025-11"
    assert period_id("month", "Europe/Berlin", moment) == "month:2025-12"
    assert starts_at("month", "Europe/Berlin", moment) == at(2025, 11, 30, 23)
    assert ends_at("month", "Europe/Berlin", moment) == at(2025, 12, 31, 23)
    assert starts_at("week", "America/New_York", at(2025, 11, 21)) == at(2025, 11, 17, 5)  # a Monday
    assert (starts_at("total", "UTC", moment), ends_at("total", "UTC", moment)) == (None, None)


# Days that are past: governments change the rules of days to come, and the time zone database follows them.
@pytest.mark.parametrize(
    ("zone", "moment", "hours"),
    [
        ("Europe/Berlin", at(2025, 3, 30, 12), 23),
        ("Europe/Berlin", at(2025, 10, 26, 12), 25),
        ("America/Havana", at(2025, 3, 9, 12), 23),  # no midnight: from 0:00 clocks go forward to 1:00
        ("America/Havana", at(2025, 11, 2, 12), 25),
        ("America/Sao_Paulo", at(2018, 11, 4, 12), 23),  # no midnight either
        ("Australia/Lord_Howe", at(2025, 4, 6, 1), 24.5),
    ],
)
def test_a_day_on_which_clocks_change_is_as_long_as_it_is(zone: str, moment: datetime, hours: float) -> None:
    start, end = starts_at("day", zone, moment), ends_at("day", zone, moment)
    assert start
    assert end
    assert end - start == timedelta(hours=hours)


def test_a_day_that_a_zone_left_out_is_nobodys() -> None:
    before, after = at(2011, 12, 30, 9, 59), at(2011, 12, 30, 10)
    assert period_id("day", "Pacific/Apia", before) == "day:2011-12-29"
    assert period_id("day", "Pacific/Apia", after) == "day:2011-12-31"
    assert ends_at("day", "Pacific/Apia", before) == starts_at("day", "Pacific/Apia", after) == after


@given(
    st.sampled_from(PERIODS[:3]),
    st.sampled_from(ZONES),
    st.datetimes(datetime(1990, 1, 1), datetime(2037, 12, 31), timezones=st.just(UTC)),  # noqa: DTZ001
)
@example("day", "America/St_Johns", at(2010, 11, 7, 2, 31))
@example("day", "Pacific/Apia", at(2011, 12, 30, 10))
def test_every_instant_lies_in_exactly_one_period(period: Any, zone: str, moment: datetime) -> None:
    start, end = starts_at(period, zone, moment), ends_at(period, zone, moment)
    assert start
    assert end
    assert start <= moment < end
    name = period_id(period, zone, moment)
    last = end - timedelta(microseconds=1)
    assert {period_id(period, zone, instant) for instant in (start, last)} == {name}
    assert (starts_at(period, zone, last), ends_at(period, zone, start)) == (start, end)
    assert starts_at(period, zone, end) == end
    assert period_id(period, zone, end) != name


@pytest.mark.parametrize("name", ["Mars/Olympus", "", "Europe", "../etc/passwd", "/etc/passwd", "\x00"])
def test_an_unknown_zone_is_refused_by_its_name(name: str) -> None:
    with pytest.raises(ValueError, match="time zone") as refusal:
        zone_named(name)
    assert name in str(refusal.value)


def test_an_unknown_period_and_a_time_without_zone_are_refused() -> None:
    with pytest.raises(ValueError, match="day, week, month, total"):
        period_id("year", "UTC", at(2026, 1, 1))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="zone"):
        period_id("day", "UTC", datetime(2026, 1, 1))  # noqa: DTZ001
