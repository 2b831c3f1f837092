"""The keys of the vendors: fixed ones, those of a file or a command, and tokens that expire.

A key is called for each request, and asked to ``renew`` after the vendor has refused it. Reading a file or running a
command never blocks the hub and has a deadline. If it fails, the last key that was read is used on.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

from llm_service.catalog import key_sources
from llm_service.core.errors import ServiceError, UpstreamFailed, UpstreamKeyRefused, UpstreamTimeout
from llm_service.core.target import Provider

log = logging.getLogger(__name__)

# While one call fetches a token, the others wait for it at most this long.
FETCH_TIMEOUT = 10.0


# How long a call waits for the file system.
FILE_DEADLINE = 2.0
# A source that hangs, a command that failed and one that gave the refused key again are left alone for this time.
PAUSE = 5.0


class Key(Protocol):
    def __call__(self) -> str:
        """The key for the next request. Raises UpstreamError if there is none."""
        ...

    def renew(self, refused: str) -> bool:
        """The vendor has refused the key ``refused``: whether there is another one now."""
        ...


def key_of(row: Provider) -> Key:
    if row.key is None and (row.key_file is not None or row.key_command):
        return FileKey(row) if row.key_file is not None else CommandKey(row)
    return FixedKey(row.key or "none")  # the SDKs require a key, so a server that needs none gets the word "none"


class FixedKey:
    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self) -> str:
        return self._key

    def renew(self, refused: str) -> bool:
        return False


class NoAnswer(ValueError):
    """The file system did not answer in time."""


class _SourceKey:
    """What the keys of files and commands share: one read at a time, and the pauses between the reads."""

    pause: ClassVar[float] = PAUSE

    def __init__(self, row: Provider, clock: Callable[[], float]) -> None:
        self._row, self._clock = row, clock
        self._key = self._reason = ""
        self._pause_ends = float("-inf")
        self._lock = threading.Lock()

    def _read(self) -> str:
        """The key as it is now. Raises ValueError."""
        raise NotImplementedError

    def _forget(self) -> None:
        """The next ``_read`` must not rely on what is known of the source."""

    def _update(self) -> None:
        """Read the key, unless a pause is on. After a failure the old key stays, and a pause begins."""
        if self._clock() < self._pause_ends:
            return
        try:
            self._key, self._reason = self._read(), ""
        except ValueError as error:
            self._pause_ends = self._clock() + (PAUSE if isinstance(error, NoAnswer) else self.pause)
            if str(error) != self._reason:  # once, and not for each call
                self._reason = str(error)
                log.warning("a provider's key could not be read", extra={"fields": {"reason": self._reason}})

    def _current(self) -> str:
        if not self._key:
            raise UpstreamKeyRefused(
                f"This service could not read its own key for the provider {self._row.name}. The operator must check "
                "the provider's row."
            )
        return self._key

    def renew(self, refused: str) -> bool:
        """Read the key again, unless another call has done so since the refused key was read."""
        with _held(self._lock):
            if self._key == refused:
                self._forget()
                self._update()
                if self._key == refused:
                    self._pause_ends = max(self._pause_ends, self._clock() + self.pause)
        return self._key not in ("", refused)


class FileKey(_SourceKey):
    """The key in a file. It is read again when the file has changed, which each call looks at."""

    pause = 0.0  # a file that is being replaced is soon whole

    def __init__(self, row: Provider, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(row, clock)
        self._path = row.key_file or ""
        self._seen: object = None

    def __call__(self) -> str:
        # One call at a time looks, so that a file system that hangs holds one thread and not many.
        if self._clock() >= self._pause_ends and self._lock.acquire(blocking=not self._key):
            try:
                self._update()
            finally:
                self._lock.release()
        return self._current()

    def _forget(self) -> None:
        self._seen = None

    def _read(self) -> str:
        self._seen, key = off_the_hub(FILE_DEADLINE, _look, self._row, self._path, self._seen)
        return key or self._key


def _look(row: Provider, path: str, seen: object) -> tuple[object, str | None]:
    """What identifies the file's content, and the key if that is not as ``seen``. Raises ValueError."""
    try:
        status = os.stat(path)
        found = status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino
    except OSError:
        found = None
    if found is not None and found == seen:
        return found, None
    return found, key_sources.read_key(row)


class CommandKey(_SourceKey):
    """The key that a command prints. After ``key_seconds`` it is run again, while calls use the old key."""

    def __init__(self, row: Provider, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(row, clock)
        self._old_at = float("-inf")

    def __call__(self) -> str:
        if not self._key:
            with _held(self._lock):
                if not self._key:
                    self._update()
        elif self._clock() >= self._old_at and self._lock.acquire(blocking=False):
            self._old_at = self._clock() + PAUSE
            threading.Thread(target=self._update_and_release, name="key command", daemon=True).start()
        return self._current()

    def _update_and_release(self) -> None:
        try:
            self._update()
        finally:
            self._lock.release()

    def _read(self) -> str:
        # gevent's subprocess waits without blocking the hub.
        key = key_sources.read_key(self._row)
        self._old_at = self._clock() + self._row.key_seconds
        return key


class _held:
    """``with`` a lock, but with a deadline."""

    def __init__(self, lock: Any) -> None:
        self._lock = lock

    def __enter__(self) -> None:
        if not self._lock.acquire(timeout=key_sources.COMMAND_DEADLINE + 5):
            raise UpstreamTimeout("The provider's key did not arrive in time.", code="upstream_connect_timeout")

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def off_the_hub(deadline: float, function: Callable[..., Any], *arguments: Any) -> Any:
    """What ``function`` returns or raises, from a native thread. Raises NoAnswer after ``deadline`` seconds."""
    outcome: list[tuple[Any, BaseException | None]] = []

    def run() -> None:
        try:
            outcome.append((function(*arguments), None))
        except BaseException as error:  # noqa: BLE001 - the caller raises it
            outcome.append((None, error))

    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched("threading"):
        import gevent

        gevent.get_hub().threadpool.spawn(run).wait(deadline)
    else:
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(deadline)
    if not outcome:
        raise NoAnswer("the file system did not answer in time")
    value, error = outcome[0]
    if error is not None:
        raise error
    return value


class ExpiringToken:
    """A token that is replaced ``margin`` seconds before it expires.

    ``fetch()`` returns a token and the seconds for which it is valid; it must have a
    deadline of its own. All calls of a process share the token, and one of them
    fetches the next. ``clock`` returns monotonic seconds.
    """

    def __init__(
        self, fetch: Callable[[], tuple[str, float]], margin: float = 0.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._fetch, self._margin, self._clock = fetch, margin, clock
        self._token, self._replace_at = "", float("-inf")
        self._lock = threading.Lock()

    def __call__(self) -> str:
        """The current token.

        Raises UpstreamFailed if it cannot be fetched, UpstreamTimeout if another call takes too long to fetch it.
        """
        if self._clock() < self._replace_at:
            return self._token
        if not self._lock.acquire(timeout=FETCH_TIMEOUT):
            raise UpstreamTimeout(
                "The provider's access token did not arrive in time.", code="upstream_connect_timeout"
            )
        try:
            if self._clock() >= self._replace_at:
                self._token, seconds = self._fetch_token()
                self._replace_at = self._clock() + max(0.0, seconds - self._margin)
            return self._token
        finally:
            self._lock.release()

    def renew(self, refused: str) -> bool:
        """Fetch another token if ``refused`` is still the current one."""
        if self._token == refused:
            self._replace_at = float("-inf")
        return self() != refused

    def _fetch_token(self) -> tuple[str, float]:
        try:
            return self._fetch()
        except ServiceError:
            raise
        except Exception:  # noqa: BLE001 - whatever it is, its text may contain the token or a secret
            raise UpstreamFailed("This service could not get an access token for the provider.") from None
