"""Every setting: name, type, default and one line of help, in one place.

Settings come from the environment, are read once, and a wrong one stops the
start with its name. This is the only module that reads the environment (a test
enforces it); provider keys named in models.toml are read through
``Settings.secret``. ``docs/settings.md`` lists the same table, and a test
compares the two.
"""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal
from urllib.parse import SplitResult, urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

MEBIBYTE = 1024 * 1024


class SettingsError(ValueError):
    """A setting is wrong; the message names it."""


def _setting(env: str, default: Any, help: str, read: Callable[[str], Any] = str, *, shown: bool = True) -> Any:
    """``shown``: whether the value may appear in ``repr``."""
    metadata = {"env": env, "help": help, "read": read}
    return field(default=default, metadata=metadata, repr=shown)


def _integer(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        number = int(text)
        if not low <= number <= high:
            raise ValueError(f"must be from {low} to {high}")
        return number

    return read


def _seconds(low: float, high: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        number = float(text)
        if not low <= number <= high:
            raise ValueError(f"must be from {low} to {high} seconds")
        return number

    return read


def _list(text: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in text.split(",") if item.strip())


def _choice(*names: str) -> Callable[[str], str]:
    """One of ``names``, typed in whichever case."""

    def read(text: str) -> str:
        for name in names:
            if text.lower() == name.lower():
                return name
        raise ValueError(f"must be one of {', '.join(names)}")

    return read


def _time_zone(text: str) -> str:
    try:
        if text != "UTC":  # which needs no time zone database
            ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("is not a time zone such as UTC or Europe/Berlin") from None
    return text


def _database_url(text: str) -> str:
    """``postgres://`` and ``postgresql://`` both mean psycopg 3."""
    for prefix in ("postgres://", "postgresql://"):
        if text.startswith(prefix):
            return "postgresql+psycopg://" + text[len(prefix) :]
    if "://" not in text:
        raise ValueError("must be an SQLAlchemy URL, like postgresql://user:password@host/name")
    return text


def _redis_url(text: str) -> str:
    if "://" not in text:
        raise ValueError("must be a URL: redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://")
    return text


def _webhook_url(text: str) -> str:
    """As it goes on the wire: ASCII, without a fragment."""
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good, parts = False, SplitResult("", "", "", "", "")
    if not good or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("must be a URL such as https://host/path")
    if "@" in parts.netloc:
        raise ValueError("must not hold a user or a password")
    return parts._replace(fragment="").geturl()


@dataclass(frozen=True)
class Settings:
    """The service's settings. Build with ``Settings.load()`` or, in tests, by keyword."""

    host: str = _setting("HOST", "127.0.0.1", "address to listen on (0.0.0.0 in the image)")
    port: int = _setting("PORT", 8000, "port to listen on", _integer(0, 65535))
    workers: int = _setting("WEB_CONCURRENCY", 2, "gunicorn worker processes", _integer(1, 256))
    database_url: str | None = _setting(
        "DATABASE_URL", None, "SQLAlchemy URL; SQLite in the instance folder when unset", _database_url, shown=False
    )
    redis_url: str | None = _setting(
        "REDIS_URL",
        None,
        "Redis or Valkey; an embedded server in the instance folder when unset",
        _redis_url,
        shown=False,
    )
    instance: Path = _setting(
        "LLM_SERVICE_INSTANCE", Path("instance"), "state folder: SQLite, embedded Redis, secret", Path
    )
    secret_text: str | None = _setting(
        "LLM_SERVICE_SECRET",
        None,
        "HMAC key for key digests and prompt hashes; required with DATABASE_URL",
        shown=False,
    )
    models: Path | None = _setting(
        "LLM_SERVICE_MODELS", None, "the catalogue file; the packaged models.toml when unset", Path
    )
    anthropic_api_key: str | None = _setting("ANTHROPIC_API_KEY", None, "turns the provider anthropic on", shown=False)
    anthropic_base_url: str | None = _setting("ANTHROPIC_BASE_URL", None, "as the Anthropic SDK reads it (no /v1)")
    openai_api_key: str | None = _setting("OPENAI_API_KEY", None, "turns the provider openai on", shown=False)
    openai_base_url: str | None = _setting("OPENAI_BASE_URL", None, "as the OpenAI SDK reads it (with /v1)")
    api_keys: tuple[str, ...] = _setting(
        "API_KEYS", (), "comma-separated keys accepted without the database, for quick starts", _list, shown=False
    )
    cors_origins: tuple[str, ...] = _setting(
        "LLM_SERVICE_CORS_ORIGINS", (), "comma-separated origins allowed to call from a browser; * for any", _list
    )
    log_level: str = _setting(
        "LLM_SERVICE_LOG_LEVEL",
        "INFO",
        "JSON lines on stderr from this level; never any content",
        _choice("DEBUG", "INFO", "WARNING", "ERROR"),
    )
    max_body_bytes: int = _setting(
        "LLM_SERVICE_MAX_BODY_BYTES", 32 * MEBIBYTE, "largest request body; more is a 413", _integer(1024, 2**31)
    )
    anonymous_rpm: int = _setting(
        "LLM_SERVICE_ANONYMOUS_RPM",
        30,
        "requests per minute per client address without a valid key",
        _integer(1, 1_000_000),
    )
    trusted_proxies: int = _setting(
        "LLM_SERVICE_TRUSTED_PROXIES",
        0,
        "proxies in front whose X-Forwarded-For is believed, counted from this service",
        _integer(0, 16),
    )
    keep_alive: float = _setting(
        "LLM_SERVICE_KEEP_ALIVE", 15.0, "seconds of silence before a stream gets a comment", _seconds(0.05, 300)
    )
    send_timeout: float = _setting(
        "LLM_SERVICE_SEND_TIMEOUT", 30.0, "seconds a client may leave a write unread", _seconds(1, 600)
    )
    graceful_timeout: float = _setting(
        "LLM_SERVICE_GRACEFUL_TIMEOUT", 30.0, "seconds from SIGTERM to the end of the last call", _seconds(6, 3600)
    )
    echo_delay: float = _setting(
        "LLM_SERVICE_ECHO_DELAY", 0.05, "seconds between two words of the echo model", _seconds(0, 60)
    )
    embeddings_gather_ms: int = _setting(
        "LLM_SERVICE_EMBEDDINGS_GATHER_MS",
        3,
        "milliseconds that a small embeddings request waits for others, to be sent together; 0 turns it off",
        _integer(0, 1000),
    )
    time_zone: str = _setting(
        "LLM_SERVICE_TIME_ZONE", "UTC", "IANA time zone in which budgets' days, weeks and months begin", _time_zone
    )
    money_without_redis: Literal["closed", "open"] = _setting(
        "LLM_SERVICE_MONEY_WITHOUT_REDIS",
        "closed",
        "calls of keys with budgets while Redis is away: closed refuses them, open lets them through",
        _choice("closed", "open"),
    )
    log_retention_days: int | None = _setting(
        "LLM_SERVICE_LOG_RETENTION_DAYS",
        None,
        "days the rows of the request log are kept; unset: for ever. Sums stay",
        _integer(1, 36500),
    )
    webhook_url: str | None = _setting(
        "LLM_SERVICE_WEBHOOK_URL",
        None,
        "where budgets' thresholds are announced; unset: they are only logged",
        _webhook_url,
        shown=False,
    )
    webhook_secret: str | None = _setting(
        "LLM_SERVICE_WEBHOOK_SECRET",
        None,
        "signs webhooks; whsec_ and base64, or any text; required with the URL",
        shown=False,
    )
    upstream_storage: Literal["refuse", "allow"] = _setting(
        "LLM_SERVICE_UPSTREAM_STORAGE",
        "refuse",
        "whether callers may have OpenAI keep content, unless their key says: allow or refuse",
        _choice("refuse", "allow"),
    )
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the environment once.

        Raises:
            SettingsError: naming the variable that is wrong.
        """
        environ = dict(os.environ if environ is None else environ)
        values: dict[str, Any] = {"environ": environ}
        for item in fields(cls):
            env = item.metadata.get("env")
            text = environ.get(env, "") if env else ""
            if not text.strip():
                continue
            try:
                values[item.name] = item.metadata["read"](text.strip())
            except ValueError as error:
                # The value may be a secret or a URL with a password: only the name is told.
                raise SettingsError(f"{env}: {_reason(error, text)}") from None
        settings = cls(**values)
        _ = settings.webhook_key
        return settings

    def secret(self, name: str) -> str | None:
        """The value of an environment variable that models.toml names, such as a provider's key."""
        return self.environ.get(name) or None

    @property
    def instance_path(self) -> Path:
        path = self.instance.absolute()
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        return path

    @property
    def sqlalchemy_url(self) -> str:
        return self.database_url or f"sqlite:///{self.instance_path / 'llm_service.sqlite3'}"

    @property
    def hmac_key(self) -> bytes:
        """The HMAC key. Made once in the instance folder unless set.

        Raises:
            SettingsError: an external database without LLM_SERVICE_SECRET: digests in a
                shared database must not depend on one machine's folder.
        """
        if self.secret_text:
            if len(self.secret_text) < 16:
                raise SettingsError("LLM_SERVICE_SECRET: must have at least 16 characters")
            return self.secret_text.encode()
        if self.database_url and not self.database_url.startswith("sqlite"):
            raise SettingsError("LLM_SERVICE_SECRET: required with an external DATABASE_URL")
        return _secret_file(self.instance_path / "secret")

    @property
    def webhook_key(self) -> bytes | None:
        """What signs webhooks; None when there is no URL to send them to.

        Raises:
            SettingsError: a URL without a secret, or with one that is too short or no base64.
        """
        if self.webhook_url is None:
            return None
        if not self.webhook_secret:
            raise SettingsError("LLM_SERVICE_WEBHOOK_SECRET: required with LLM_SERVICE_WEBHOOK_URL")
        key = self.webhook_secret.encode()
        if self.webhook_secret.startswith("whsec_"):
            try:
                key = base64.b64decode(key[len("whsec_") :], validate=True)
            except ValueError:
                raise SettingsError("LLM_SERVICE_WEBHOOK_SECRET: is not base64 after whsec_") from None
        if len(key) < 16:
            raise SettingsError("LLM_SERVICE_WEBHOOK_SECRET: must have at least 16 bytes")
        return key


def _reason(error: ValueError, text: str) -> str:
    """Our own messages pass; int() and float() would quote the value."""
    message = str(error)
    return "is not a number" if text.strip() and repr(text.strip()) in message else message


def _secret_file(path: Path) -> bytes:
    """Read the secret, or make it: written whole elsewhere, then linked, so two processes agree."""
    if not path.exists():
        draft = path.with_name(f"secret.{os.getpid()}.{secrets.token_hex(4)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(32))
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path.read_text().strip().encode()


def documented() -> list[tuple[str, Any, str]]:
    """(variable, default, help) of every setting, for the docs and their test."""
    return [(item.metadata["env"], item.default, item.metadata["help"]) for item in fields(Settings) if item.metadata]
