"""Validates JSON in separate processes (``validator_process``), so that no answer and no schema can block the server.

A process starts with its first job (half a second), and one process stays for the next job. At most
``MAX_PROCESSES`` work at the same time per worker. They end with the worker, because their socket closes. Text goes
to them and back over that socket, and to no file.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from typing import Any

import orjson

MAX_PROCESSES = 4
_WAIT = 5.0
# A process ends itself sooner. This is for one that never started.
_REPLY_TIMEOUT = 15.0


class Undecided(Exception):
    """There is no verdict: it took too long, or there was no process. ``started`` says whether the job was started."""

    def __init__(self, *, started: bool) -> None:
        super().__init__()
        self.started = started


class ValidatorPool:
    def __init__(self, maximum: int = MAX_PROCESSES) -> None:
        self._room = threading.BoundedSemaphore(maximum)
        self._idle: list[_Validator] = []

    def examine(self, schema: str) -> str | None:
        """Why answers cannot be checked with a schema, or None. Raises Undecided."""
        unusable: str | None = self._ask({"schema": schema})["unusable"]
        return unusable

    def validate(self, text: str, schema: str | None, *, repair: bool) -> dict[str, Any]:
        """The verdict of ``validator_process.validate``. Raises Undecided."""
        return self._ask({"text": text, "schema": schema, "repair": repair})

    def _ask(self, job: dict[str, Any]) -> dict[str, Any]:
        if not self._room.acquire(timeout=_WAIT):
            raise Undecided(started=False)
        try:
            validator = self._take()
            try:
                verdict = validator.ask(job)
            except BaseException as error:
                validator.close()
                if isinstance(error, OSError | EOFError):
                    raise Undecided(started=True) from None
                raise
            self._put(validator)
        finally:
            self._room.release()
        if "undecided" in verdict:
            raise Undecided(started=True)
        return verdict

    def _take(self) -> _Validator:
        while self._idle:
            validator = self._idle.pop()
            if validator.alive:
                return validator
            validator.close()
        try:
            return _Validator()
        except OSError:
            raise Undecided(started=False) from None

    def _put(self, validator: _Validator) -> None:
        if self._idle:
            validator.close()
        else:
            self._idle.append(validator)

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()


class _Validator:
    __slots__ = ("_process", "_sock")

    def __init__(self) -> None:
        self._sock, theirs = socket.socketpair()
        try:
            self._sock.settimeout(_REPLY_TIMEOUT)
            self._process = subprocess.Popen(
                [sys.executable, "-m", "llm_service.json_answers.validator_process"],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                # It can import what this process can import, and it gets no secret of the operator.
                env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                start_new_session=True,  # Ctrl-C is for the server, which still has calls to finish
            )
        except BaseException:
            self._sock.close()
            raise
        finally:
            theirs.close()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, job: dict[str, Any]) -> dict[str, Any]:
        """Raises OSError and EOFError if the process is gone or does not reply."""
        sent = orjson.dumps(job)
        self._sock.sendall(len(sent).to_bytes(4, "big") + sent)
        size = int.from_bytes(self._read(4), "big")
        verdict: dict[str, Any] = orjson.loads(self._read(size))
        return verdict

    def _read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            piece = self._sock.recv(min(size - len(data), 1 << 16))
            if not piece:
                raise EOFError
            data += piece
        return bytes(data)

    def close(self) -> None:
        self._sock.close()
        self._process.kill()
        self._process.wait()


VALIDATORS = ValidatorPool()
