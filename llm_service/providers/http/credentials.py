"""Keys that expire: a token is used until shortly before it expires, then a new one is fetched."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from llm_service.core.errors import ServiceError, UpstreamFailed, UpstreamTimeout

# While one call fetches a token, the others wait for it at most this long.
FETCH_TIMEOUT = 10.0


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

    def _fetch_token(self) -> tuple[str, float]:
        try:
            return self._fetch()
        except ServiceError:
            raise
        except Exception:  # noqa: BLE001 - whatever it is, its text may contain the token or a secret
            raise UpstreamFailed("This service could not get an access token for the provider.") from None
