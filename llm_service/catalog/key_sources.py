"""Keys that come from a file or from a command, read once.

Who calls this at the start or in a command waits for it. ``providers.http.credentials`` reads them while calls run.
"""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress

from llm_service.catalog.environment import clean_key, name_of
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
    what = f"{where}: the key file {name_of(path)}"
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(_LARGEST)
    except UnicodeDecodeError:
        raise ValueError(f"{what} is not a text file") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{what} cannot be read: {getattr(error, 'strerror', None) or 'error'}") from None
    return clean_key(what, text)


def run_command(where: str, command: tuple[str, ...], deadline: float = COMMAND_DEADLINE) -> str:
    """What the command prints until it ends. Its error output is not shown, because it may hold a secret."""
    what = f"{where}: key_command {name_of(command[0])}"
    # A pipe of our own, which is read when the command has ended: its children may hold the other end open longer.
    reader, writer = os.pipe()
    try:
        try:
            process = subprocess.Popen(  # noqa: S603 - the operator names the command in the catalogue
                command,
                stdin=subprocess.DEVNULL,
                stdout=writer,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # so that its own children can be ended with it
            )
        except (OSError, ValueError) as error:
            raise ValueError(f"{what} cannot be run: {getattr(error, 'strerror', None) or 'error'}") from None
        finally:
            os.close(writer)
        try:
            status = process.wait(deadline)
        except subprocess.TimeoutExpired:
            raise ValueError(f"{what} did not end within {deadline:g} seconds") from None
        finally:
            _end(process)
        if status != 0:
            raise ValueError(f"{what} failed with exit status {status}")
        return clean_key(f"{what}: its output", _printed(reader).decode("utf-8", "replace"))
    finally:
        os.close(reader)


def _printed(reader: int) -> bytes:
    """What is in the pipe now."""
    os.set_blocking(reader, False)
    with suppress(BlockingIOError):  # nothing, and a child that was not ended in time holds the other end open
        return os.read(reader, _LARGEST)
    return b""


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        process.wait(1)
