"""Keys that come from a file or from a command, read once.

Who calls this at the start or in a command waits for it. ``providers.http.credentials`` reads them while calls run.
"""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress

from llm_service.catalog.environment import clean_key
from llm_service.core.target import Provider

# How long a key command may run, in seconds.
COMMAND_DEADLINE = 10.0
_LARGEST = 64 * 1024


def read_key(row: Provider) -> str:
    """The key of a row with ``key_file`` or ``key_command``. Raises ValueError with the row's name."""
    where = f"[providers.{row.name}]"
    if row.key_file is not None:
        return read_file(where, row.key_file)
    return run_command(where, row.key_command)


def check(row: Provider) -> None:
    """Raises ValueError with the row's name if its key cannot be read now."""
    if row.configured and row.key is None and (row.key_file is not None or row.key_command):
        read_key(row)


def read_file(where: str, path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(_LARGEST)
    except UnicodeDecodeError:
        raise ValueError(f"{where}: the key file {path} is not a text file") from None
    except OSError as error:
        raise ValueError(f"{where}: the key file {path} cannot be read: {error.strerror or 'error'}") from None
    return clean_key(f"{where}: the key file {path}", text)


def run_command(where: str, command: tuple[str, ...], deadline: float = COMMAND_DEADLINE) -> str:
    """What the command prints. Its error output is not shown, because it may hold a secret."""
    what = f"{where}: key_command {command[0]}"
    try:
        process = subprocess.Popen(  # noqa: S603 - the operator names the command in the catalogue
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # so that its own children can be ended with it: they may hold its output open
        )
    except (OSError, ValueError) as error:
        raise ValueError(f"{what} cannot be run: {getattr(error, 'strerror', None) or 'error'}") from None
    try:
        output, _ = process.communicate(timeout=deadline)
    except subprocess.TimeoutExpired:
        raise ValueError(f"{what} did not end within {deadline:g} seconds") from None
    finally:
        _end(process)
    if process.returncode != 0:
        raise ValueError(f"{what} failed with exit status {process.returncode}")
    return clean_key(f"{what}: its output", output[:_LARGEST].decode("utf-8", "replace"))


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        process.wait(1)
    if process.stdout is not None:
        process.stdout.close()
