"""Which wing may import which, and that nothing is open by omission. Each rule has its reason.

CONTRIBUTING.md prints the table ``WINGS``; a test compares the two.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_service.formats import registry

PROJECT = Path(__file__).parent.parent
ROOT = PROJECT / "llm_service"
FRAMEWORKS = {"flask", "sqlalchemy", "flask_sqlalchemy", "flask_limiter", "redis", "limits", "alembic"}
SDKS = {"anthropic", "openai", "httpx2"}

# A wing is a folder of the package, or a file beside the folders. Each may import the wings listed, and itself.
WINGS: dict[str, tuple[tuple[str, ...], str]] = {
    "core": ((), "values: everybody imports them, so they import nothing of ours"),
    "settings": (("core",), "every setting is read in one place, before anything else is built"),
    "extensions": ((), "unbound objects: they are bound in app"),
    "catalog": (("core", "settings"), "reads models.toml into values of core"),
    "formats": (("core",), "wire formats are pure: they can be tested and reused without a server"),
    "store": (("core", "settings", "extensions", "catalog"), "may serve a dashboard or a command without the gateway"),
    "observability": (("core",), "records calls; what it writes to is given to it"),
    "providers": (("core", "catalog", "formats", "observability"), "ask a vendor in its format; scrub its errors"),
    "json_answers": (("core", "formats"), "checks answers in whichever format they are"),
    "billing": (
        ("core", "settings", "catalog", "formats", "store", "observability", "providers"),
        "holds and settles calls; webhooks go out by the transport of providers",
    ),
    "gateway": (("core", "billing", "json_answers", "observability", "providers"), "the path of a call"),
    "service": (
        ("core", "settings", "catalog", "store", "observability", "billing", "gateway"),
        "the running parts and their end",
    ),
    "api": (
        ("core", "extensions", "catalog", "formats", "store", "observability", "json_answers", "billing", "service"),
        "the HTTP edge: it asks the gateway through service and never an SDK",
    ),
    "cli": (("core", "settings", "extensions", "catalog", "store"), "commands read and write the store"),
    "server": (
        ("core", "settings", "extensions", "catalog", "store", "providers"),
        "starts and stops processes around the application",
    ),
    "app": (
        (
            "settings", "catalog", "formats", "store", "observability", "providers",
            "billing", "gateway", "service", "api", "cli", "server",
        ),
        "the inventory: only it imports api and cli",
    ),
}  # fmt: skip


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(PROJECT).with_suffix("").parts
        if "migrations" not in parts:
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


def imports_of_ours(path: Path, known: dict[str, Path]) -> Iterator[str]:
    """The modules of ours that ``path`` imports, at its top and inside, for type checking too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("llm_service."))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("llm_service"):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in known else node.module or ""


def wing_of(module: str) -> str:
    """The name of the wing, "" for the package's own ``__init__``."""
    return module.split(".")[1] if "." in module else ""


def test_every_file_belongs_to_a_wing() -> None:
    assert {wing_of(module) for module in modules()} - {""} == set(WINGS)


@pytest.mark.parametrize("wing", WINGS)
def test_a_wing_imports_only_the_wings_of_its_row(wing: str) -> None:
    known = modules()
    allowed = {*WINGS[wing][0], wing, ""}  # the package's own __init__ holds the version
    offences = [
        f"{module}: {name}"
        for module, path in known.items()
        if wing_of(module) == wing
        for name in imports_of_ours(path, known)
        if wing_of(name) not in allowed
    ]
    assert offences == [], WINGS[wing][1]


def test_no_row_of_the_table_is_wider_than_the_code() -> None:
    known = modules()
    used: dict[str, set[str]] = {wing: set() for wing in WINGS}
    for module, path in known.items():
        if wing_of(module):
            used[wing_of(module)] |= {wing_of(name) for name in imports_of_ours(path, known)} - {""}
    unused = {wing: set(allowed) - used[wing] for wing, (allowed, _) in WINGS.items()}
    assert {wing: names for wing, names in unused.items() if names} == {}


def test_wings_and_modules_import_each_other_in_no_circle() -> None:
    known = modules()
    edges = {module: set(imports_of_ours(path, known)) - {module} for module, path in known.items()}
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " -> ".join([*way[way.index(module) :], module])
        if module not in done:
            for name in sorted(edges.get(module, ())):
                visit(name, (*way, module))
            done.add(module)

    for module in known:
        visit(module, ())


def test_contributing_prints_the_table() -> None:
    printed = "\n".join(
        f"| `{wing}` | {', '.join(f'`{name}`' for name in allowed) or '-'} | {reason} |"
        for wing, (allowed, reason) in WINGS.items()
    )
    assert printed in (PROJECT / "CONTRIBUTING.md").read_text(encoding="utf-8"), printed


def foreign_imports(path: Path) -> Iterator[str]:
    """The top-level names of the packages of others that ``path`` imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]


def files(*patterns: str) -> list[Path]:
    return sorted(path for pattern in patterns for path in ROOT.glob(pattern))


PACKAGES = {
    "values know no framework": (files("core/*.py"), FRAMEWORKS | SDKS),
    "formats do no I/O, have no clock and know no framework": (
        files("formats/**/*.py"),
        FRAMEWORKS | SDKS | {"socket", "gevent", "time", "threading", "os"},
    ),
    "the edge knows no SDK: a vendor is a provider's business": (files("api/**/*.py", "cli/*.py"), SDKS),
    "within the edge only Flask-Limiter's file knows Redis": (
        [path for path in files("api/**/*.py") if path.name != "limits.py"],
        {"limits", "redis"},
    ),
    "providers know no framework: they answer calls, not requests": (files("providers/**/*.py"), FRAMEWORKS),
    "the gateway knows no framework": (files("gateway.py"), FRAMEWORKS | SDKS),
    "the store knows no vendor": (files("store/**/*.py"), SDKS),
}


@pytest.mark.parametrize("reason", PACKAGES)
def test_packages_of_others_stay_where_they_belong(reason: str) -> None:
    paths, forbidden = PACKAGES[reason]
    assert paths
    offences = [f"{path.relative_to(ROOT)}: {name}" for path in paths for name in {*foreign_imports(path)} & forbidden]
    assert offences == [], reason


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


# The catalogue's rows say which formats a provider speaks, and its own rows are in this file.
ROWS_OF_FORMATS = {"catalog/provider_fields.py"}
# Names of formats that are also names of fields, so that a dictionary may have one of them as a key.
FIELD_NAMES = {"completions", "embeddings", "input_tokens", "messages", "responses"}


def uses_of_format_names(source: str) -> list[str]:
    """The lines of ``source`` that compare a format's name, or look something up by it."""
    names = set(registry.NAMES)
    found = []

    def is_name(node: ast.expr | None) -> bool:
        """A format's name as text, or what holds it: ``call.format``, ``chat.NAME``, ``record.dialect``."""
        if isinstance(node, ast.Constant):
            return node.value in names
        return isinstance(node, ast.Attribute) and node.attr in {"format", "dialect", "NAME"}

    def is_text(node: ast.expr | None) -> bool:
        return isinstance(node, ast.Constant) and node.value in names

    def is_key(node: ast.expr | None) -> bool:
        return is_name(node) and not (isinstance(node, ast.Constant) and node.value in FIELD_NAMES)

    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Compare(left=left, ops=[ast.Eq() | ast.NotEq()], comparators=right):
                wrong = any(is_name(item) for item in (left, *right))
            case ast.Compare(left=left, comparators=right):
                wrong = any(is_text(item) for each in (left, *right) for item in getattr(each, "elts", [each]))
            case ast.MatchValue(value=value):
                wrong = is_name(value)
            case ast.Subscript(slice=key, ctx=ast.Load()) | ast.Call(func=ast.Attribute(attr="get"), args=[key, *_]):
                wrong = is_key(key)
            case ast.Dict(keys=keys):
                wrong = any(map(is_key, keys)) or len([key for key in keys if is_text(key)]) > 1
            case ast.Tuple(elts=items) | ast.List(elts=items) | ast.Set(elts=items):
                wrong = any(is_key(item) and is_text(item) for item in items) and len(items) > 1
            case ast.Attribute(attr=name) | ast.Name(id=name):
                wrong = name in {"BY_NAME", "_BY_NAME"}
            case _:
                continue
        if wrong and isinstance(node, (ast.expr, ast.pattern)):
            found.append(f"{node.lineno}: {ast.unparse(node)}")
    return found


def test_only_formats_compares_a_formats_name() -> None:
    offences = {
        str(path.relative_to(ROOT)): uses
        for path in ROOT.rglob("*.py")
        if not {"formats", "migrations"} & set(path.relative_to(ROOT).parts)
        if str(path.relative_to(ROOT)) not in ROWS_OF_FORMATS
        if (uses := uses_of_format_names(path.read_text(encoding="utf-8")))
    }
    assert offences == {}, "ask the format: registry.format_of(call)"


@pytest.mark.parametrize(
    "planted",
    [
        'if name == "chat": ...',
        'if call.format in ("messages",): ...',
        "if call.format == chat.NAME: ...",
        'match name:\n    case "responses": ...',
        'match call:\n    case Call(format="simple"): ...',
        'LIMITS = {"chat": 1}',
        'LIMITS = {"messages": 1, "completions": 2}',
        "x = LIMITS[call.format]",
        "x = LIMITS.get(call.format, 1)",
        'x = LIMITS["count_tokens"]',
        'NAMES = ("simple", "chat")',
        "x = registry.BY_NAME",
    ],
)
def test_a_comparison_of_a_formats_name_is_found(planted: str) -> None:
    assert uses_of_format_names(planted)


@pytest.mark.parametrize(
    "innocent",
    [
        'x = {"input_tokens": 1, "output_tokens": 2}',
        'x = body["messages"]',
        "x = registry.format_of(call)",
        'x = {"vendor": lane.format.NAME}',
        "if format.ERROR_TYPE == problem: ...",
        "known = record.dialect in self._formats",
    ],
)
def test_a_field_that_has_a_formats_name_is_no_offence(innocent: str) -> None:
    assert uses_of_format_names(innocent) == []
