from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from tests.cli.conftest import Commands, Rows
from tests.store.conftest import row

Write = Callable[[Rows], None]
NUMBERS = {"calls", "input_tokens", "output_tokens", "cached_tokens", "cost_nanousd", "unpriced_calls"}


def test_usage_is_reported_per_key_with_its_name(flask: Commands, write: Write) -> None:
    key = flask.json("keys", "create", "--name", "ci")["id"]
    write([row(key_id=key), row(key_id=key, cost_nanousd=5), row(key_id="env-12ab34cd", cost_nanousd=None)])
    known, unknown = flask.json("usage")
    assert set(known) == NUMBERS | {"key_id", "key_name"}
    assert (known["key_id"], known["key_name"], known["calls"], known["cost_nanousd"]) == (key, "ci", 2, 12)
    assert (unknown["key_name"], unknown["cost_nanousd"], unknown["unpriced_calls"]) == (None, None, 1)


def test_usage_is_reported_per_org_user_model_and_day_in_a_column_of_that_name(flask: Commands, write: Write) -> None:
    now = datetime.now(UTC)
    write([row(created_at=now, org="a", user="u"), row(created_at=now - timedelta(days=3), org=None, user="u")])
    for by, groups in {"org": {"a", None}, "user": {"u"}, "model": {"echo/echo"}}.items():
        rows = flask.json("usage", "--by", by)
        assert set(rows[0]) == NUMBERS | {by}
        assert {item[by] for item in rows} == groups
    days = flask.json("usage", "--by", "day")
    assert [item["day"] for item in days] == [f"{now - timedelta(days=3):%Y-%m-%d}", f"{now:%Y-%m-%d}"]
    assert [item["calls"] for item in flask.json("usage", "--by", "user", "--since", "2d")] == [1]


def test_the_table_shows_dollars_and_a_dash_for_an_unknown_cost(flask: Commands, write: Write) -> None:
    write([row(org="a", cost_nanousd=2_000_000_000), row(org="b", cost_nanousd=None)])
    header, known, unknown = (line.split() for line in flask.run("usage", "--by", "org").stdout.splitlines())
    assert header == ["org", "calls", "input_tokens", "output_tokens", "cached_tokens", "cost", "unpriced_calls"]
    assert known == ["a", "1", "3", "5", "0", "$2.000000", "0"]
    assert unknown == ["b", "1", "3", "5", "0", "-", "1"]


def test_usage_of_an_empty_log_is_an_empty_array(flask: Commands) -> None:
    assert flask.json("usage") == []
    assert flask.run("usage", "--by", "colour", fails=2).stdout == ""
