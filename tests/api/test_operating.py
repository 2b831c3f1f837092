"""The routes for operators, browsers and load balancers: health, metrics, the API document, CORS, request ids."""

from __future__ import annotations

import re
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from openapi_spec_validator import OpenAPIV31SpecValidator
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import make_url

from llm_service import create_app
from llm_service.api import schemas
from llm_service.settings import Settings
from tests.api.conftest import ORIGIN
from tests.api.error_shapes import ROUTES, read_error, shape_of, valid_body
from tests.conftest import MakeService
from tests.support.postgres import Postgres
from tests.support.server import HIGH_RPM, Server
from tests.support.wait import wait_until
from tests.upstream import Upstream

# ---- health, readiness


def test_health_needs_no_key_and_is_fast(service: Server) -> None:
    client = service.http(key="")
    client.get("/health")
    began = time.monotonic()
    for _ in range(20):
        reply = client.get("/health")
        assert (reply.status_code, reply.json()) == (200, {"status": "ok"})
    assert (time.monotonic() - began) / 20 < 0.05
    assert client.head("/health").status_code == 200


def test_ready_reports_the_state_of_every_part(service: Server) -> None:
    reply = service.http(key="").get("/ready")
    assert reply.status_code == 200
    schemas.Ready().load(reply.json())
    assert {name: reply.json()[name] for name in ("status", "database", "redis")} == {
        "status": "ready",
        "database": "ok",
        "redis": "ok",
    }
    assert sorted(reply.json()["providers"]) == ["anthropic", "echo", "openai"]


RETIRING = """
[tiers.default]
[providers.openai]
kind = "openai"
key_env = "OPENAI_API_KEY"
base_url_env = "OPENAI_BASE_URL"
[providers.off]
kind = "openai"
key_env = "NOBODY_HAS_SET_THIS"
[aliases.secret]
targets = ["openai/old", "openai/new", "off/old"]
[models."*/old"]
retires = 2026-01-31
replacement = "openai/new"
"""


def test_ready_warns_of_a_model_that_is_retired_and_stays_ready(make_service: MakeService, tmp_path: Path) -> None:
    (tmp_path / "models.toml").write_text(RETIRING)
    service = make_service(LLM_SERVICE_MODELS=str(tmp_path / "models.toml"))
    reply = service.http(key="").get("/ready")
    assert reply.status_code == 200
    assert reply.json()["warnings"] == [
        "openai/old retired on 2026-01-31, and the vendor does not serve it any more; its replacement is openai/new"
    ]


CATALOGUE = """
[defaults]
attempts = 1
[tiers.default]
[providers.openai]
kind = "openai"
key_env = "OPENAI_API_KEY"
base_url_env = "OPENAI_BASE_URL"
[providers.echo]
kind = "echo"
keyless = true
serves = ["echo"]
[providers.dead]
kind = "openai"
keyless = true
base_url = "http://127.0.0.1:1/v1"
[providers.off]
kind = "openai"
key_env = "NOBODY_HAS_SET_THIS"
"""


def test_without_its_database_the_service_is_not_ready_but_serves_cached_keys(
    make_service: MakeService, postgres: Postgres, upstream: Upstream
) -> None:
    url = postgres.fresh_url()
    name = make_url(url).database
    service = make_service(DATABASE_URL=url, models=CATALOGUE, LLM_SERVICE_ANONYMOUS_RPM="3")
    known, other = (service.create_key(rpm=HIGH_RPM).text for _ in range(2))
    client = service.http(key="")

    def ask(key: str, model: str = "echo", path: str = "/v1/complete") -> Any:
        began = time.monotonic()
        reply = client.post(path, json=valid_body(model=model), headers={"X-API-Key": key})
        assert time.monotonic() - began < 1
        return reply

    assert client.get("/ready").json()["providers"] == {"openai": "unknown", "echo": "unknown", "dead": "unknown"}
    assert (ask(known).status_code, ask(known, "dead/x").status_code) == (200, 502)
    ready = client.get("/ready")
    assert ready.status_code == 200  # the outage of a vendor is no reason to take the gateway out of service
    assert ready.json()["providers"] == {"openai": "unknown", "echo": "reachable", "dead": "unreachable"}
    assert upstream.requests == []  # readiness is known from calls; no vendor is asked for it

    postgres.execute(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false")
    postgres.disconnect_all(str(name))
    try:
        ready = client.get("/ready")
        assert ready.status_code == 503
        schemas.Ready().load(ready.json())
        assert (ready.json()["status"], ready.json()["database"], ready.json()["redis"]) == (
            "unavailable",
            "unreachable",
            "ok",
        )
        assert client.get("/health").status_code == 200
        time.sleep(1.0)  # with a database, a cached key is used for one second only
        answered = ask(known)
        assert answered.status_code == 200
        assert ask("nonsense").status_code == 401
        for path in ROUTES * 2:  # more requests than an address without a key may make: this limit must not apply here
            rejected = ask(other, path=path)
            assert (rejected.status_code, rejected.headers["retry-after"]) == (503, "5")
            assert read_error(shape_of(path), rejected)[0] == "unavailable"
    finally:
        postgres.execute(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS true")
    wait_until(lambda: client.get("/ready").status_code == 200, 5, "ready again", 0.1)
    assert ask(other).status_code == 200
    assert service.row(answered.headers["x-request-id"], timeout=10)["outcome"] == "ok"


# ---- metrics


def samples(service: Server) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    reply = service.http(key="").get("/metrics")
    assert reply.status_code == 200
    assert reply.headers["content-type"].startswith("text/plain")
    families = list(text_string_to_metric_families(reply.text))
    assert families
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_metrics_are_the_sum_of_both_workers(service: Server, upstream: Upstream) -> None:
    calls = (("dialect", "simple"), ("outcome", "ok"), ("provider", "echo"))
    counted = ("llm_requests_total", calls)
    before = samples(service).get(counted, 0)
    for _ in range(20):
        with service.raw() as raw:  # a new connection for each call, so that both workers get some calls
            raw.request("POST", "/v1/complete", valid_body(), service.key)
            assert raw.read_reply().status == 200
    for _ in range(6):  # whichever worker answers
        assert samples(service)[counted] == before + 20
    now = samples(service)
    assert now[("llm_tokens_total", (("kind", "input"), ("provider", "echo")))] >= 20
    assert now[("llm_streams_open", ())] == 0
    names = {label for _, labels in now for label, _ in labels}
    assert names <= {"dialect", "provider", "outcome", "kind", "le"}


# ---- the OpenAPI document


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Flask:
    return create_app(Settings.load({"LLM_SERVICE_INSTANCE": str(tmp_path_factory.mktemp("operating"))}))


def test_the_openapi_document_is_valid(service: Server) -> None:
    reply = service.http(key="").get("/openapi.json")
    assert (reply.status_code, reply.headers["content-type"]) == (200, "application/json")
    document = reply.json()
    assert document["openapi"].startswith("3.1.")
    OpenAPIV31SpecValidator(document).validate()
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    assert all(operation["summary"] and operation["responses"]["200"] for operation in operations)


def test_the_document_has_exactly_the_routes_of_the_service(service: Server, app: Flask) -> None:
    document = service.http(key="").get("/openapi.json").json()
    documented = {(path, method.upper()) for path, operations in document["paths"].items() for method in operations}
    routes = {
        (re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), method)
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if not rule.endpoint.startswith("docs.")
    }
    assert documented == routes


def test_the_document_says_which_routes_need_a_key(service: Server) -> None:
    document = service.http(key="").get("/openapi.json").json()
    client = service.http(key="")
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            reply = client.request(method, path.replace("{name}", "x"))
            assert (reply.status_code == 401) == bool(operation["security"]), path


class Links(HTMLParser):
    """Collects the links of a page, and whether the page has inline scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.inline = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.links += [value for name in ("src", "href") if (value := attributes.get(name))]
        self.inline = self.inline or (tag == "script" and "src" not in attributes)
        self.inline = self.inline or any(name.startswith("on") for name in attributes)


def test_the_docs_page_loads_local_files_only(service: Server) -> None:
    client = service.http(key="")
    page = client.get("/docs")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src 'self'" in policy and "http" not in policy
    parser = Links()
    parser.feed(page.text)
    assert parser.links and not parser.inline
    for link in parser.links:
        assert not re.match(r"(?:[a-z]+:)?//", link), link
        asset = client.get(str(page.url.join(link)))
        assert asset.status_code == 200, link
        if link.endswith(".js") and "bundle" not in link:
            assert "http" not in asset.text
            (document,) = re.findall(r'url: "([^"]+)"', asset.text)
            assert client.get(str(page.url.join(document))).status_code == 200
    for outside in ("/docs/../app.py", "/docs/..%2f..%2fapp.py", "/docs/%2e%2e/%2e%2e/settings.py", "/docs/nope"):
        with service.raw() as raw:
            raw.request("GET", outside)
            assert raw.read_reply().status == 404


# ---- browsers


PREFLIGHT = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization, content-type, x-api-key, anthropic-version",
}


@pytest.mark.parametrize("path", ROUTES)
def test_an_allowed_origin_may_call_from_a_browser(strict: Server, path: str) -> None:
    reply = strict.http(key="").options(path, headers={"Origin": ORIGIN, **PREFLIGHT})
    assert reply.status_code == 200
    assert reply.headers["access-control-allow-origin"] == ORIGIN
    assert "POST" in reply.headers["access-control-allow-methods"]
    allowed = reply.headers["access-control-allow-headers"].lower()
    assert all(name in allowed for name in PREFLIGHT["Access-Control-Request-Headers"].split(", "))
    answered = strict.http().post(path, json=valid_body(), headers={"Origin": ORIGIN})
    assert answered.status_code == 200
    assert answered.headers["access-control-allow-origin"] == ORIGIN
    exposed = {name.strip().lower() for name in answered.headers["access-control-expose-headers"].split(",")}
    assert {"x-request-id", "retry-after", "x-should-retry", "ratelimit", "x-dropped-parameters"} <= exposed
    # A page must be able to read the reason of a rejection.
    rejected = strict.http().post(path, json={}, headers={"Origin": ORIGIN})
    assert (rejected.status_code, rejected.headers["access-control-allow-origin"]) == (400, ORIGIN)


def test_other_origins_may_not_call_from_a_browser(strict: Server, service: Server) -> None:
    for server, origin in ((strict, "https://evil.example"), (strict, "null"), (service, ORIGIN)):
        reply = server.http(key="").options("/v1/complete", headers={"Origin": origin, **PREFLIGHT})
        assert not [name for name in reply.headers if name.startswith("access-control")]
        answered = server.http().post("/v1/complete", json=valid_body(), headers={"Origin": origin})
        assert not [name for name in answered.headers if name.startswith("access-control")]


# ---- request ids


def test_a_well_formed_request_id_of_the_caller_is_kept(service: Server) -> None:
    client = service.http()
    for number, header in enumerate(("X-Request-Id", "X-Correlation-Id", "x-request-id")):
        given = f"Caller.{number}_of-tests"
        for path in ROUTES:
            reply = client.post(path, json=valid_body(), headers={header: f"{given}.{shape_of(path)}{len(path)}"})
            assert reply.headers["x-request-id"] == f"{given}.{shape_of(path)}{len(path)}"
        assert service.row(f"{given}.messages{len('/v1/messages')}")["outcome"] == "ok"
    both = client.get("/v1/key", headers={"X-Request-Id": "first", "X-Correlation-Id": "second"})
    assert both.headers["x-request-id"] == "first"


@pytest.mark.parametrize("given", ["a b", "x" * 129, "a\xe9", "a;b", '"a"', "<script>", "a,b", "", "../..", "{}"])
def test_a_malformed_request_id_is_replaced(service: Server, given: str) -> None:
    with service.raw() as raw:
        raw.request("POST", "/v1/complete", valid_body(), service.key, {"X-Request-Id": given})
        reply = raw.read_reply()
    new_id = reply.headers["x-request-id"]
    assert reply.status == 200 and new_id != given
    assert re.fullmatch(r"[0-9a-z]{26}", new_id)
    assert service.row(new_id)["id"] == new_id


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/health"), ("GET", "/nope"), ("GET", "/docs"), ("PUT", "/v1/key"), ("GET", "/v1/key")]
)
def test_every_reply_has_a_request_id(service: Server, method: str, path: str) -> None:
    reply = service.http(key="").request(method, path)
    assert re.fullmatch(r"[0-9a-z]{26}", reply.headers["x-request-id"])
