"""A vendor that refuses this service's own key: the next target is asked, the operator sees it, the caller is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeService
from tests.support.server import Server
from tests.upstream import OPENAI_KEY, Upstream
from tests.upstream.steps import Step

CATALOGUE = """
[defaults]
retry_after_cap = 1

[providers.one]
kind = "openai"
base_url = "{url}"
keyless = true

[providers.two]
kind = "anthropic"
key_env = "ANTHROPIC_API_KEY"
base_url_env = "ANTHROPIC_BASE_URL"

[aliases.both]
targets = ["one/first", "two/claude-haiku-4-5"]
"""
ROUTE = "/compatible/v1/chat/completions"


@pytest.fixture
def service(make_service: MakeService, upstream: Upstream) -> Server:
    return make_service(models=CATALOGUE.format(url=upstream.compatible_url))


def ask(service: Server, model: str, stream: bool = False) -> Any:
    body = {"model": model, "messages": [{"role": "user", "content": "x"}], "stream": stream}
    return service.http().post("/v1/chat/completions", json=body)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [401, 402, 403])
def test_after_401_402_and_403_the_next_target_is_asked_and_ready_shows_the_first(
    service: Server, upstream: Upstream, status: int, stream: bool
) -> None:
    upstream.script(Step(status=status, path=ROUTE), Step(text="Hello from two."))
    answer = ask(service, "both", stream)
    assert answer.status_code == 200 and "two" in answer.text
    assert len(upstream.requests) == 2
    row = service.row(answer.headers["x-request-id"])
    assert (row["attempts"], row["provider"], row["outcome"]) == (2, "two", "ok")
    ready = service.http().get("/ready")
    assert ready.status_code == 200
    code = "upstream_quota_exhausted" if status == 402 else "upstream_authentication"
    assert ready.json()["refused_targets"] == {"one/first": code}
    assert ready.json()["providers"] == {"one": "refused", "two": "reachable"}
    ask(service, "one/first")
    ready = service.http().get("/ready")
    assert (ready.json()["refused_targets"], ready.json()["providers"]["one"]) == ({}, "reachable")


@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_after_a_fault_of_the_caller_no_other_target_is_asked(service: Server, upstream: Upstream, status: int) -> None:
    upstream.script(Step(status=status, path=ROUTE))
    assert ask(service, "both").status_code == status
    assert len(upstream.requests) == 1
    assert service.http().get("/ready").json()["refused_targets"] == {}


def test_a_prompt_that_moderation_flags_is_the_caller_s(service: Server, upstream: Upstream) -> None:
    body = '{"error": {"code": 403, "message": "flagged", "metadata": {"reasons": ["x"], "flagged_input": "..."}}}'
    upstream.script(Step(status=403, path=ROUTE, body=body))
    assert ask(service, "both").status_code == 403
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("route", ["/v1/chat/completions", "/v1/messages", "/v1/responses"])
def test_a_single_target_s_refusal_is_a_502_that_blames_the_service_s_own_key(
    service: Server, upstream: Upstream, status: int, route: str
) -> None:
    upstream.script(Step(status=status, path=ROUTE))
    body: dict[str, Any] = {"model": "one/first", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}
    if route == "/v1/responses":
        body = {"model": "one/first", "input": "x"}
    answer = service.http().post(route, json=body)
    assert answer.status_code == 502
    assert "service's own key" in answer.text and "provider one" in answer.text
    assert answer.headers.get("x-should-retry") == "false"
    assert len(upstream.requests) == 1
    assert service.http().get("/ready").json()["providers"]["one"] == "refused"


def test_a_key_that_was_rotated_in_its_file_takes_effect_without_a_restart(
    make_service: MakeService, upstream: Upstream, tmp_path: Path
) -> None:
    path = tmp_path / "key"
    path.write_text(OPENAI_KEY + "\n")
    models = f'[providers.one]\nkind = "openai"\nkey_file = "{path}"\nbase_url_env = "OPENAI_BASE_URL"\n'
    service = make_service(models=models)
    assert ask(service, "one/gpt-4o-mini").status_code == 200
    upstream.account.keys = {"sk-another-key"}
    assert ask(service, "one/gpt-4o-mini").status_code == 502
    path.write_text("sk-another-key")
    assert ask(service, "one/gpt-4o-mini").status_code == 200
    path.unlink()
    assert ask(service, "one/gpt-4o-mini").status_code == 200


def test_a_key_command_is_asked_again_after_a_401_and_the_same_call_is_answered(
    make_service: MakeService, upstream: Upstream, tmp_path: Path
) -> None:
    path = tmp_path / "key"
    path.write_text(OPENAI_KEY)
    models = f'[providers.one]\nkind = "openai"\nkey_command = ["cat", "{path}"]\nbase_url_env = "OPENAI_BASE_URL"\n'
    service = make_service(models=models)
    assert ask(service, "one/gpt-4o-mini").status_code == 200
    upstream.account.keys = {"sk-another-key"}
    path.write_text("sk-another-key")
    assert ask(service, "one/gpt-4o-mini").status_code == 200
    assert [seen.outcome for seen in upstream.requests] == ["answered", "rejected", "answered"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ('key_file = "/no/such/file"', "the key file /no/such/file cannot be read"),
        ('key_command = ["false"]', "key_command false failed with exit status 1"),
        ('keyless = true\nbase_url = "https://${GONE_MISSING}/v1"', "GONE_MISSING is not set"),
    ],
)
def test_a_wrong_row_stops_the_start_and_the_check_with_the_row_s_name(
    make_service: MakeService, words: str, expected: str
) -> None:
    service = make_service(models=f'[providers.mine]\nkind = "openai"\n{words}\n', start=False)
    with pytest.raises(Exception, match=r"\[providers\.mine\]") as caught:
        service.start()
    assert expected in str(caught.value)
    assert "Traceback" not in service.log_text()
    checked = service.cli("models", "check", check=False)
    assert checked.returncode != 0
    assert "[providers.mine]" in checked.stderr and expected in checked.stderr
    assert "Traceback" not in checked.stderr
