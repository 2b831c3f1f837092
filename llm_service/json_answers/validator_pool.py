"""Judging JSON in processes of its own (``child``), so that no answer and no schema can hold up the server.

A judge starts with its first job (half a second) and stays for the next. At most
``MOST`` work at a time per worker, and one stays. They end with the worker: their
socket does. Text goes to them and back over that socket and to no file.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from typing import Any

import orjson

MOST = 4
_WAIT = 5.0
# A judge ends itself sooner; this is for one that never started.
_PATIENCE = 15.0


class Undecided(Exception):
    """There is no verdict: it took too long, or no judge could be had. ``begun``: the job was."""

    def __init__(self, *, begun: bool) -> None:
        super().__init__()
        self.begun = begun


class ValidatorPool:
    def __init__(self, most: int = MOST) -> None:
        self._room = threading.BoundedSemaphore(most)
        self._idle: list[_Judge] = []

    def examine(self, schema: str) -> str | None:
        """Why a schema cannot be checked against, or None. Raises Undecided."""
        unusable: str | None = self._ask({"schema": schema})["unusable"]
        return unusable

    def judge(self, text: str, schema: str | None, *, mend: bool) -> dict[str, Any]:
        """``child.judge``'s verdict. Raises Undecided."""
        return self._ask({"text": text, "schema": schema, "mend": mend})

    def _ask(self, job: dict[str, Any]) -> dict[str, Any]:
        if not self._room.acquire(timeout=_WAIT):
            raise Undecided(begun=False)
        try:
            judge = self._take()
            try:
                verdict = judge.ask(job)
            except BaseException as error:
                judge.close()
                if isinstance(error, OSError | EOFError):
                    raise Undecided(begun=True) from None
                raise
            self._put(judge)
        finally:
            self._room.release()
        if "undecided" in verdict:
            raise Undecided(begun=True)
        return verdict

    def _take(self) -> _Judge:
        while self._idle:
            judge = self._idle.pop()
            if judge.alive:
                return judge
            judge.close()
        try:
            return _Judge()
        except OSError:
            raise Undecided(begun=False) from None

    def _put(self, judge: _Judge) -> None:
        if self._idle:
            judge.close()
        else:
            self._idle.append(judge)

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()


class _Judge:
    __slots__ = ("_process", "_sock")

    def __init__(self) -> None:
        self._sock, theirs = socket.socketpair()
        try:
            self._sock.settimeout(_PATIENCE)
            self._process = subprocess.Popen(
                [sys.executable, "-m", "llm_service.json_answers.validator_process"],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                # What is imported here can be imported there; no key of the operator's goes along.
                env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                start_new_session=True,  # a Ctrl-C is for the server, which still has calls to end
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
        """Raises OSError and EOFError when the judge is gone or says nothing."""
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
