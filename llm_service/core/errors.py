"""Every way a call can fail, as values of one tree.

    ServiceError
    ├── Rejected                     nothing was sent upstream
    │   ├── InvalidRequest          400  names the field
    │   │   └── UnsupportedParameter 400  valid elsewhere, not expressible on this route or model
    │   ├── Unauthenticated         401
    │   ├── BudgetExceeded          402  names the limit
    │   ├── Forbidden               403
    │   ├── NotFound                404  no such route or object
    │   │   └── ModelNotFound       404
    │   ├── MethodNotAllowed        405
    │   ├── PayloadTooLarge         413
    │   ├── UnsupportedMediaType    415
    │   ├── RateLimited             429  names the limit
    │   └── Unavailable             503  a part this call needs is down
    │       └── Stopping            503  the worker is draining
    ├── UpstreamError               the vendor was asked
    │   ├── UpstreamRejected        4xx  the vendor rejected this very request: repeating it cannot help
    │   │   ├── UpstreamContextExceeded 400  it is longer than the model's context window
    │   │   ├── UpstreamContentRejected 400  its content is against the vendor's policy
    │   │   └── UpstreamTooLarge    413  its body is larger than the vendor accepts
    │   ├── UpstreamKeyRefused      502  the vendor refused this service's own key: the operator must look at it
    │   ├── UpstreamRateLimited     429
    │   │   └── UpstreamQuotaExhausted 429  the operator's account is out of credit: waiting cannot help
    │   ├── UpstreamOverloaded      503
    │   ├── UpstreamFailed          502
    │   ├── UpstreamUnreachable     502
    │   ├── UpstreamTimeout         504
    │   ├── UpstreamBroken          502  the answer was cut or malformed
    │   └── InvalidJsonAnswer       502  the answer is not the JSON that was asked for
    ├── ClientClosed                499  the client disconnected
    └── InternalError               500  a defect of ours

The core raises these errors. Each format's ``error`` converts them into its own shape, and the edge sends that shape
with ``status``. No code below the edge knows an HTTP framework.

Privacy: ``message`` is our own text or has passed ``scrub.vendor_message``. It never holds a prompt, a completion, a
key or an upstream URL.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from llm_service.core.usage import Usage


class ServiceError(Exception):
    """A call failed.

    Attributes:
        message: one sentence for the caller, free of content.
        code: stable machine-readable name (documented in docs/errors.md).
        status: HTTP status.
        param: path of the offending field, e.g. ``messages[2].content``, or None.
        retry_after: whole seconds to wait, or None.
        helps_elsewhere: whether another attempt or target may succeed.
        is_final: whether it is useless that the caller sends the same request again by itself.
        vendor: ``{"format", "status", "type", "code", "request_id"}`` of the upstream's own error, if there was one.
            Every value is an identifier, never text.
        usage: what the vendor had reported before its answer failed, or None.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    outcome: ClassVar[str] = "refused"
    helps_elsewhere: bool = False
    is_final: bool = False
    usage: Usage | None = None

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        status: int | None = None,
        retry_after: int | None = None,
        limit: Limit | None = None,
        vendor: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        if code is not None:
            self.code = code  # type: ignore[misc]
        if status is not None:
            self.status = status  # type: ignore[misc]
        self.retry_after = retry_after
        self.limit = limit
        self.vendor = vendor or {}
        self.headers = headers or {}


class Limit:
    """The limit that rejected a call, or that is nearest to it, for headers and the log.

    ``name`` is e.g. ``requests``, and ``scope`` e.g. ``key`` or ``ip``. ``quota`` is per ``window`` seconds,
    ``remaining`` is what is left now, and ``reset`` is in whole seconds from now. The quota of a ``budget`` is in
    nano-dollars, that of ``parallel`` in calls; both have ``window`` 0. ``reset`` is 0 for a budget that never renews.
    """

    __slots__ = ("name", "quota", "remaining", "reset", "scope", "window")

    def __init__(self, name: str, scope: str, quota: int, window: int, remaining: int, reset: int):
        self.name, self.scope = name, scope
        self.quota, self.window = quota, window
        self.remaining, self.reset = remaining, reset


class Rejected(ServiceError):
    """Nothing was sent upstream."""

    is_final = True


class InvalidRequest(Rejected):
    status, code = 400, "invalid_request"


class UnsupportedParameter(InvalidRequest):
    code = "unsupported_parameter"


class Unauthenticated(Rejected):
    status, code = 401, "invalid_api_key"


class BudgetExceeded(Rejected):
    status, code = 402, "budget_exceeded"


class Forbidden(Rejected):
    status, code = 403, "forbidden"


class NotFound(Rejected):
    status, code = 404, "not_found"


class ModelNotFound(NotFound):
    code = "model_not_found"


class MethodNotAllowed(Rejected):
    status, code = 405, "method_not_allowed"


class PayloadTooLarge(Rejected):
    status, code = 413, "request_too_large"


class UnsupportedMediaType(Rejected):
    status, code = 415, "unsupported_media_type"


class RateLimited(Rejected):
    """It is final only if this call alone is larger than the limit."""

    status, code = 429, "rate_limit_exceeded"
    is_final = False


class Unavailable(Rejected):
    status, code = 503, "unavailable"
    is_final = False


class Stopping(Unavailable):
    """The worker is draining. Streams that are still open at its deadline end with this error."""

    code, outcome = "service_stopping", "aborted"


class UpstreamError(ServiceError):
    """The vendor was asked. It is final for the caller, because this service has tried again already."""

    status, code, outcome = 502, "upstream_error", "upstream_error"
    helps_elsewhere = True
    is_final = True


class UpstreamRejected(UpstreamError):
    status, code = 400, "upstream_rejected"
    helps_elsewhere = False


class UpstreamContextExceeded(UpstreamRejected):
    """The input, or the input and the output limit together, are longer than the model's context window.

    The numbers are those of the vendor's sentence, in tokens; None if it has none. ``excess`` says what they prove to
    be too long: the ``input`` alone, the ``sum`` of both, or None.
    """

    code = "context_length_exceeded"

    def __init__(
        self,
        *,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        maximum: int | None = None,
        **others: Any,
    ) -> None:
        self.input_tokens, self.output_tokens, self.maximum = input_tokens, output_tokens, maximum
        self.excess: str | None = None
        window = f"the model's context window of {maximum} tokens" if maximum else "the model's context window"
        sentence = f"The request is longer than {window}. Send a shorter one."
        if input_tokens is not None and maximum is not None:
            if input_tokens > maximum:
                self.excess = "input"
                sentence = f"The request has {input_tokens} tokens, more than {window}. Send a shorter one."
            elif output_tokens is not None and input_tokens + output_tokens > maximum:
                self.excess = "sum"
                sentence = (
                    f"The request has {input_tokens} tokens and asks for {output_tokens}. Together that is more than "
                    f"{window}. Send a shorter one, or ask for fewer tokens."
                )
        super().__init__(sentence, **others)


class UpstreamContentRejected(UpstreamRejected):
    code = "content_policy_violation"


class UpstreamTooLarge(UpstreamRejected):
    status, code = 413, "upstream_too_large"


class UpstreamKeyRefused(UpstreamError):
    """It is not the caller's fault, so the next target of an alias is asked."""

    status, code = 502, "upstream_authentication"


class UpstreamRateLimited(UpstreamError):
    status, code = 429, "upstream_rate_limited"


class UpstreamQuotaExhausted(UpstreamRateLimited):
    code = "upstream_quota_exhausted"


class UpstreamOverloaded(UpstreamError):
    status, code = 503, "upstream_overloaded"


class UpstreamFailed(UpstreamError):
    status, code = 502, "upstream_failed"


class UpstreamUnreachable(UpstreamError):
    status, code = 502, "upstream_unreachable"


class UpstreamTimeout(UpstreamError):
    status, code, outcome = 504, "upstream_timeout", "timeout"


class UpstreamBroken(UpstreamError):
    """The answer ended before its terminal event, or was not in the vendor's format."""

    status, code = 502, "upstream_broken"


class InvalidJsonAnswer(UpstreamError):
    """The answer was checked because the caller wants that, and asked for again if the caller wants that too."""

    status, code = 502, "invalid_json_answer"
    helps_elsewhere = False


class ClientClosed(ServiceError):
    status, code, outcome = 499, "client_closed", "client_closed"


class InternalError(ServiceError):
    status, code, outcome = 500, "internal_error", "aborted"
