"""llm_service: a self-hosted LLM gateway for WSGI applications.

``create_app`` is handed on lazily so that importing a wire format or a value does
not import Flask, SQLAlchemy and the vendors' SDKs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llm_service.core.version import __version__

if TYPE_CHECKING:
    from llm_service.app import create_app

__all__ = ["__version__", "create_app"]


def __getattr__(name: str) -> Any:
    if name == "create_app":
        from llm_service.app import create_app

        return create_app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
