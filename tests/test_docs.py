"""The documents say what the code does: each list in them is compared with its source, both ways."""

from __future__ import annotations

import ast
import dataclasses
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from flask import Flask

from llm_service import create_app
from llm_service.catalog import model_fields, provider_fields
from llm_service.catalog.catalog import READY
from llm_service.core import errors
from llm_service.core.target import Provider
from llm_service.observability import metrics as telemetry
from llm_service.settings import Settings, documented
from llm_service.store.requests import COLUMNS
from llm_service.store.tables import OUTCOMES

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def document(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def first_cells(text: str, heading: str) -> list[str]:
    """What is in backticks in the first column of the tables below ``heading``."""
    section = re.split(r"^#+ ", text.split(f"# {heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return [word for cell in cells for word in re.findall(r"`([^`]+)`", cell)]


def shown(default: Any) -> str:
    if default is None or default == ():
        return "-"
    if isinstance(default, float):
        return f"`{default:g}`"
    return f"`{default}`"


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Flask:
    return create_app(Settings(instance=tmp_path_factory.mktemp("instance")))


@pytest.mark.parametrize("name", ["README.md", "docs/settings.md"])
def test_the_settings_are_listed_with_their_defaults(name: str) -> None:
    wanted = [f"| `{variable}` | {shown(default)} | {help} |" for variable, default, help in documented()]
    listed = [line for line in document(name).splitlines() if re.match(r"\| `[A-Z_]+` \|", line)]
    assert listed == wanted, "paste this table:\n" + "\n".join(wanted)


def error_classes() -> Iterator[type[errors.ServiceError]]:
    for value in vars(errors).values():
        if isinstance(value, type) and issubclass(value, errors.ServiceError):
            yield value


def codes_given_in_place() -> set[str]:
    """Every ``code=`` that the package gives an error where it raises it, as a pattern: of an f-string the
    variable parts are any word."""
    names = {kind.__name__ for kind in error_classes()}
    found = set()
    for path in (ROOT / "llm_service").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in names:
                found |= {pattern(item.value) for item in node.keywords if item.arg == "code"}
    return found


def pattern(value: ast.expr) -> str:
    pieces = value.values if isinstance(value, ast.JoinedStr) else [value]
    return "".join(str(piece.value) if isinstance(piece, ast.Constant) else "[a-z_]+" for piece in pieces)


def test_every_error_code_is_documented_and_no_other() -> None:
    abstract = {errors.ServiceError, errors.Rejected, errors.UpstreamError}
    patterns = {kind.code for kind in error_classes() if kind not in abstract} | codes_given_in_place()
    listed = first_cells(document("docs/errors.md"), "Codes")
    assert [code for code in listed if not any(re.fullmatch(pattern, code) for pattern in patterns)] == []
    assert [pattern for pattern in patterns if not any(re.fullmatch(pattern, code) for code in listed)] == []


def test_every_error_class_is_in_the_documented_tree() -> None:
    text = document("docs/errors.md")
    assert [kind.__name__ for kind in error_classes() if f"`{kind.__name__}`" not in text] == []


def test_every_route_is_documented_and_no_other(app: Flask) -> None:
    routes = {
        f"{method} " + re.sub(r"<(?:[a-z]+:)?([a-z_]+)>", r"{\1}", rule.rule)
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert set(first_cells(document("docs/api.md"), "Routes")) == routes


def commands(group: click.Group, path: str = "") -> Iterator[tuple[str, click.Command]]:
    with click.Context(group) as context:
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            assert command is not None
            if isinstance(command, click.Group):
                yield from commands(command, f"{path}{name} ")
            else:
                yield f"{path}{name}", command


def our_commands(app: Flask) -> dict[str, click.Command]:
    """Without Flask's own, and of ``db`` only what is ours: the rest is Flask-Migrate's."""
    with app.app_context():
        found = dict(commands(app.cli))
    return {
        name: command
        for name, command in found.items()
        if command.callback is not None and (command.callback.__module__ or "").startswith("llm_service.")
    }


def test_every_command_and_option_is_documented(app: Flask) -> None:
    text = document("docs/cli.md")
    found = our_commands(app)
    headings = set(re.findall(r"^### `([a-z ]+?)(?: [A-Z\[].*)?`$", text, flags=re.MULTILINE))
    assert headings == set(found)
    for name, command in found.items():
        section = re.split(rf"^### `{name}\b", text, maxsplit=1, flags=re.MULTILINE)[1]
        section = re.split(r"^##", section, maxsplit=1, flags=re.MULTILINE)[0]
        options = {option for item in command.params if isinstance(item, click.Option) for option in item.opts}
        assert set(re.findall(r"(?<![\w-])--[a-z]+(?:-[a-z]+)*", section)) | {"--json"} == options | {"--json"}, name


def test_the_log_s_columns_outcomes_and_metrics_are_documented() -> None:
    privacy, operations = document("docs/privacy.md"), document("docs/operations.md")
    assert first_cells(privacy, "The request log") == list(COLUMNS)
    assert set(first_cells(privacy, "Outcomes")) == set(OUTCOMES)
    metrics = re.findall(r"^\| (llm_\w+) \|", telemetry.__doc__ or "", flags=re.MULTILINE)
    assert metrics
    assert first_cells(operations, "Metrics") == metrics


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_local_links_and_named_files_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    assert [link for link in links if link and not (path.parent / link).exists()] == []
    named = re.findall(r"`((?:llm_service|tests|docs|scripts|benchmarks)/[\w./]+)`", text)
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_make_target_that_the_documents_name_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", document("Makefile"), flags=re.MULTILINE))
    named = {target for path in DOCUMENTS for target in re.findall(r"\bmake ([a-z-]+)`", path.read_text())}
    assert named <= targets


def test_the_python_examples_compile() -> None:
    examples = re.findall(r"```python\n(.*?)```", "".join(path.read_text() for path in DOCUMENTS), flags=re.DOTALL)
    assert examples
    for example in examples:
        compile(example, "example", "exec")


def test_the_readme_is_short_enough_to_be_read() -> None:
    assert len(document("README.md").splitlines()) < 300


def test_scripts_are_executable_and_their_shell_parses() -> None:
    for script in (ROOT / ".ci/run", ROOT / "scripts/check_package"):
        assert script.stat().st_mode & 0o111
        assert subprocess.run(["bash", "-n", str(script)]).returncode == 0


def test_every_word_of_a_row_is_documented_and_no_other() -> None:
    text = document("docs/models.md")
    assert sorted(first_cells(text, "Words of a provider")) == sorted(provider_fields.FIELDS)
    assert sorted(first_cells(text, "Words of a model")) == sorted(model_fields.FIELDS)
    own = {"name", "key", "counts_tokens", "own_address", "is_the_vendor", "missing"}
    assert {item.name for item in dataclasses.fields(Provider)} - own <= set(provider_fields.FIELDS)


def test_every_ready_row_has_its_section_with_its_variables_and_the_words_of_its_quirks() -> None:
    text = document("docs/providers.md")
    sections = re.findall(r"^## [^\n]+\n\n- \*\*Row\*\* `([^`]+)`(.*?)(?=^## )", text, re.MULTILINE | re.DOTALL)
    rows = tomllib.loads(READY.read_text(encoding="utf-8"))["providers"]
    assert [name for name, _ in sections] == list(rows)
    quirks = ("key_header", "key_command", "headers", "paths", "drop", "add", "thoughts", "stream_usage", "price_as")
    for name, section in sections:
        row = rows[name]
        variables = {*row.get("needs_env", ()), *([row["key_env"]] if "key_env" in row else ())}
        variables |= {row["base_url_env"]} if "base_url_env" in row else set()
        assert [word for word in variables if word not in section] == [], name
        assert [word for word in quirks if word in row and f"`{word}`" not in section] == [], name
        assert all(f"**{part}:**" in section for part in ("Handled", "How sure")), name
