"""Which limits and budgets a call counts against."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from llm_service.core.limits import Budget, Limits, covers, scope_of, within

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_no_two_scopes_have_the_same_name() -> None:
    names = ["a", "a:b", "a%3Ab", "service", "key:a", "a%", "a%25"]
    scopes = [scope_of(kind, name, model) for kind in ("user", "org") for name in names for model in ("", "m:x")]
    scopes += [
        scope_of(kind, name, model) for kind, name in (("service", ""), ("key", "abcdefgh")) for model in ("", "x")
    ]
    assert len(set(scopes)) == len(scopes)


@pytest.mark.parametrize(
    ("pattern", "provider", "model", "expected"),
    [
        ("", "openai", "anything", True),
        ("openai/*", "openai", "gpt-4o", True),
        ("openai/*", "anthropic", "gpt-4o", False),
        ("gpt-4o", "openai", "gpt-4o", True),
        ("gpt-4o", "openai", "gpt-4o-2024-08-06", True),
        ("gpt-4o", "openai", "gpt-4o-mini", False),
        ("gpt-4o", "openai", "gpt-4o-mini-2024-07-18", False),
        ("openai/gpt-4o", "openai", "gpt-4o-2024-08-06", True),
        ("claude-haiku-4-5", "anthropic", "claude-haiku-4-5-20251001", True),
        ("claude-haiku-4-5-20251001", "anthropic", "claude-haiku-4-5", False),
        ("GPT-4o", "openai", "gpt-4o", False),
    ],
)
def test_a_pattern_covers_a_model_with_and_without_its_date(
    pattern: str, provider: str, model: str, expected: bool
) -> None:
    assert covers(pattern, provider, model) is expected
    budget = Budget("1", "key", "k", pattern, 1, "day", NOW, NOW)
    assert budget.covers(provider, model) is expected


@pytest.mark.parametrize(
    ("address", "network", "expected"),
    [
        ("192.0.2.7", "192.0.2.0/24", True),
        ("192.0.3.7", "192.0.2.0/24", False),
        ("::ffff:192.0.2.7", "192.0.2.0/24", True),
        ("192.0.2.7", "::ffff:192.0.2.0/120", False),
        ("2001:db8::1", "2001:db8::/32", True),
        ("192.0.2.7", "2001:db8::/32", False),
        ("192.0.2.7", "0.0.0.0/0", True),
        ("fe80::1%eth0", "fe80::/10", True),
        ("", "0.0.0.0/0", False),
        ("unix:", "0.0.0.0/0", False),
        ("192.0.2.007", "192.0.2.0/24", False),
        ("192.0.2.7:4711", "192.0.2.0/24", False),
    ],
)
def test_only_an_address_can_be_in_a_network(address: str, network: str, expected: bool) -> None:
    assert within(address, network) is expected


def test_limits_apply_by_address_for_networks_and_by_target_for_models() -> None:
    targets = [("openai", "gpt-4o"), ("anthropic", "claude-haiku-4-5")]
    assert Limits("network", "192.0.2.0/24").applies("192.0.2.1", ())
    assert not Limits("network", "192.0.2.0/24").applies("198.51.100.1", targets)
    assert Limits("model", "claude-*").applies("", targets)  # any target of an alias may serve
    assert not Limits("model", "claude-*").applies("192.0.2.1", targets[:1])
    for kind in ("user", "org", "service"):
        assert Limits(kind, "" if kind == "service" else "x").applies("", ())
