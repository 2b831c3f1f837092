"""The image and the composition, checked without a container engine.

The last stage of the Dockerfile is replayed into a folder and its own command
and health check are run there, so a file that is not copied fails here.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from llm_service.settings import Settings, documented

ROOT = Path(__file__).parent.parent
SETTINGS = {name for name, _, _ in documented()}
# Of the base image's programs, not of the service.
FOREIGN = {"PATH", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "FLASK_APP"}
SECRET = "0123456789abcdef" * 2
Instruction = tuple[str, str]


def dockerfile() -> list[list[Instruction]]:
    """The instructions of each stage: (word, arguments), continuation lines joined."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    stages: list[list[Instruction]] = []
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        if line.strip():
            word, _, arguments = line.strip().partition(" ")
            if word == "FROM":
                stages.append([])
            stages[-1].append((word, arguments.strip()))
    return stages


def last(word: str) -> str:
    return [arguments for name, arguments in dockerfile()[-1] if name == word][-1]


def environment() -> dict[str, str]:
    pairs = (pair for word, text in dockerfile()[-1] if word == "ENV" for pair in text.split())
    return dict(pair.split("=", 1) for pair in pairs)


def copied(stage: list[Instruction], from_stage: bool) -> list[tuple[str, str]]:
    """(source, destination) of its COPY lines, of those with or without --from."""
    found = []
    for word, arguments in stage:
        if word == "COPY" and ("--from" in arguments) is from_stage:
            *sources, target = [item for item in arguments.split() if not item.startswith("--")]
            found += [(source, target) for source in sources]
    return found


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return loaded


def interpolated() -> dict[str, str]:
    """Every ${NAME...} of the composition, with what follows the name."""
    return dict(re.findall(r"\$\{(\w+)([^}]*)\}", (ROOT / "docker-compose.yml").read_text()))


def test_the_image_runs_as_a_fixed_user_that_is_not_root() -> None:
    user, _, group = last("USER").partition(":")
    assert int(user) > 0
    assert int(group) > 0
    # nothing after USER needs root, and /data was given to that user before
    assert [word for word, _ in dockerfile()[-1]].index("USER") < [word for word, _ in dockerfile()[-1]].index("CMD")


def test_every_base_image_is_pinned_by_a_tag() -> None:
    images = [stage[0][1].split(" AS ")[0] for stage in dockerfile()]
    images += [service["image"] for name, service in compose()["services"].items() if name != "service"]
    assert [image for image in images if not re.search(r":[\d.]+", image)] == []


def test_nothing_is_compiled_and_no_hash_is_skipped_in_the_image() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert "PIP_ONLY_BINARY=:all:" in text
    assert not re.search(r"apt-get|gcc|build-essential", text)
    assert "--require-hashes" in (ROOT / "scripts/install.py").read_text()


def test_the_build_context_holds_what_is_copied_and_nothing_private() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    admitted = {rule[1:] for rule in rules if rule.startswith("!")}
    wanted = {source.rstrip("/") for stage in dockerfile() for source, _ in copied(stage, from_stage=False)}
    assert wanted == admitted
    for private in (".env", "instance/secret", ".git/config"):
        assert not any(fnmatch.fnmatch(private, pattern) for pattern in admitted)


def test_the_port_is_the_same_everywhere() -> None:
    port = str(Settings().port)
    assert environment()["PORT"] == last("EXPOSE") == port
    assert compose()["services"]["service"]["ports"] == [f"${{LISTEN:-127.0.0.1:{port}}}:{port}"]


def test_the_state_folder_of_the_image_is_its_volume() -> None:
    assert json.loads(last("VOLUME")) == [environment()["LLM_SERVICE_INSTANCE"]]
    volumes = compose()["services"]["service"]["volumes"]
    assert [volume.partition(":")[2] for volume in volumes] == [environment()["LLM_SERVICE_INSTANCE"]]


def test_the_files_set_only_settings_that_exist() -> None:
    assert set(environment()) - FOREIGN <= SETTINGS
    assert set(compose()["services"]["service"]["environment"]) <= SETTINGS


def test_no_secret_has_a_value_in_the_files() -> None:
    for name, rest in interpolated().items():
        if "PASSWORD" in name or "SECRET" in name:
            assert rest.startswith(":?"), name
        elif name.endswith("_KEY"):
            assert rest == ":-", name
    example = dict(
        line.split("=", 1)
        for line in (ROOT / ".env.example").read_text().splitlines()
        if line and not line.startswith("#")
    )
    assert set(example) == set(interpolated())
    assert [name for name in example if re.search("PASSWORD|SECRET|KEY", name) and example[name]] == []


def test_the_service_starts_after_its_healthy_neighbours_and_may_finish_its_streams() -> None:
    services = compose()["services"]
    service = services["service"]
    others = set(services) - {"service"}
    assert service["depends_on"] == {name: {"condition": "service_healthy"} for name in others}
    for name in others:
        assert services[name]["healthcheck"]["test"][0] == "CMD", name
    grace = int(service["stop_grace_period"].removesuffix("s"))
    assert grace > int(service["environment"]["LLM_SERVICE_GRACEFUL_TIMEOUT"])


def test_every_volume_is_declared_and_postgres_keeps_its_data_where_18_puts_it() -> None:
    loaded = compose()
    used = [volume.split(":") for service in loaded["services"].values() for volume in service["volumes"]]
    assert {name for name, _ in used} == set(loaded["volumes"])
    assert loaded["services"]["postgres"]["image"].startswith("postgres:18")
    assert loaded["services"]["postgres"]["volumes"] == ["postgres:/var/lib/postgresql"]


def filled_in(match: re.Match[str]) -> str:
    """As compose does: the default after ``:-``; where ``:?`` asks for one, a value."""
    rest = match.group(1)
    return SECRET if rest.startswith(":?") else rest.removeprefix(":-")


def test_the_composition_gives_urls_that_the_settings_accept() -> None:
    given = compose()["services"]["service"]["environment"]
    environ = {name: re.sub(r"\$\{\w+([^}]*)\}", filled_in, text) for name, text in given.items()}
    settings = Settings.load(environ)
    assert settings.database_url is not None
    assert settings.database_url.startswith("postgresql+psycopg://llm_service:")
    assert settings.redis_url == "redis://redis:6379/0"
    assert settings.anthropic_api_key is None
    assert settings.hmac_key == SECRET.encode()


def replay_last_stage(folder: Path) -> None:
    """Put the COPY lines' files where the image has them, except .venv: this Python stands in for it."""
    for source, target in copied(dockerfile()[-1], from_stage=False):
        shutil.copy(ROOT / source, folder / target)
    for source, target in copied(dockerfile()[-1], from_stage=True):
        if ".venv" not in source:
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / source.removeprefix("/app/"), folder / target, ignore=ignore)


@pytest.mark.timeout(90)
def test_the_image_s_files_serve_and_its_health_check_passes(tmp_path: Path) -> None:
    app, data = tmp_path / "app", tmp_path / "data"
    app.mkdir()
    replay_last_stage(app)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    environ = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    environ |= environment() | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environ |= {"PORT": port, "HOST": "127.0.0.1", "WEB_CONCURRENCY": "1", "LLM_SERVICE_INSTANCE": str(data)}
    server = subprocess.Popen(
        json.loads(last("CMD")), cwd=app, env=environ, stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        check = json.loads(last("HEALTHCHECK").partition("CMD")[2])
        deadline = time.monotonic() + 60
        # The check asks the container itself, so a proxy of the environment must not be asked:
        # nobody listens on port 9.
        environ |= {"HTTP_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}
        while subprocess.run(check, cwd=app, env=environ, stderr=subprocess.DEVNULL).returncode != 0:
            assert server.poll() is None, "the server ended"
            assert time.monotonic() < deadline
            time.sleep(0.2)
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0
        assert subprocess.run(check, cwd=app, env=environ, stderr=subprocess.DEVNULL).returncode != 0
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
