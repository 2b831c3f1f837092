from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from llm_service.cli import parameters


@pytest.mark.parametrize(
    ("text", "seconds"), [("15s", 15), ("90m", 5400), ("24h", 86400), ("30d", 2592000), ("2w", 1209600), (" 1h ", 3600)]
)
def test_durations_have_a_number_and_a_unit(text: str, seconds: int) -> None:
    assert parameters.duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "15", "h", "1.5h", "-1h", "1h30m", "1y", "1H", "٣h ago"])
def test_the_error_about_an_invalid_duration_gives_examples(text: str) -> None:
    with pytest.raises(ValueError, match="15s, 90m, 24h, 30d"):
        parameters.duration(text)


def test_a_time_without_a_zone_is_in_utc() -> None:
    noon = datetime(2026, 5, 1, 12, tzinfo=UTC)
    for text in ("2026-05-01T12:00", "2026-05-01T12:00:00Z", "2026-05-01 14:00:00+02:00"):
        assert parameters.moment(text) == noon
    assert parameters.moment("2026-05-01") == noon.replace(hour=0)


def test_since_is_a_time_or_how_long_ago() -> None:
    assert parameters.past("2026-05-01") == datetime(2026, 5, 1, tzinfo=UTC)
    ago = datetime.now(UTC) - parameters.past("24h")
    assert abs(ago - timedelta(hours=24)) < timedelta(minutes=1)


def test_an_expiry_is_in_the_future_or_never() -> None:
    assert parameters.expiry("never") is None
    at = parameters.expiry("1h")
    assert at is not None
    assert at > datetime.now(UTC)
    with pytest.raises(ValueError, match="in the future"):
        parameters.expiry("2020-01-01")
