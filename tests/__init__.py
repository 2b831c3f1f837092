"""The test suite. It is a package so that ``python -m tests.upstream`` works and tests can import shared helpers."""
