"""A process that runs one task for each line of its input, and prints one line of JSON for each."""

from __future__ import annotations

import json
import select
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import end_with_parent

# Of one task: what every other test has.
TASK_TIMEOUT = 60.0


class LineProcess:
    """One process for many tasks: to load a client's packages takes longer than most tasks."""

    def __init__(self, command: Sequence[str | Path], cwd: Path, environ: Mapping[str, str], errors: Path) -> None:
        self._errors = errors
        with errors.open("wb") as stderr:
            self._process = subprocess.Popen(
                command,
                cwd=cwd,
                env=environ,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                preexec_fn=end_with_parent(),
            )

    def ask(self, **task: str) -> Any:
        """What the process prints for a task, within ``TASK_TIMEOUT``."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        stdin.write(json.dumps(task).encode() + b"\n")
        stdin.flush()
        if not select.select([stdout], [], [], TASK_TIMEOUT)[0]:
            self._process.kill()
            pytest.fail(f"{task} did not end within {TASK_TIMEOUT:.0f} s")
        line = stdout.readline()
        assert line, f"the process ended: {self._errors.read_text()[-2000:]}"
        return json.loads(line)

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        """Close its input, and wait until it has ended by itself."""
        self._process.communicate(timeout=10)
        assert self._process.returncode == 0, self._errors.read_text()[-2000:]
