"""The suite. It is a package so that ``python -m tests.upstream`` and shared helpers import by name."""
