"""A call that the catalogue rejects has a row with everything that is known of it."""

from __future__ import annotations

import pytest

from tests.support.server import Server


@pytest.mark.parametrize(
    ("models", "asked", "ending"),
    [((), "nobody/knows", (404, "model_not_found")), (("echo",), "fast", (403, "model_not_allowed"))],
    ids=["unknown", "forbidden"],
)
def test_a_rejected_model_leaves_a_row_with_the_hash_of_the_prompt(
    any_service: Server, models: tuple[str, ...], asked: str, ending: tuple[int, str]
) -> None:
    key = any_service.create_key(models=models)
    http = any_service.http(key.text)
    prompt = [{"role": "user", "content": "Hi"}]
    served = http.post("/v1/chat/completions", json={"model": "echo", "messages": prompt})
    rejected = http.post("/v1/chat/completions", json={"model": asked, "messages": prompt, "stream": True})
    assert (served.status_code, rejected.status_code) == (200, ending[0])
    row = any_service.row(rejected.headers["x-request-id"])
    assert (row["outcome"], row["status"], row["error_type"]) == ("refused", *ending)
    assert (row["model_asked"], row["stream"], row["attempts"], row["cost_nanousd"]) == (asked, True, 0, 0)
    assert row["prompt_hmac"] == any_service.row(served.headers["x-request-id"])["prompt_hmac"] is not None
