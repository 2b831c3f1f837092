"""Servers that speak OpenAI's API and that nobody here wrote, as upstreams of the service: ``make test-peers``.

They are too large for every run of the tests. Each has an environment of its own under ``build/peers``.
"""
