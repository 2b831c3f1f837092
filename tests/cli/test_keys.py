from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from flask import Flask

from llm_service.settings import Settings
from llm_service.store import keys
from llm_service.store.keys import digest, parse_key, verify
from tests.cli.conftest import Commands

FIELDS = {"id", "name", "org", "user", "tier", "rpm", "models", "status", "expires_at", "created_at"}


def test_a_created_key_is_told_with_the_documented_fields_and_opens(
    app: Flask, settings: Settings, flask: Commands
) -> None:
    told = flask.json(
        *("keys", "create", "--name", "ci", "--org", "acme", "--user", "Zoë", "--tier", "high", "--rpm", "7"),
        *("--models", "fast, openai/*", "--expires", "30d"),
    )
    assert FIELDS | {"key"} <= set(told)
    assert parse_key(told["key"]) == told["id"]
    given = {name: told[name] for name in ("name", "org", "user", "tier", "rpm", "models", "status")}
    assert given == {
        "name": "ci",
        "org": "acme",
        "user": "Zoë",
        "tier": "high",
        "rpm": 7,
        "models": ["fast", "openai/*"],
        "status": "active",
    }
    left = datetime.fromisoformat(told["expires_at"]) - datetime.now(UTC)
    assert timedelta(days=29, hours=23) < left <= timedelta(days=30)
    with app.app_context():
        stored = keys.find(told["id"])
    assert stored
    assert verify(stored, told["key"], settings.hmac_key, datetime.now(UTC)) == "ok"


def test_a_key_has_the_catalogues_tier_and_no_limits_of_its_own_unless_told(flask: Commands) -> None:
    told = flask.json("keys", "create", "--name", "plain")
    assert {name: told[name] for name in ("org", "user", "tier", "rpm", "models", "expires_at")} == {
        "org": None,
        "user": None,
        "tier": "default",
        "rpm": None,
        "models": [],
        "expires_at": None,
    }


def test_people_see_a_new_key_once_on_a_line_of_its_own(app: Flask, settings: Settings, flask: Commands) -> None:
    lines = flask.run("keys", "create", "--name", "ci").stdout.splitlines()
    (key,) = [line.strip() for line in lines if parse_key(line.strip())]
    assert "only time" in lines[-1]
    commands = ["list"], ["show", "ci"], ["update", "ci", "--rpm", "5"], ["revoke", "ci"]
    for command in (*commands, ["show", "ci", "--json"], ["list", "--json"]):
        told = flask.run("keys", *command).output
        assert key[13:] not in told
        assert digest(key, settings.hmac_key) not in told


def test_the_list_shows_every_key_in_either_form_and_never_cuts_an_id(flask: Commands) -> None:
    made = [flask.json("keys", "create", "--name", name) for name in ("one", "n" * 200)]
    flask.run("keys", "revoke", made[0]["id"])
    rows = flask.json("keys", "list")
    assert [(row["id"], row["status"]) for row in rows] == [(made[0]["id"], "revoked"), (made[1]["id"], "active")]
    lines = flask.run("keys", "list").stdout.splitlines()
    assert len(lines) == 3
    assert lines[1].split()[:2] == [made[0]["id"], "one"]
    assert lines[2].split()[:2] == [made[1]["id"], "n" * 200]
    assert flask.json("keys", "show", "one") == rows[0]


def test_an_empty_list_is_an_empty_array(flask: Commands) -> None:
    assert flask.json("keys", "list") == []
    assert flask.run("keys", "list").stdout.split()[:2] == ["id", "name"]


def test_an_update_changes_what_is_named_and_can_take_it_back(flask: Commands) -> None:
    options = ("--org", "acme", "--rpm", "7", "--models", "fast", "--expires", "24h")
    made = flask.json("keys", "create", "--name", "ci", *options)
    changed = flask.json("keys", "update", "ci", "--name", "ci2", "--tier", "high")
    assert {name for name in changed if changed[name] != made[name]} == {"name", "tier"}
    back = flask.json(
        "keys", "update", made["id"], *("--org", "none", "--rpm", "none"), "--models=all", "--expires=never"
    )
    assert (back["org"], back["rpm"], back["models"], back["expires_at"]) == (None, None, [], None)
    assert "Nothing to change" in flask.run("keys", "update", "ci2", fails=2).stderr


def test_a_rotation_prints_the_new_key_and_when_the_old_one_ends(
    app: Flask, settings: Settings, flask: Commands
) -> None:
    first = flask.json("keys", "create", "--name", "ci")
    second = flask.json("keys", "rotate", "ci", "--grace", "24h")
    assert second["id"] == first["id"]
    assert second["key"] != first["key"]
    ends = datetime.fromisoformat(second["previous_until"])
    assert timedelta(hours=23) < ends - datetime.now(UTC) <= timedelta(hours=24)
    with app.app_context():
        stored = keys.find(first["id"])
    assert stored
    for text in (first["key"], second["key"]):
        assert verify(stored, text, settings.hmac_key, datetime.now(UTC)) == "ok"
    told = flask.run("keys", "rotate", "ci", "--grace", "90m").stdout
    assert "stays valid until" in told
    assert flask.json("keys", "rotate", "ci")["previous_until"] is None


def test_a_revoked_key_cannot_be_changed_or_rotated(flask: Commands) -> None:
    made = flask.json("keys", "create", "--name", "ci")
    assert flask.json("keys", "revoke", "ci")["status"] == "revoked"
    assert flask.json("keys", "revoke", "ci")["status"] == "revoked"
    for command in (["rotate", "ci"], ["update", "ci", "--rpm", "5"]):
        assert f"{made['id']} is revoked" in flask.run("keys", *command, fails=1).stderr


def test_a_name_given_twice_is_warned_of_and_then_no_longer_enough(flask: Commands) -> None:
    ids = [flask.json("keys", "create", "--name", "same")["id"]]
    again = flask.run("keys", "create", "--name", "same")
    assert "another key is called same" in again.stderr
    ids = [row["id"] for row in flask.json("keys", "list")]
    for command in ("show", "rotate", "revoke"):
        refusal = flask.run("keys", command, "same", fails=1)
        assert all(key_id in refusal.stderr for key_id in ids)
        assert refusal.stdout == ""
    assert flask.json("keys", "show", ids[1])["id"] == ids[1]


def test_a_mistyped_key_is_not_repeated(flask: Commands) -> None:
    mistyped = "lsk_abcdefgh_" + "s" * 43
    refusal = flask.run("keys", "show", mistyped, fails=1)
    assert "no key with this id or name" in refusal.stderr
    assert mistyped not in refusal.output


def test_an_unknown_tier_is_refused_with_those_that_are_known(flask: Commands) -> None:
    for command in (["create", "--name", "ci"], ["update", "ci"]):
        refusal = flask.run("keys", *command, "--tier", "gold", fails=2)
        assert "known tiers: default, high" in refusal.stderr
    assert flask.json("keys", "list") == []


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--rpm", "0"),
        ("--rpm", "many"),
        ("--rpm", "1.5"),
        ("--rpm", "9" * 30),
        ("--expires", "yesterday"),
        ("--expires", "2020-01-01"),
        ("--expires", "0s"),
        ("--expires", "999999w"),
        ("--models", "fast,,slow"),
        ("--org", ""),
        ("--user", "x" * 201),
        ("--user", "a\x1b[2Jb"),
        ("--org", "nul\x00"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused_by_its_option(flask: Commands, option: str, value: str) -> None:
    refusal = flask.run("keys", "create", "--name", "ci", option, value, fails=2)
    assert option in refusal.stderr
    assert refusal.stdout == ""
    assert flask.json("keys", "list") == []


def test_a_key_s_json_answers_are_set_shown_and_turned_off(flask: Commands) -> None:
    made = flask.json("keys", "create", "--name", "json", "--json-answers", "retry")
    assert made["json_answers"] == "retry"
    assert flask.json("keys", "show", "json")["json_answers"] == "retry"
    assert flask.json("keys", "update", "json", "--json-answers", "off")["json_answers"] == "off"
    assert flask.json("keys", "create", "--name", "plain")["json_answers"] == "off"
    refused = flask.run("keys", "update", "json", "--json-answers", "yes", fails=2)
    assert "must be one of off, check, repair, retry" in refused.stderr


def test_a_key_s_word_on_storage_is_set_shown_and_taken_back(flask: Commands) -> None:
    assert flask.json("keys", "create", "--name", "keeper", "--storage", "allow")["storage"] == "allow"
    assert flask.json("keys", "show", "keeper")["storage"] == "allow"
    assert flask.json("keys", "update", "keeper", "--storage", "refuse")["storage"] == "refuse"
    assert flask.json("keys", "update", "keeper", "--rpm", "5")["storage"] == "refuse"
    assert flask.json("keys", "update", "keeper", "--storage", "default")["storage"] == "default"
    assert flask.json("keys", "create", "--name", "plain")["storage"] == "default"
    refused = flask.run("keys", "update", "keeper", "--storage", "yes", fails=2)
    assert "must be one of allow, refuse, default" in refused.stderr
