"""Who may import whom, and that nothing is open by omission. Each rule with its reason."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "llm_service"
FRAMEWORKS = {"flask", "sqlalchemy", "flask_sqlalchemy", "flask_limiter", "redis", "limits", "alembic"}
SDKS = {"anthropic", "openai", "httpx2"}


def imports(path: Path) -> Iterator[str]:
    """Top-level and inner imports alike; ``llm_service.x`` for ours, the top name for others."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            yield ".".join(name.split(".")[:2]) if name.startswith("llm_service") else name.split(".")[0]


def files(*patterns: str) -> list[Path]:
    return sorted(path for pattern in patterns for path in ROOT.glob(pattern))


def offences(paths: list[Path], forbidden: set[str]) -> list[str]:
    assert paths
    return [f"{path.relative_to(ROOT)}: {name}" for path in paths for name in sorted(set(imports(path)) & forbidden)]


def ours(*names: str) -> set[str]:
    return {f"llm_service.{name}" for name in names}


RULES = {
    "formats are pure: formats can be tested and reused without a server": (
        files("formats/**/*.py"),
        FRAMEWORKS
        | SDKS
        | {"time", "socket", "os", "threading", "gevent"}
        | ours("api", "gateway", "providers", "observability", "store", "settings", "service", "app", "extensions"),
    ),
    "values know nothing of ours but each other": (
        files("core/*.py"),
        FRAMEWORKS | SDKS | ours("api", "gateway", "providers", "observability", "store", "settings", "formats"),
    ),
    "settings and extensions import nothing of ours: everybody imports them": (
        files("settings.py", "extensions.py"),
        ours("api", "gateway", "providers", "observability", "store", "formats", "catalog", "service", "app"),
    ),
    "the edge knows no SDK: a vendor is a provider's business": (files("api/*.py"), SDKS),
    "providers know no framework: they answer calls, not requests": (
        files("providers/*.py"),
        FRAMEWORKS | ours("api", "store", "service", "app", "extensions"),
    ),
    "routing and gateway know no framework": (
        files("providers/routing.py", "gateway.py"),
        FRAMEWORKS | SDKS | ours("api", "service", "app", "extensions"),
    ),
    "the store is a leaf: it may serve a dashboard or a command without the gateway": (
        files("store/*.py"),
        SDKS | ours("api", "gateway", "providers", "formats", "service", "app"),
    ),
}


@pytest.mark.parametrize("reason", RULES)
def test_imports_follow_the_architecture(reason: str) -> None:
    paths, forbidden = RULES[reason]
    assert offences(paths, forbidden) == [], reason


def test_only_the_factory_imports_the_edge() -> None:
    outside = [path for path in ROOT.rglob("*.py") if path.parent.name != "api" and path.name != "app.py"]
    assert offences(outside, ours("api")) == []


def test_only_settings_reads_the_environment() -> None:
    readers = []
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv"}:
                if isinstance(node.value, ast.Name) and node.value.id == "os":
                    readers.append(path.name)
    assert set(readers) <= {"settings.py"}


def test_files_and_functions_stay_small_or_say_why() -> None:
    long = []
    for path in ROOT.rglob("*.py"):
        if "migrations" in path.parts:  # a table's columns are one list, however many there are
            continue
        text = path.read_text(encoding="utf-8")
        if len(text.splitlines()) > 400:
            long.append(f"{path.relative_to(ROOT)}: {len(text.splitlines())} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and node.end_lineno and node.end_lineno - node.lineno >= 50:
                long.append(f"{path.relative_to(ROOT)}: {node.name} has {node.end_lineno - node.lineno + 1} lines")
    assert long == []
