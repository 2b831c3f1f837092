"""Liveness, readiness and metrics. They are open to all because they contain nothing about callers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from flask import Blueprint, Response, current_app, jsonify
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from llm_service.api import limits
from llm_service.api.authentication import open_to_all
from llm_service.catalog.retirement import retirements
from llm_service.extensions import db
from llm_service.service import current
from llm_service.store import engine

blueprint = Blueprint("health", __name__)
blueprint.before_request(open_to_all)


@blueprint.get("/health")
def health() -> Response:
    """Whether the process answers. It checks nothing else and is always fast."""
    return jsonify({"status": "ok"})


@blueprint.get("/ready")
def ready() -> tuple[Response, int]:
    """Whether this instance can take calls: 200 or 503, with the state of every part.

    The state of providers comes from recent calls only, because a probe would cost
    money. It does not change the status: a vendor's outage is no reason to take the
    gateway out of service.
    """
    service = current()
    parts: dict[str, Any] = {"database": _database(), "redis": _redis(), "budgets": service.reconciler.state}
    # Redis does not decide: without it, limits are counted in memory and keys without budgets are served.
    is_ready = parts["database"] == "ok" and not service.draining
    status = "draining" if service.draining else "ready" if is_ready else "unavailable"
    providers = {
        name: service.telemetry.reachability(name) for name, row in service.catalog.providers.items() if row.configured
    }
    # Names of aliases are for callers only, and this route is open to all.
    ending = retirements(service.catalog, datetime.now(UTC).date())
    warnings = [retirement.sentence(with_aliases=False) for retirement in ending]
    refused = service.telemetry.refused_targets()
    body = {"status": status, **parts, "providers": providers, "refused_targets": refused, "warnings": warnings}
    return jsonify(body), 200 if is_ready else 503


@blueprint.get("/metrics")
def metrics() -> Response:
    """Metrics in Prometheus' text format."""
    body, content_type = current().telemetry.render()
    return Response(body, content_type=content_type)


def _database() -> str:
    try:
        with engine.reading(db.engine) as connection:
            connection.execute(text("SELECT 1"))
    except SQLAlchemyError:
        return "unreachable"
    return "ok"


def _redis() -> str:
    try:
        reachable = current_app.extensions["llm_service_limiter"].storage.check()
    except limits.REDIS_FAILURES:
        reachable = False
    return "ok" if reachable else "unreachable"
