"""What gunicorn's arbiter does before the first worker starts and after the last one has ended.

The hooks that call these functions are in gunicorn.conf.py. The first API key and the
welcome text go to stdout as plain text, never into the log.
"""

from __future__ import annotations

import atexit
import logging
import os
import resource
import shutil
import socket
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from llm_service import providers
from llm_service.server import embedded_redis
from llm_service.server.embedded_redis import Embedded
from llm_service.settings import Settings

if TYPE_CHECKING:
    from flask import Flask

    from llm_service.catalog.catalog import Catalog

log = logging.getLogger(__name__)

_OPEN_FILES = 65_536
_PROMPT = "Say hello in five words."


class LaunchError(RuntimeError):
    """The service cannot start. The message is one line for the person who started it."""


@dataclass
class Launch:
    """What the arbiter has started and must end."""

    embedded: Embedded | None = None
    metrics: Path | None = None
    _process: int = field(default_factory=os.getpid)

    def stop(self) -> None:
        """End everything. May be called twice. It does nothing in a forked child."""
        if self._process != os.getpid():
            return
        if self.embedded is not None:
            self.embedded.stop()
        if self.metrics is not None:
            shutil.rmtree(self.metrics, ignore_errors=True)


def prepare(app: Flask, settings: Settings, metrics: Path | None = None) -> Launch:
    """Prepare the start, before the first fork.

    This imports the SDKs, reads the keys that come from files and commands, starts the embedded Redis if no other is
    configured, and migrates the database.

    Raises:
        LaunchError: one of these steps failed; nothing is left running.
    """
    catalog: Catalog = app.extensions["llm_service"].catalog
    try:
        providers.load(catalog)
    except ValueError as error:
        raise LaunchError(f"{catalog.source}: {error}") from None
    launch = Launch(metrics=metrics)
    atexit.register(launch.stop)  # for a start that fails later, and for every other end of the arbiter
    try:
        if settings.redis_url is None:
            launch.embedded = embedded_redis.ensure(settings.instance_path)
        upgrade_database(app)
        if launch.embedded is not None and launch.embedded.pid is not None:
            build_counters(app)
        warn_of_retirements(app.extensions["llm_service"].catalog)
        for sentence in settings.unknown_names():
            log.warning("an environment variable is ignored", extra={"fields": {"warning": sentence}})
    except (embedded_redis.EmbeddedRedisError, LaunchError) as error:
        launch.stop()
        raise LaunchError(str(error)) from error
    return launch


def warn_of_retirements(catalog: Catalog) -> None:
    """Log a warning for each model that callers are offered and that is retired or retires soon."""
    from llm_service.catalog.retirement import retirements

    for retirement in retirements(catalog, datetime.now(UTC).date()):
        log.warning("a model of the catalogue retires", extra={"fields": {"warning": retirement.sentence()}})


def upgrade_database(app: Flask) -> None:
    """Apply the missing migrations. No connection stays open, because workers would inherit it.

    Raises:
        LaunchError: the database does not answer, or belongs to a newer version.
    """
    from sqlalchemy.exc import SQLAlchemyError

    from llm_service.extensions import db
    from llm_service.store import schema

    try:
        schema.upgrade(app)
    except schema.SchemaError as error:
        raise LaunchError(str(error)) from error
    except SQLAlchemyError as error:
        # The first line of the driver's message has the host and the reason, but not the password.
        reason = str(getattr(error, "orig", None) or error).strip().splitlines()
        raise LaunchError(f"DATABASE_URL: the database does not answer: {reason[0] if reason else error}") from error
    finally:
        with app.app_context():
            db.engine.dispose()


def build_counters(app: Flask) -> None:
    """Build the budgets' counters in a Redis that has just started: no other process has holds to wait for."""
    from llm_service.core.errors import Unavailable
    from llm_service.extensions import db

    try:
        app.extensions["llm_service"].reconciler.rebuild(at_once=True)
    except Unavailable:
        pass  # the workers try again
    finally:
        app.extensions["llm_service"].reconciler.disconnect()
        with app.app_context():
            db.engine.dispose()


def first_key(app: Flask, settings: Settings) -> str | None:
    """Create and return the first key if no key was ever created and API_KEYS is empty; else return None.

    Its text is not stored, so it can be shown only now.
    """
    from llm_service.extensions import db
    from llm_service.store import keys

    if settings.api_keys:
        return None
    with app.app_context():
        try:
            return None if keys.any_exists() else keys.issue(settings.hmac_key, name="first key").text
        finally:
            db.engine.dispose()


def welcome(base_url: str, catalog: Catalog, key: str | None) -> str:
    """Return the text for the person who started the service. ``key`` is set only if it was created just now."""
    vendors = [name for name, row in catalog.providers.items() if row.configured and row.kind != "echo"]
    lines = ["", f"llm_service answers at {base_url}   (API reference: {base_url}/docs; press Ctrl-C to stop)"]
    if vendors:
        lines.append(f"Providers: {', '.join(vendors)}; and the built-in echo model for tests.")
    else:
        lines.append("No provider key is set, so the built-in echo model answers. It repeats the prompt.")
        lines.append(
            "Set ANTHROPIC_API_KEY, OPENAI_API_KEY or another variable of docs/providers.md to use real models."
        )
        lines += [
            f"{name} has a key, but is off until {' and '.join(row.missing)} is set."
            for name, row in catalog.providers.items()
            if row.key is not None and row.missing
        ]
    if key is not None:
        model = _first_model(catalog, vendors)
        lines += ["", f"Your first API key (it is shown only once): {key}", "", "Try it:", *_curl(base_url, key, model)]
        lines += ["", "To create more keys: .venv/bin/flask --app wsgi keys create --name NAME"]
    return "\n".join([*lines, "", ""])


def _first_model(catalog: Catalog, vendors: list[str]) -> str:
    """A model to try. Without a provider of the default model, the reader must fill in the name of a model."""
    from llm_service.core.errors import ModelNotFound

    if not vendors:
        return "echo"
    try:
        catalog.resolve(catalog.default_model)
    except ModelNotFound:
        return f"{vendors[0]}/MODEL"
    return catalog.default_model


def _curl(base_url: str, key: str, model: str) -> list[str]:
    def line(route: str, options: str) -> str:
        body = f'{{"model": "{model}", "prompt": "{_PROMPT}"}}'
        headers = f"-H 'Authorization: Bearer {key}' -H 'Content-Type: application/json'"
        return f"  curl {options}{base_url}{route} {headers} -d '{body}'"

    return [line("/v1/complete", ""), line("/v1/stream", "-N ")]


def base_url(host: str, port: int) -> str:
    """Return the URL with which a person on this machine reaches the service."""
    if host in ("0.0.0.0", "::", ""):
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def bind(host: str, port: int) -> str:
    """Return the address in gunicorn's form."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def check_port(host: str, port: int) -> None:
    """Check now that the address can be used: gunicorn would do it last, and retry for five seconds.

    Raises:
        LaunchError: the port is in use, or the address does not belong to this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise LaunchError(
                f"cannot listen on {bind(host, port)}: {error.strerror or error}. Set PORT or HOST to another value."
            ) from error


def allow_open_files() -> None:
    """Raise the soft limit of open files as far as the hard limit allows, up to 65,536.

    A running call needs two descriptors, and the usual soft limit is 1,024.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def metrics_folder(instance: Path) -> Path:
    """Create an empty folder for the metrics that this arbiter's workers share. Remove those of dead arbiters."""
    parent = instance / "metrics"
    parent.mkdir(mode=0o700, exist_ok=True)
    for other in parent.iterdir():
        if not (other.name.isdigit() and embedded_redis.alive(int(other.name))):
            shutil.rmtree(other, ignore_errors=True)
    own = parent / str(os.getpid())
    shutil.rmtree(own, ignore_errors=True)
    own.mkdir(mode=0o700)
    return own
