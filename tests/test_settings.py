"""Settings are read once, and a wrong one stops the start with its name."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from llm_service.settings import Settings, SettingsError


def test_defaults_need_no_environment() -> None:
    settings = Settings.load({})
    assert (settings.host, settings.port, settings.workers) == ("127.0.0.1", 8000, 2)
    assert settings.redis_url is None
    assert settings.api_keys == ()


@pytest.mark.parametrize("scheme", ["postgres", "postgresql"])
def test_a_postgresql_url_means_psycopg_3(scheme: str) -> None:
    settings = Settings.load({"DATABASE_URL": f"{scheme}://me:secret@db/name"})
    assert settings.sqlalchemy_url == "postgresql+psycopg://me:secret@db/name"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "eighty"),
        ("PORT", "70000"),
        ("WEB_CONCURRENCY", "0"),
        ("DATABASE_URL", "not-a-url"),
        ("REDIS_URL", "localhost"),
        ("LLM_SERVICE_LOG_LEVEL", "LOUD"),
        ("LLM_SERVICE_KEEP_ALIVE", "nan"),
        ("LLM_SERVICE_TIME_ZONE", "Mars/Olympus"),
        ("LLM_SERVICE_TIME_ZONE", "Europe"),  # a folder of the database
        ("LLM_SERVICE_TIME_ZONE", "../../etc/passwd"),
        ("LLM_SERVICE_LOG_RETENTION_DAYS", "0"),
    ],
)
def test_a_wrong_setting_stops_the_start_with_its_name(name: str, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.load({name: value})
    assert name in str(caught.value)


def test_an_error_does_not_quote_the_value() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.load({"PORT": "hunter2"})
    assert "hunter2" not in str(caught.value)


def test_secrets_stay_out_of_repr() -> None:
    settings = Settings.load({"OPENAI_API_KEY": "sk-very-secret"})
    assert "sk-very-secret" not in repr(settings.environ.__class__) and "environ" not in repr(settings)


def test_the_secret_is_made_once_and_private(tmp_path: Path) -> None:
    settings = Settings.load({"LLM_SERVICE_INSTANCE": str(tmp_path / "instance")})
    first = settings.hmac_key
    assert len(first) >= 32
    assert settings.hmac_key == first
    assert stat.S_IMODE((tmp_path / "instance" / "secret").stat().st_mode) == 0o600


def test_two_processes_that_make_the_secret_agree(tmp_path: Path) -> None:
    settings = Settings.load({"LLM_SERVICE_INSTANCE": str(tmp_path)})
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: settings.hmac_key, range(32)))
    assert len(keys) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


def test_an_external_database_requires_the_secret() -> None:
    with pytest.raises(SettingsError, match="LLM_SERVICE_SECRET"):
        _ = Settings.load({"DATABASE_URL": "postgresql://db/name"}).hmac_key
