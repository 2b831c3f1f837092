"""The periods of budgets: a day, an ISO week, a month, or all time, in the operator's time zone.

A day begins at the first instant at which clocks show 00:00. If a change of the clocks skips that hour, it begins at
the change. For every zone and instant, ``starts_at <= at < ends_at`` holds, and the identifier is the same for the
whole period: clocks that are set back over midnight do not reopen a day that has ended.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import lru_cache
from typing import Literal, TypeAlias, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

Period: TypeAlias = Literal["day", "week", "month", "total"]
PERIODS: tuple[Period, ...] = get_args(Period)

_DAY = timedelta(days=1)


@lru_cache(maxsize=64)
def zone_named(name: str) -> tzinfo:
    """The IANA time zone.

    Raises:
        ValueError: there is no zone of this name, or no time zone database.
    """
    if name == "UTC":  # needs no database
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: the name is a folder of the database
        raise ValueError(f"unknown time zone {name}") from None


def period_id(period: Period, zone: str, at: datetime) -> str:
    """``day:2026-11-21``, ``week:2026-W47``, ``month:2026-11`` or ``total``.

    Raises:
        ValueError: the period or the zone is unknown, or the time has no zone.
    """
    if period == "total":
        return "total"
    first = _first_day(period, zone, at)
    if period == "day":
        return f"day:{first.isoformat()}"
    if period == "month":
        return f"month:{first.year:04}-{first.month:02}"
    year, week, _ = first.isocalendar()
    return f"week:{year:04}-W{week:02}"


def starts_at(period: Period, zone: str, at: datetime) -> datetime | None:
    """When the period around ``at`` began, in UTC; None for ``total``. Raises like ``period_id``."""
    if period == "total":
        return None
    return _begins(_first_day(period, zone, at), zone_named(zone))


def ends_at(period: Period, zone: str, at: datetime) -> datetime | None:
    """The first instant after the period around ``at``, in UTC; None for ``total``. Raises like ``period_id``."""
    if period == "total":
        return None
    first = _first_day(period, zone, at)
    if period == "day":
        after = _next_day(first, zone_named(zone))
    elif period == "week":
        after = first + 7 * _DAY
    else:
        after = (first.replace(day=28) + 4 * _DAY).replace(day=1)
    return _begins(after, zone_named(zone))


def _first_day(period: Period, zone: str, at: datetime) -> date:
    if period not in PERIODS:
        raise ValueError(f"a period must be one of {', '.join(PERIODS)}")
    if at.tzinfo is None:
        raise ValueError("a time without a zone is ambiguous")
    day = _day(at, zone_named(zone))
    if period == "week":
        return day - day.weekday() * _DAY
    return day.replace(day=1) if period == "month" else day


def _day(at: datetime, zone: tzinfo) -> date:
    """The day that ``at`` is in: the zone's calendar day, unless its clocks jumped over midnight."""
    day = at.astimezone(zone).date()
    while at < _begins(day, zone):
        day -= _DAY
    while at >= _begins(day + _DAY, zone):
        day += _DAY
    return day


def _next_day(day: date, zone: tzinfo) -> date:
    """The next day that the zone had: Samoa had no 30 December 2011."""
    after = day + _DAY
    while _begins(after + _DAY, zone) <= _begins(after, zone):
        after += _DAY
    return after


def _begins(day: date, zone: tzinfo) -> datetime:
    # fold=0 is the earlier of two midnights. If midnight was skipped, it is the instant of the change.
    return datetime.combine(day, time.min, zone).astimezone(UTC)
