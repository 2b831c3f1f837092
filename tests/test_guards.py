"""Every blueprint has a guard: routes need a key unless their blueprint is open by name."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask import Flask

from llm_service import create_app
from llm_service.api.authentication import open_to_all, require_key
from llm_service.app import BLUEPRINTS
from llm_service.settings import Settings


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Flask:
    return create_app(Settings.load({"LLM_SERVICE_INSTANCE": str(tmp_path_factory.mktemp("guards"))}))


def guards(app: Flask, name: str) -> list[object]:
    return [hook for hook in app.before_request_funcs.get(name, []) if hook in (require_key, open_to_all)]


def test_every_blueprint_has_one_guard(app: Flask) -> None:
    assert {name: len(guards(app, name)) for name in app.blueprints} == dict.fromkeys(app.blueprints, 1)
    assert {blueprint.name for blueprint in BLUEPRINTS} == set(app.blueprints)


def test_every_route_belongs_to_a_blueprint(app: Flask) -> None:
    for rule in app.url_map.iter_rules():
        assert rule.endpoint.partition(".")[0] in app.blueprints, rule


def test_only_health_and_docs_are_open_to_all(app: Flask) -> None:
    """To open another blueprint is a decision, so this list must be changed too."""
    is_open = {name for name in app.blueprints if guards(app, name) == [open_to_all]}
    assert is_open == {"health", "docs"} == app.extensions["llm_service_open"]


def test_the_guard_runs_before_all_other_hooks_of_a_blueprint(app: Flask) -> None:
    for name in app.blueprints:
        assert app.before_request_funcs[name][0] in (require_key, open_to_all)


def test_every_guarded_route_rejects_a_caller_without_a_key(app: Flask, tmp_path: Path) -> None:
    client = app.test_client()
    for rule in app.url_map.iter_rules():
        if guards(app, rule.endpoint.partition(".")[0]) == [open_to_all]:
            continue
        for method in (rule.methods or set()) - {"OPTIONS", "HEAD"}:
            path = rule.rule.replace("<path:name>", "x")
            assert client.open(path, method=method).status_code in (401, 429), rule
