"""Addresses of clients, as proxies write them."""

from __future__ import annotations

import pytest

from llm_service.api.client_address import bare, counted


@pytest.mark.parametrize(
    ("written", "address"),
    [
        ("203.0.113.9", "203.0.113.9"),
        (" 203.0.113.9:51234", "203.0.113.9"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("[::ffff:203.0.113.9]:80", "::ffff:203.0.113.9"),
        ("unix:", "unix:"),
        ("", ""),
    ],
)
def test_an_address_has_neither_port_nor_brackets(written: str, address: str) -> None:
    assert bare(written) == address


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("not an address", "not an address"),
        ("", "unknown"),
    ],
)
def test_a_limit_counts_an_ipv4_address_or_an_ipv6_network(address: str, name: str) -> None:
    assert counted(address) == name
