"""llm_service: a self-hosted LLM gateway for WSGI applications.

``create_app`` is handed on lazily so that importing a dialect or a value does
not import Flask, SQLAlchemy and the vendors' SDKs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llm_service.app import create_app

__all__ = ["__version__", "create_app"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "create_app":
        from llm_service.app import create_app

        return create_app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
