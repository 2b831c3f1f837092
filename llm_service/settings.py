"""Every setting in one place: its name, type, default and one line of help.

Settings come from the environment and are read once. A wrong setting stops the
start with a message that names it. This is the only module that reads the
environment (a test enforces it). The variables that the catalogue names, such as
providers' keys, are read through ``Settings.secret``. README.md and
docs/settings.md print the table of settings, and a test compares them with this
module.
"""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from llm_service.core import setting_values as values

MEBIBYTE = 1024 * 1024
_PREFIX = "LLM_SERVICE_"
_FROM_KUBERNETES = ("PORT", "SERVICE_")


class SettingsError(ValueError):
    """A setting is wrong. The message names it and never quotes its value."""


def _setting(env: str, default: Any, help: str, read: Callable[[str], Any] = str, *, shown: bool = True) -> Any:
    """One field of ``Settings``. ``shown`` says whether the value may appear in ``repr``."""
    metadata = {"env": env, "help": help, "read": read}
    return field(default=default, metadata=metadata, repr=shown)


@dataclass(frozen=True)
class Settings:
    """The service's settings. ``Settings.load()`` reads them; tests build them by keyword."""

    host: str = _setting("HOST", "127.0.0.1", "address to listen on (the container image sets 0.0.0.0)")
    port: int = _setting("PORT", 8000, "port to listen on", values.integer(0, 65535))
    workers: int = _setting("WEB_CONCURRENCY", 2, "number of gunicorn worker processes", values.integer(1, 256))
    database_url: str | None = _setting(
        "DATABASE_URL",
        None,
        "SQLAlchemy URL of the database; when unset, SQLite in the instance folder",
        values.database_url,
        shown=False,
    )
    redis_url: str | None = _setting(
        "REDIS_URL",
        None,
        "URL of Redis or Valkey; when unset, an embedded server in the instance folder",
        values.redis_url,
        shown=False,
    )
    instance: Path = _setting(
        "LLM_SERVICE_INSTANCE", Path("instance"), "folder for state: SQLite database, embedded Redis, secret", Path
    )
    secret_text: str | None = _setting(
        "LLM_SERVICE_SECRET",
        None,
        "HMAC key for key digests and prompt hashes; required if DATABASE_URL is not SQLite",
        shown=False,
    )
    models: Path | None = _setting(
        "LLM_SERVICE_MODELS", None, "path of the catalogue file; when unset, the packaged models.toml", Path
    )
    anthropic_api_key: str | None = _setting(
        "ANTHROPIC_API_KEY", None, "your Anthropic API key; turns the provider anthropic on", shown=False
    )
    anthropic_base_url: str | None = _setting(
        "ANTHROPIC_BASE_URL", None, "base URL of Anthropic's API, as the Anthropic SDK takes it (without /v1)"
    )
    openai_api_key: str | None = _setting(
        "OPENAI_API_KEY", None, "your OpenAI API key; turns the provider openai on", shown=False
    )
    openai_base_url: str | None = _setting(
        "OPENAI_BASE_URL", None, "base URL of OpenAI's API, as the OpenAI SDK takes it (with /v1)"
    )
    api_keys: tuple[str, ...] = _setting(
        "API_KEYS",
        (),
        "API keys that are accepted without the database, for quick starts; separated by commas or white space",
        values.api_keys,
        shown=False,
    )
    cors_origins: tuple[str, ...] = _setting(
        "LLM_SERVICE_CORS_ORIGINS",
        (),
        "comma-separated origins that may call from a browser; * means any",
        values.listed,
    )
    log_level: str = _setting(
        "LLM_SERVICE_LOG_LEVEL",
        "INFO",
        "lowest level of the JSON log lines on stderr: DEBUG, INFO, WARNING or ERROR",
        values.choice("DEBUG", "INFO", "WARNING", "ERROR"),
    )
    max_body_bytes: int = _setting(
        "LLM_SERVICE_MAX_BODY_BYTES",
        32 * MEBIBYTE,
        "largest request body in bytes; a larger one gets 413",
        values.integer(1024, 2**31),
    )
    anonymous_rpm: int = _setting(
        "LLM_SERVICE_ANONYMOUS_RPM",
        30,
        "requests per minute that one client address (IPv6: one /64 network) may send without a valid key",
        values.integer(1, 1_000_000),
    )
    trusted_proxies: int = _setting(
        "LLM_SERVICE_TRUSTED_PROXIES",
        0,
        "number of proxies in front of the service whose X-Forwarded-For is trusted",
        values.integer(0, 16),
    )
    keep_alive: float = _setting(
        "LLM_SERVICE_KEEP_ALIVE",
        15.0,
        "seconds without an event after which a stream gets a comment line",
        values.seconds(0.05, 300),
    )
    send_timeout: float = _setting(
        "LLM_SERVICE_SEND_TIMEOUT",
        30.0,
        "seconds that a client may stall while it sends its request or receives its answer",
        values.seconds(1, 600),
    )
    graceful_timeout: float = _setting(
        "LLM_SERVICE_GRACEFUL_TIMEOUT",
        30.0,
        "seconds from SIGTERM until the last call has ended",
        values.seconds(6, 3600),
    )
    echo_delay: float = _setting(
        "LLM_SERVICE_ECHO_DELAY",
        0.05,
        "seconds between two words that the echo model streams",
        values.seconds(0, 60),
    )
    embeddings_gather_ms: int = _setting(
        "LLM_SERVICE_EMBEDDINGS_GATHER_MS",
        3,
        "milliseconds that a small embeddings request waits for others, to be sent with them; 0 turns this off",
        values.integer(0, 1000),
    )
    time_zone: str = _setting(
        "LLM_SERVICE_TIME_ZONE",
        "UTC",
        "IANA time zone in which the days, weeks and months of budgets begin",
        values.time_zone,
    )
    money_without_redis: Literal["closed", "open"] = _setting(
        "LLM_SERVICE_MONEY_WITHOUT_REDIS",
        "closed",
        "what happens to calls with a budget while Redis is away: closed rejects them, open admits them",
        values.choice("closed", "open"),
    )
    log_retention_days: int | None = _setting(
        "LLM_SERVICE_LOG_RETENTION_DAYS",
        None,
        "days to keep the rows of the request log; when unset, for ever. The daily sums always stay",
        values.integer(1, 36500),
    )
    webhook_url: str | None = _setting(
        "LLM_SERVICE_WEBHOOK_URL",
        None,
        "where to announce that a budget passed a threshold; when unset, it is only logged",
        values.webhook_url,
        shown=False,
    )
    webhook_secret: str | None = _setting(
        "LLM_SERVICE_WEBHOOK_SECRET",
        None,
        "key that signs webhooks: whsec_ and base64, or any text; required with the URL",
        shown=False,
    )
    upstream_storage: Literal["refuse", "allow"] = _setting(
        "LLM_SERVICE_UPSTREAM_STORAGE",
        "refuse",
        "whether callers may ask OpenAI to keep content, if neither key nor provider says: allow or refuse",
        values.choice("refuse", "allow"),
    )
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the settings from ``environ``, or from the process environment.

        Raises:
            SettingsError: a variable is wrong; the message names it.
        """
        environ = dict(os.environ if environ is None else environ)
        given: dict[str, Any] = {"environ": environ}
        for item in fields(cls):
            env = item.metadata.get("env")
            text = environ.get(env, "") if env else ""
            if not text.strip():
                continue
            try:
                given[item.name] = item.metadata["read"](text.strip())
            except ValueError as error:
                # The value may be a secret or a URL with a password, so only the name is reported.
                raise SettingsError(f"{env}: {_reason(error, text)}") from None
        settings = cls(**given)
        _ = settings.webhook_key
        return settings

    def unknown_names(self) -> list[str]:
        """A sentence for each variable of the environment that looks like a setting and is none.

        Kubernetes sets ``LLM_SERVICE_PORT...`` and ``LLM_SERVICE_SERVICE_...`` for a service named ``llm-service``.
        """
        known = [env.removeprefix(_PREFIX) for env, _, _ in documented() if env.startswith(_PREFIX)]
        sentences = []
        for name in sorted(self.environ):
            word = name.removeprefix(_PREFIX)
            if word == name or word in known or word.startswith(_FROM_KUBERNETES):
                continue
            nearest = get_close_matches(word, known, 1)
            sentences.append(
                f"{name} is not a setting" + (f"; did you mean {_PREFIX}{nearest[0]}?" if nearest else ".")
            )
        return sentences

    def secret(self, name: str) -> str | None:
        """The value of an environment variable that the catalogue names, such as a provider's key."""
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
        """The HMAC key: LLM_SERVICE_SECRET, or a secret that is made once in the instance folder.

        Raises:
            SettingsError: the secret is too short, or an external database is used without
                LLM_SERVICE_SECRET. The digests in a shared database must not depend on one
                machine's folder.
        """
        if self.secret_text:
            if len(self.secret_text) < 16:
                raise SettingsError("LLM_SERVICE_SECRET: must have at least 16 characters")
            return self.secret_text.encode()
        if self.database_url and not self.database_url.startswith("sqlite"):
            raise SettingsError("LLM_SERVICE_SECRET: is required if DATABASE_URL is not SQLite")
        return _secret_file(self.instance_path / "secret")

    @property
    def webhook_key(self) -> bytes | None:
        """The key that signs webhooks, or None if no webhook URL is set.

        Raises:
            SettingsError: there is a URL but no secret, or the secret is too short or not valid base64.
        """
        if self.webhook_url is None:
            return None
        if not self.webhook_secret:
            raise SettingsError("LLM_SERVICE_WEBHOOK_SECRET: is required with LLM_SERVICE_WEBHOOK_URL")
        key = self.webhook_secret.encode()
        if self.webhook_secret.startswith("whsec_"):
            try:
                key = base64.b64decode(key[len("whsec_") :], validate=True)
            except ValueError:
                raise SettingsError("LLM_SERVICE_WEBHOOK_SECRET: must be valid base64 after whsec_") from None
        if len(key) < 16:
            raise SettingsError("LLM_SERVICE_WEBHOOK_SECRET: must have at least 16 bytes")
        return key


def _reason(error: ValueError, text: str) -> str:
    """Our own messages are shown. Those of int() and float() are not, because they quote the value."""
    message = str(error)
    return "must be a number" if text.strip() and repr(text.strip()) in message else message


def _secret_file(path: Path) -> bytes:
    """Read the secret, or make it first.

    A new secret is written to a file of its own and then linked to ``path``, so that two processes that
    start together use the same one.
    """
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
    """(variable, default, help) of every setting, for the documents and the test that compares them."""
    return [(item.metadata["env"], item.default, item.metadata["help"]) for item in fields(Settings) if item.metadata]
