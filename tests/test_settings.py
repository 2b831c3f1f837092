"""Settings are read once, and a wrong one stops the start with its name."""

from __future__ import annotations

import base64
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
        ("DATABASE_URL", "mysql://me:secret@db/name"),
        ("DATABASE_URL", "postgresql+psycopg2://me:secret@db/name"),
        ("DATABASE_URL", "postgresql://app:p@ss:w/o#r?d@h/app"),
        ("DATABASE_URL", "postgresql://app:p@ss@h/app"),
        ("DATABASE_URL", "postgresql://app:p?ss@h/app"),
        ("DATABASE_URL", "postgresql://h:port/app"),
        ("DATABASE_URL", "postgresql://h:70000/app"),
        ("DATABASE_URL", "postgresql://app:secret@a:b:5432/app"),
        ("REDIS_URL", "localhost"),
        ("REDIS_URL", "tcp://x:6379"),
        ("REDIS_URL", "http://x:6379"),
        ("REDIS_URL", "redis://:p@ss@x:6379/0"),
        ("REDIS_URL", "redis://x:six/0"),
        ("API_KEYS", "short"),
        ("API_KEYS", "a-key-of-the-tests, k2"),
        ("LLM_SERVICE_LOG_LEVEL", "LOUD"),
        ("LLM_SERVICE_KEEP_ALIVE", "nan"),
        ("LLM_SERVICE_TIME_ZONE", "Mars/Olympus"),
        ("LLM_SERVICE_TIME_ZONE", "Europe"),  # a folder of the database
        ("LLM_SERVICE_TIME_ZONE", "../../etc/passwd"),
        ("LLM_SERVICE_LOG_RETENTION_DAYS", "0"),
        ("LLM_SERVICE_WEBHOOK_URL", "hooks.example.com/x"),
        ("LLM_SERVICE_WEBHOOK_URL", "ftp://hooks.example.com/x"),
        ("LLM_SERVICE_WEBHOOK_URL", "https:///x"),
        ("LLM_SERVICE_WEBHOOK_URL", "https://hooks.example.com:99999/x"),
        ("LLM_SERVICE_WEBHOOK_URL", "https://[hooks/x"),
        ("LLM_SERVICE_WEBHOOK_URL", "https://me:secret@hooks.example.com/x"),
        ("LLM_SERVICE_WEBHOOK_URL", "https://hooks.example.com/a b"),
        ("LLM_SERVICE_WEBHOOK_URL", "https://hooks.example.com/\r\nX: y"),
    ],
)
def test_a_wrong_setting_stops_the_start_with_its_name(name: str, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.load({name: value})
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "postgresql://app:p%40ss@h:5432/app?sslmode=require&options=-c%20x"),
        ("DATABASE_URL", "postgresql://app:secret@[2001:db8::1]:5432/app"),
        ("DATABASE_URL", "postgresql:///app?host=/run/postgresql"),
        ("DATABASE_URL", "postgresql://app@/app?host=/tmp"),
        ("DATABASE_URL", "sqlite:////data/llm@home.sqlite3"),
        ("REDIS_URL", "redis://:p%40ss@x:6379/0"),
        ("REDIS_URL", "unix:///run/redis.sock?db=1"),
        ("REDIS_URL", "rediss://[::1]:6379"),
        ("REDIS_URL", "redis+sentinel://:secret@a:26379,b:26379/mymaster"),
        ("REDIS_URL", "redis+cluster://a:7000,b:7000"),
    ],
)
def test_the_usual_urls_are_accepted(name: str, value: str) -> None:
    settings = Settings.load({name: value})
    assert value.partition("://")[2] in (str(settings.database_url or "") + str(settings.redis_url or ""))


@pytest.mark.parametrize(
    "text",
    [
        "a-key-of-one,a-key-of-two",
        "a-key-of-one\na-key-of-two\n",
        " a-key-of-one\ta-key-of-two",
        '"a-key-of-one,a-key-of-two"',
        "'a-key-of-one', 'a-key-of-two'",
    ],
)
def test_api_keys_stand_between_commas_or_white_space_with_or_without_quotes(text: str) -> None:
    assert Settings.load({"API_KEYS": text}).api_keys == ("a-key-of-one", "a-key-of-two")


def test_a_variable_that_looks_like_a_setting_and_is_none_is_named_with_the_nearest_setting() -> None:
    environ = {
        "LLM_SERVICE_LOGLEVEL": "DEBUG",
        "LLM_SERVICE_ZZZ": "1",
        "LLM_SERVICE_PORT": "tcp://10.0.0.1:80",
        "LLM_SERVICE_PORT_80_TCP_ADDR": "10.0.0.1",
        "LLM_SERVICE_SERVICE_HOST": "10.0.0.1",
        "LLM_SERVICE_KEEP_ALIVE": "5",
    }
    assert Settings.load(environ).unknown_names() == [
        "LLM_SERVICE_LOGLEVEL is not a setting; did you mean LLM_SERVICE_LOG_LEVEL?",
        "LLM_SERVICE_ZZZ is not a setting.",
    ]


def test_an_error_does_not_quote_the_value() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.load({"PORT": "hunter2"})
    assert "hunter2" not in str(caught.value)


def test_secrets_stay_out_of_repr() -> None:
    secrets = {
        "OPENAI_API_KEY": "sk-marker-7f3a",
        "ANTHROPIC_API_KEY": "sk-marker-7f3a",
        "API_KEYS": "marker-7f3a",
        "LLM_SERVICE_SECRET": "marker-7f3a-marker-7f3a",
        "LLM_SERVICE_WEBHOOK_URL": "https://hooks.example.com/marker-7f3a",
        "LLM_SERVICE_WEBHOOK_SECRET": "marker-7f3a-marker-7f3a",
        "DATABASE_URL": "postgresql://me:marker-7f3a@db/name",
        "REDIS_URL": "redis://:marker-7f3a@redis/0",
    }
    assert "marker-7f3a" not in repr(Settings.load(secrets))


@pytest.mark.parametrize("secret", [None, "short", "whsec_dG9vIHNob3J0", "whsec_this is no base64, is it"])
def test_a_webhook_without_a_good_secret_stops_the_start_with_its_name(secret: str | None) -> None:
    environ = {"LLM_SERVICE_WEBHOOK_URL": "https://hooks.example.com/x", "LLM_SERVICE_WEBHOOK_SECRET": secret or ""}
    with pytest.raises(SettingsError, match=r"^LLM_SERVICE_WEBHOOK_SECRET: ") as caught:
        Settings.load(environ)
    assert secret is None or secret not in str(caught.value)


def test_a_webhook_secret_is_its_text_or_what_its_base64_says() -> None:
    url = "https://hooks.example.com/x?y=1"
    text = Settings.load({"LLM_SERVICE_WEBHOOK_URL": url, "LLM_SERVICE_WEBHOOK_SECRET": "a text of some length"})
    assert (text.webhook_url, text.webhook_key) == (url, b"a text of some length")
    encoded = "whsec_" + base64.b64encode(bytes(range(24))).decode()
    coded = Settings.load({"LLM_SERVICE_WEBHOOK_URL": f"{url}#place", "LLM_SERVICE_WEBHOOK_SECRET": encoded})
    assert (coded.webhook_url, coded.webhook_key) == (url, bytes(range(24)))
    assert Settings.load({"LLM_SERVICE_WEBHOOK_SECRET": encoded}).webhook_key is None


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


@pytest.mark.parametrize(("text", "meant"), [("open", "open"), ("CLOSED", "closed")])
def test_a_choice_is_read_in_whichever_case_and_as_it_is_documented(text: str, meant: str) -> None:
    assert Settings.load({"LLM_SERVICE_MONEY_WITHOUT_REDIS": text}).money_without_redis == meant


def test_a_choice_that_is_none_names_those_there_are() -> None:
    with pytest.raises(SettingsError, match="LLM_SERVICE_MONEY_WITHOUT_REDIS: must be one of closed, open"):
        Settings.load({"LLM_SERVICE_MONEY_WITHOUT_REDIS": "ajar"})
