"""Real servers for every test. A server is started once for all tests where it can be shared."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from llm_service.providers.http import sdk_head
from tests.support.postgres import Postgres
from tests.support.server import Server
from tests.support.valkey import Valkey
from tests.upstream import ANTHROPIC_KEY, OPENAI_KEY, Upstream

# A developer's own keys and proxies must not reach a client that runs inside the test process. npm keeps the proxies.
for _name, _option in {"HTTP_PROXY": "PROXY", "HTTPS_PROXY": "HTTPS_PROXY", "NO_PROXY": "NOPROXY"}.items():
    if _value := os.environ.get(_name) or os.environ.get(_name.lower()):
        os.environ.setdefault(f"NPM_CONFIG_{_option}", _value)
for _name in list(os.environ):
    _is_proxy = _name.lower().endswith("_proxy") and not _name.lower().startswith("npm_config_")
    if _name.startswith(("OPENAI_", "ANTHROPIC_", "LLM_SERVICE_")) or _is_proxy:
        del os.environ[_name]

MakeService = Callable[..., Server]


# The slowest files run first. One process runs a whole file, so the other processes would otherwise wait for it at the
# end.
LONGEST = (
    "tests/faults/test_money.py",
    "tests/server/test_launch.py",
    "tests/test_privacy.py",
    "tests/billing/test_alerts.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not item.nodeid.startswith(LONGEST))  # stable: the order inside a file stays


@pytest.fixture(scope="session")
def upstream_server() -> Iterator[Upstream]:
    with Upstream() as server:
        yield server


@pytest.fixture
def upstream(upstream_server: Upstream) -> Iterator[Upstream]:
    """The scripted vendor behind ``service``, with an empty script and ledger."""
    upstream_server.reset()
    yield upstream_server
    upstream_server.reset()
    if not upstream_server.listening:
        upstream_server.start()


@pytest.fixture
def own_connections() -> Iterator[None]:
    """Providers that run in the test process have connections of their own, which are closed after the test."""
    transports = (sdk_head._direct, sdk_head._proxied)
    for transport in transports:
        transport.cache_clear()
    yield
    for transport in transports:
        if transport.cache_info().currsize:
            transport(os.getpid()).close()
        transport.cache_clear()


@pytest.fixture(scope="session")
def valkey() -> Iterator[Valkey]:
    """A server that all tests share. Take a database with ``fresh_url``; never stop or freeze it."""
    server = Valkey().start()
    yield server
    server.remove()


@pytest.fixture
def own_valkey() -> Iterator[Valkey]:
    """A server for one test, which may stop, freeze and restart it."""
    server = Valkey().start()
    yield server
    server.remove()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    server = Postgres()
    try:
        yield server.start()
    finally:
        server.remove()


@pytest.fixture
def postgres_url(postgres: Postgres) -> Iterator[str]:
    """A database without tables, for one test."""
    url = postgres.fresh_url()
    yield url
    postgres.give_back(url)


def settings_for(upstream: Upstream, valkey: Valkey, **more: str) -> dict[str, str]:
    """The environment variables of a service that uses the scripted vendor."""
    return {
        "ANTHROPIC_API_KEY": ANTHROPIC_KEY,
        "ANTHROPIC_BASE_URL": upstream.url,
        "OPENAI_API_KEY": OPENAI_KEY,
        "OPENAI_BASE_URL": upstream.openai_url,
        "REDIS_URL": valkey.fresh_url(),
        "LLM_SERVICE_LOG_LEVEL": "DEBUG",  # so that a test sees what is logged at any level
        "LLM_SERVICE_ANONYMOUS_RPM": "1000000",
        "LLM_SERVICE_ECHO_DELAY": "0.005",
        **more,
    }


@pytest.fixture(scope="session")
def service(upstream_server: Upstream, valkey: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service with two workers on SQLite and Valkey.

    All tests share it, so a test finds its own rows by their request id or by a key of its own.
    """
    server = Server(tmp_path_factory.mktemp("service"), settings_for(upstream_server, valkey, WEB_CONCURRENCY="2"))
    with server:
        yield server


@pytest.fixture(scope="session")
def service_pg(
    upstream_server: Upstream, valkey: Valkey, postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """The same service on PostgreSQL."""
    environ = settings_for(upstream_server, valkey, WEB_CONCURRENCY="2", DATABASE_URL=postgres.fresh_url())
    with Server(tmp_path_factory.mktemp("service_pg"), environ) as server:
        yield server


@pytest.fixture(params=["service", "service_pg"])
def any_service(request: pytest.FixtureRequest) -> Server:
    """For tests of what must hold on both databases."""
    server: Server = request.getfixturevalue(request.param)
    return server


@pytest.fixture
def make_service(upstream: Upstream, valkey: Valkey, tmp_path: Path) -> Iterator[MakeService]:
    """A function that makes services with other settings, each with one worker by default:

    make_service(LLM_SERVICE_KEEP_ALIVE="0.2", models=toml_text, redis="embedded", start=False)

    A setting that is None is left out. The services are stopped at the end of the test, if the test has not stopped
    them itself.
    """
    made: list[Server] = []

    def make(
        *, start: bool = True, models: str | None = None, redis: str | None = None, **environ: str | None
    ) -> Server:
        folder = tmp_path / f"service_{len(made)}"
        folder.mkdir()
        values: dict[str, Any] = {**settings_for(upstream, valkey, WEB_CONCURRENCY="1"), **environ}
        if models is not None:
            (folder / "models.toml").write_text(models)
            values["LLM_SERVICE_MODELS"] = str(folder / "models.toml")
        if redis is not None:
            values["REDIS_URL"] = None if redis == "embedded" else redis
        server = Server(folder, {name: value for name, value in values.items() if value is not None})
        made.append(server)
        return server.start() if start else server

    yield make
    for server in made:
        server.stop()


@pytest.fixture(scope="module")
def shared_service(
    upstream_server: Upstream, valkey: Valkey, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MakeService]:
    """As ``make_service``, for the tests of a module that want the same settings: they share one service.

    shared_service(LLM_SERVICE_KEEP_ALIVE="0.2")
    """
    made: dict[tuple[Any, ...], Server] = {}

    def share(*, models: str | None = None, **environ: str) -> Server:
        wanted = (models, *sorted(environ.items()))
        if wanted not in made:
            folder = tmp_path_factory.mktemp("shared")
            if models is not None:
                (folder / "models.toml").write_text(models)
                environ = {**environ, "LLM_SERVICE_MODELS": str(folder / "models.toml")}
            values = settings_for(upstream_server, valkey, WEB_CONCURRENCY="1") | environ
            made[wanted] = Server(folder, values).start()
        return made[wanted]

    yield share
    for server in made.values():
        server.stop()


@pytest.fixture(scope="session")
def key(service: Server) -> str:
    """A key of ``service`` whose limits no test reaches."""
    return service.key


@pytest.fixture(scope="session")
def openai_client(service: Server) -> openai.OpenAI:
    """The official client of ``service``. It does not retry, so that a test sees the first answer."""
    return service.openai()


@pytest.fixture(scope="session")
def anthropic_client(service: Server) -> anthropic.Anthropic:
    return service.anthropic()
