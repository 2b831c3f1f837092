"""The application factory: the inventory of the service."""

from __future__ import annotations

from flask import Flask, Response, g
from flask_cors import CORS

from llm_service import cli, providers, store
from llm_service.api import (
    account,
    anthropic,
    authentication,
    client_address,
    completion,
    docs,
    failures,
    health,
    limits,
    models,
    openai,
    request_info,
    streaming,
)
from llm_service.billing.admission import Admission
from llm_service.billing.alerts import Alerts
from llm_service.billing.ledger.of_process import ProcessLedger
from llm_service.billing.reconciler import Reconciler
from llm_service.billing.settlement import Settler
from llm_service.catalog.catalog import Catalog
from llm_service.formats import registry
from llm_service.gateway import Gateway
from llm_service.observability.journal import Journal
from llm_service.observability.metrics import Metrics
from llm_service.providers.routing import Router
from llm_service.server import embedded_redis
from llm_service.service import Service
from llm_service.settings import Settings
from llm_service.store.writer import Writer

BLUEPRINTS = (
    completion.blueprint,
    streaming.blueprint,
    openai.blueprint,
    anthropic.blueprint,
    models.blueprint,
    account.blueprint,
    health.blueprint,
    docs.blueprint,
)


# Headers of a reply that a web page may read. The SDKs decide by some of them whether to try again.
EXPOSED = (
    "X-Request-Id",
    "request-id",
    "Retry-After",
    "x-should-retry",
    "RateLimit",
    "RateLimit-Policy",
    "X-Dropped-Parameters",
    "X-Upstream-Request-Id",
    "X-JSON-Answer",
)


def create_app(settings: Settings | None = None) -> Flask:
    """Build the service as a WSGI application, to be served or mounted inside another one.

    This opens no connection and starts nothing, so it may run before a fork and for every CLI command.
    ``launch.prepare`` brings the database up to date.

    Raises:
        SettingsError: a setting or the catalogue is wrong; the message names it.
    """
    settings = settings or Settings.load()
    catalog = Catalog.load(settings)
    app = Flask(__name__, static_folder=None)
    app.json.sort_keys = False  # type: ignore[attr-defined]
    store.configure(app, settings)

    telemetry = Metrics(catalog.providers, registry.NAMES)
    writer = Writer(store.database_url(settings), retention_days=settings.log_retention_days)
    journal = Journal(writer, telemetry, settings.hmac_key, registry.prompt_of, registry.status_of)
    authenticator = authentication.Authenticator(settings.hmac_key, settings.api_keys, catalog)
    redis_url = settings.redis_url or embedded_redis.url(settings.instance_path)
    ledger = ProcessLedger(redis_url, settings.workers, settings.money_without_redis)
    settler = Settler(ledger.get)
    admission = Admission(catalog, ledger.get, settler, settings.time_zone)
    reconciler = Reconciler(
        catalog, admission, ledger, writer, app.app_context, settings, authenticator.fixed, telemetry
    )
    admission.subscribe(reconciler.start)
    writer.subscribe(settler.committed)
    alerts = Alerts(store.database_url(settings), settings, catalog, telemetry)
    writer.subscribe(alerts.noticed)
    gateway = Gateway(journal, admission, Router(catalog, _upstreams(catalog, settings)))
    app.extensions["llm_service"] = Service(settings, catalog, gateway, journal, telemetry, writer, reconciler, alerts)
    app.extensions["llm_service_authenticator"] = authenticator

    if settings.trusted_proxies:
        behind = client_address.behind_proxies(app.wsgi_app, settings.trusted_proxies)
        app.wsgi_app = behind  # type: ignore[method-assign]
    request_info.init_app(app)  # first: it resolves the key that the limits are counted for
    app.extensions["llm_service_open"] = {health.blueprint.name, docs.blueprint.name}
    limits.build(app, redis_url, settings.workers)
    failures.init_app(app)
    for blueprint in BLUEPRINTS:
        app.register_blueprint(blueprint)
    if settings.cors_origins:
        CORS(app, origins=list(settings.cors_origins), expose_headers=EXPOSED)
    app.after_request(_identify)
    cli.register(app)
    return app


def _upstreams(catalog: Catalog, settings: Settings) -> dict[str, providers.Upstream]:
    """The upstream of each configured provider, by the provider's name."""
    batch_window = settings.embeddings_gather_ms / 1000
    return {
        name: providers.connect(
            row, tick=settings.keep_alive, echo_delay=settings.echo_delay, batch_window=batch_window
        )
        for name, row in catalog.providers.items()
        if row.configured
    }


def _identify(response: Response) -> Response:
    arrived = g.get("request_info")
    if arrived is not None:
        response.headers["X-Request-Id"] = arrived.request_id
        response.headers.update(registry.format_of(arrived).response_headers(arrived.request_id))
    return response
