from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from llm_service.core.call import Caller
from llm_service.extensions import db
from llm_service.settings import Settings
from llm_service.store import keys
from llm_service.store.engine import database_url
from llm_service.store.keys import StoredKey, digest, new_key, parse_key, verify
from tests.store.conftest import KEY

NOW = datetime(2026, 5, 1, tzinfo=UTC)


def stored(key: str, **values) -> StoredKey:
    key_id = parse_key(key)
    assert key_id
    return StoredKey(Caller(key_id), NOW, digest(key, KEY), **values)


def test_a_key_has_the_documented_form() -> None:
    for _ in range(300):
        key_id, text_ = new_key()
        assert len(key_id) == 8
        assert text_.startswith(f"lsk_{key_id}_")
        assert len(text_.removeprefix(f"lsk_{key_id}_")) == 43
        assert parse_key(text_) == key_id


@given(st.text(max_size=80))
def test_parsing_and_verifying_any_text_raises_no_error(text_: str) -> None:
    parse_key(text_)
    assert verify(stored(new_key()[1]), text_, KEY, NOW) == "wrong"


@pytest.mark.parametrize(
    "text_",
    [
        "",
        "lsk_",
        "lsk_abcdefg_" + "x" * 44,  # the length is right, but the id is too short
        "lsk_abcdefgo_" + "x" * 43,  # ids never contain the letter o
        "LSK_abcdefgh_" + "x" * 43,
        "lsk_abcdefgh_" + "x" * 43 + "\n",
        "lsk_abcdefgh_" + "é" * 43,
        "lsk_abcdefgh_" + "x" * 1_000_000,
    ],
)
def test_a_text_that_is_not_a_key_has_no_id(text_: str) -> None:
    assert parse_key(text_) is None


def test_only_the_right_secret_is_valid() -> None:
    key_id, right = new_key()
    assert verify(stored(right), right, KEY, NOW) == "ok"
    assert verify(stored(right), new_key(key_id)[1], KEY, NOW) == "wrong"
    assert verify(stored(right), right, b"another service's secret", NOW) == "wrong"


def test_surrogates_and_other_alphabets_are_wrong_and_raise_no_error() -> None:
    for text_ in ("\ud800", "ключ", "\x00", "\xff" * 56):
        assert verify(stored(new_key()[1]), text_, KEY, NOW) == "wrong"


def test_only_the_right_secret_reveals_that_a_key_is_revoked_or_expired() -> None:
    key_id, right = new_key()
    other = new_key(key_id)[1]
    revoked, expired = stored(right, revoked_at=NOW), stored(right, expires_at=NOW)
    assert verify(revoked, right, KEY, NOW) == "revoked"
    assert verify(expired, right, KEY, NOW) == "expired"
    assert verify(revoked, other, KEY, NOW) == verify(expired, other, KEY, NOW) == "wrong"


def test_the_previous_secret_is_valid_until_its_grace_period_ends() -> None:
    key_id, old = new_key()
    new = new_key(key_id)[1]
    rotated = stored(new, previous_digest=digest(old, KEY), previous_until=NOW + timedelta(hours=1))
    assert verify(rotated, new, KEY, NOW) == "ok"
    assert verify(rotated, old, KEY, NOW) == "ok"
    assert verify(rotated, old, KEY, NOW + timedelta(hours=1)) == "wrong"
    no_end = stored(new, previous_digest=digest(old, KEY))
    assert verify(no_end, old, KEY, NOW) == "wrong"


def test_neither_key_nor_digest_is_in_a_repr() -> None:
    _, text_ = new_key()
    shown = repr(keys.Issued(stored(text_, previous_digest="0" * 64), text_))
    assert text_ not in shown
    assert digest(text_, KEY) not in shown
    assert "0" * 64 not in shown


def test_an_issued_key_is_read_with_all_the_values_it_was_given(app: Flask) -> None:
    expires = datetime.now(UTC) + timedelta(days=30)
    issued = keys.issue(
        KEY, name="ci", org="acme", user="Zoë", tier="high", rpm=7, models=["fast", "openai/*"], expires_at=expires
    )
    found = keys.find(issued.stored.id)
    assert found == issued.stored
    assert found
    assert found.caller == Caller(issued.stored.id, "ci", "acme", "Zoë", "high", 7, ("fast", "openai/*"))
    assert found.expires_at == expires
    assert found.created_at.tzinfo is UTC
    assert verify(found, issued.text, KEY, datetime.now(UTC)) == "ok"
    assert keys.find("zzzzzzzz") is None


def test_the_database_contains_no_key(app: Flask) -> None:
    issued = keys.issue(KEY, name="ci")
    with db.engine.connect() as connection:
        rows = str(connection.execute(text("SELECT * FROM api_keys")).all())
    assert issued.text not in rows
    assert issued.text[13:] not in rows


def test_times_are_returned_in_utc_whatever_zone_they_were_given_in(app: Flask) -> None:
    from datetime import timezone

    expires = datetime(2030, 1, 1, 1, 0, tzinfo=timezone(timedelta(hours=5)))
    issued = keys.issue(KEY, name="ci", expires_at=expires)
    assert issued.stored.expires_at == expires
    assert issued.stored.expires_at.tzinfo is UTC


def test_a_change_changes_only_the_given_fields(app: Flask) -> None:
    issued = keys.issue(KEY, name="ci", org="acme", rpm=7)
    changed = keys.change(issued.stored.id, {"rpm": None, "models": ["fast"]})
    assert (changed.caller.name, changed.caller.org, changed.caller.rpm) == ("ci", "acme", None)
    assert keys.find(issued.stored.id) == changed
    with pytest.raises(keys.KeyUnknown):
        keys.change("zzzzzzzz", {"rpm": 1})
    with pytest.raises(TypeError):
        keys.change(issued.stored.id, {"digest": "x"})


def test_a_rotation_keeps_one_previous_secret_and_none_without_a_grace_period(app: Flask) -> None:
    first = keys.issue(KEY, name="ci")
    second = keys.rotate(first.stored.id, KEY, timedelta(hours=1))
    now = datetime.now(UTC)
    assert second.stored.id == first.stored.id
    assert [verify(second.stored, key.text, KEY, now) for key in (first, second)] == ["ok", "ok"]
    third = keys.rotate(first.stored.id, KEY, timedelta(hours=1))
    assert [verify(third.stored, key.text, KEY, now) for key in (first, second, third)] == ["wrong", "ok", "ok"]
    fourth = keys.rotate(first.stored.id, KEY, timedelta(0))
    assert [verify(fourth.stored, key.text, KEY, now) for key in (third, fourth)] == ["wrong", "ok"]


def test_a_revoked_key_stays_revoked(app: Flask) -> None:
    issued = keys.issue(KEY, name="ci")
    keys.rotate(issued.stored.id, KEY, timedelta(hours=1))
    revoked = keys.revoke(issued.stored.id)
    assert revoked.revoked_at
    assert verify(revoked, issued.text, KEY, datetime.now(UTC)) == "revoked"  # in its grace period, too
    assert keys.revoke(issued.stored.id).revoked_at == revoked.revoked_at
    with pytest.raises(keys.KeyRevoked):
        keys.rotate(issued.stored.id, KEY, timedelta(0))
    with pytest.raises(keys.KeyRevoked):
        keys.change(issued.stored.id, {"name": "other"})
    assert keys.find(issued.stored.id) == revoked
    with pytest.raises(keys.KeyUnknown):
        keys.revoke("zzzzzzzz")


def test_keys_are_found_by_their_id_their_text_or_their_name(app: Flask) -> None:
    assert keys.any_exists() is False
    one, two = keys.issue(KEY, name="same").stored, keys.issue(KEY, name="same").stored
    named_like_an_id = keys.issue(KEY, name=one.id).stored
    assert keys.any_exists() is True
    assert keys.list_all() == [one, two, named_like_an_id]
    assert keys.matching("same") == [one, two]
    assert keys.matching(one.id) == [one]
    assert keys.matching(f"lsk_{two.id}_{'x' * 43}") == [two]
    assert keys.matching("nobody") == []


ISSUE = """
import sys
from flask import Flask
from llm_service import store
from llm_service.settings import Settings
from llm_service.store import keys
settings = Settings(database_url=sys.argv[1])
app = Flask("test")
store.configure(app, settings)
with app.app_context():
    for number in range(20):
        print(keys.issue(b"a key of sixteen bytes", name="parallel").stored.id)
"""


def test_keys_issued_by_concurrent_processes_are_all_stored(app: Flask, settings: Settings) -> None:
    command = [sys.executable, "-c", ISSUE, database_url(settings)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    issued = [line for process in processes for line in process.communicate(timeout=30)[0].split()]
    assert [process.returncode for process in processes] == [0, 0]
    assert len(issued) == 40
    assert sorted(issued) == sorted(stored_key.id for stored_key in keys.list_all())


def test_the_error_of_a_database_without_tables_is_recognized(settings: Settings, bare_app) -> None:
    from sqlalchemy.exc import DBAPIError

    from llm_service.store.engine import schema_missing

    with bare_app(settings).app_context(), pytest.raises(DBAPIError) as failure:
        keys.find("abcdefgh")
    assert schema_missing(failure.value)
    assert not schema_missing(ValueError(json.dumps("no such table")))


def test_the_json_answers_setting_of_a_key_is_stored_and_cleared(app: Flask) -> None:
    issued = keys.issue(KEY, name="json", json_answers="repair")
    assert issued.stored.caller.json_answers == "repair"
    changed = keys.change(issued.stored.id, {"json_answers": None})
    assert changed.caller.json_answers == "off"
    assert keys.issue(KEY, name="plain").stored.caller.json_answers == "off"


def test_the_storage_setting_of_a_key_is_stored_and_cleared(app: Flask) -> None:
    issued = keys.issue(KEY, name="keeper", storage=True)
    assert issued.stored.caller.storage is True
    for value in (False, None):
        assert keys.change(issued.stored.id, {"storage": value}).caller.storage is value
        found = keys.find(issued.stored.id)
        assert found is not None and found.caller.storage is value
    assert keys.issue(KEY, name="plain").stored.caller.storage is None
