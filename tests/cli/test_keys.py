from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from flask import Flask

from llm_service.settings import Settings
from llm_service.store import keys
from llm_service.store.keys import digest, parse_key, verify
from tests.cli.conftest import Commands

FIELDS = {"id", "name", "org", "user", "tier", "rpm", "models", "status", "expires_at", "created_at"}


def test_a_created_key_is_printed_with_the_documented_fields_and_is_valid(
    app: Flask, settings: Settings, flask: Commands
) -> None:
    created = flask.json(
        *("keys", "create", "--name", "ci", "--org", "acme", "--user", "Zoë", "--tier", "high", "--rpm", "7"),
        *("--models", "fast, openai/*", "--expires", "30d"),
    )
    assert FIELDS | {"key"} <= set(created)
    assert parse_key(created["key"]) == created["id"]
    given = {name: created[name] for name in ("name", "org", "user", "tier", "rpm", "models", "status")}
    assert given == {
        "name": "ci",
        "org": "acme",
        "user": "Zoë",
        "tier": "high",
        "rpm": 7,
        "models": ["fast", "openai/*"],
        "status": "active",
    }
    left = datetime.fromisoformat(created["expires_at"]) - datetime.now(UTC)
    assert timedelta(days=29, hours=23) < left <= timedelta(days=30)
    with app.app_context():
        stored = keys.find(created["id"])
    assert stored
    assert verify(stored, created["key"], settings.hmac_key, datetime.now(UTC)) == "ok"


def test_a_key_has_the_default_tier_and_no_limits_of_its_own_by_default(flask: Commands) -> None:
    created = flask.json("keys", "create", "--name", "plain")
    assert {name: created[name] for name in ("org", "user", "tier", "rpm", "models", "expires_at")} == {
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
        printed = flask.run("keys", *command).output
        assert key[13:] not in printed
        assert digest(key, settings.hmac_key) not in printed


def test_the_list_shows_every_key_as_table_and_json_and_never_cuts_an_id(flask: Commands) -> None:
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


def test_an_update_changes_only_the_given_options_and_can_clear_them(flask: Commands) -> None:
    options = ("--org", "acme", "--rpm", "7", "--models", "fast", "--expires", "24h")
    made = flask.json("keys", "create", "--name", "ci", *options)
    changed = flask.json("keys", "update", "ci", "--name", "ci2", "--tier", "high")
    assert {name for name in changed if changed[name] != made[name]} == {"name", "tier"}
    back = flask.json(
        "keys", "update", made["id"], *("--org", "none", "--rpm", "none"), "--models=all", "--expires=never"
    )
    assert (back["org"], back["rpm"], back["models"], back["expires_at"]) == (None, None, [], None)
    assert "Nothing to change" in flask.run("keys", "update", "ci2", fails=2).stderr


def test_a_rotation_prints_the_new_key_and_when_the_old_secret_ends(
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
    printed = flask.run("keys", "rotate", "ci", "--grace", "90m").stdout
    assert "stays valid until" in printed
    assert flask.json("keys", "rotate", "ci")["previous_until"] is None


def test_a_revoked_key_cannot_be_changed_or_rotated(flask: Commands) -> None:
    made = flask.json("keys", "create", "--name", "ci")
    assert flask.json("keys", "revoke", "ci")["status"] == "revoked"
    assert flask.json("keys", "revoke", "ci")["status"] == "revoked"
    for command in (["rotate", "ci"], ["update", "ci", "--rpm", "5"]):
        assert f"{made['id']} is revoked" in flask.run("keys", *command, fails=1).stderr


def test_a_second_key_of_the_same_name_causes_a_warning_and_commands_then_need_the_id(flask: Commands) -> None:
    ids = [flask.json("keys", "create", "--name", "same")["id"]]
    again = flask.run("keys", "create", "--name", "same")
    assert "another key has the name same" in again.stderr
    ids = [row["id"] for row in flask.json("keys", "list")]
    for command in ("show", "rotate", "revoke"):
        failed = flask.run("keys", command, "same", fails=1)
        assert all(key_id in failed.stderr for key_id in ids)
        assert failed.stdout == ""
    assert flask.json("keys", "show", ids[1])["id"] == ids[1]


def test_an_error_does_not_repeat_a_mistyped_key(flask: Commands) -> None:
    mistyped = "lsk_abcdefgh_" + "s" * 43
    failed = flask.run("keys", "show", mistyped, fails=1)
    assert "no key with this id or name" in failed.stderr
    assert mistyped not in failed.output


def test_an_error_about_an_unknown_tier_lists_the_known_tiers(flask: Commands) -> None:
    for command in (["create", "--name", "ci"], ["update", "ci"]):
        failed = flask.run("keys", *command, "--tier", "gold", fails=2)
        assert "known tiers: default, high" in failed.stderr
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
def test_an_error_about_an_invalid_value_names_the_option(flask: Commands, option: str, value: str) -> None:
    failed = flask.run("keys", "create", "--name", "ci", option, value, fails=2)
    assert option in failed.stderr
    assert failed.stdout == ""
    assert flask.json("keys", "list") == []


def test_the_json_answers_setting_of_a_key_is_set_shown_and_turned_off(flask: Commands) -> None:
    made = flask.json("keys", "create", "--name", "json", "--json-answers", "retry")
    assert made["json_answers"] == "retry"
    assert flask.json("keys", "show", "json")["json_answers"] == "retry"
    assert flask.json("keys", "update", "json", "--json-answers", "off")["json_answers"] == "off"
    assert flask.json("keys", "create", "--name", "plain")["json_answers"] == "off"
    failed = flask.run("keys", "update", "json", "--json-answers", "yes", fails=2)
    assert "must be one of off, check, repair, retry" in failed.stderr


def test_the_storage_setting_of_a_key_is_set_shown_and_cleared(flask: Commands) -> None:
    assert flask.json("keys", "create", "--name", "keeper", "--storage", "allow")["storage"] == "allow"
    assert flask.json("keys", "show", "keeper")["storage"] == "allow"
    assert flask.json("keys", "update", "keeper", "--storage", "refuse")["storage"] == "refuse"
    assert flask.json("keys", "update", "keeper", "--rpm", "5")["storage"] == "refuse"
    assert flask.json("keys", "update", "keeper", "--storage", "default")["storage"] == "default"
    assert flask.json("keys", "create", "--name", "plain")["storage"] == "default"
    failed = flask.run("keys", "update", "keeper", "--storage", "yes", fails=2)
    assert "must be one of allow, refuse, default" in failed.stderr
