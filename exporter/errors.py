"""Every error this package raises on purpose.

    ExporterError
    ├── ConfigError            the configuration can't be used; carries every problem with its path
    ├── StartupError           the machine refuses: port in use, unwritable path
    ├── StoreError             the store doesn't answer, or refuses
    │   ├── NoStoreError       there is none at the place where one was looked for
    │   ├── StorePlaceError    it has no place, or one that must not be used without a person's word
    │   ├── StoreReplacedError another one is at the place of the one that this process opened, or none
    │   └── StoreVersionError  it was written by another version of this program
    └── ApiError               a request to the Vocobase API did not give an answer we can use
        ├── NotSentError       nothing reached the API
        │   ├── ConnectError   name not found, refused, TLS
        │   ├── QuotaError     our own budget or the vendor's pause left no room in time
        │   └── LeaseExpiredError  a claim was too old when its request was about to leave
        ├── ApiTimeoutError    no answer in time; the API may have acted
        ├── BrokenAnswerError  the connection ended before the answer did; the API may have acted
        ├── BadResponseError   an answer that isn't what the API documents
        │   └── TooLargeError  longer than `api.max_response_bytes`
        └── RejectedError      an answer with an error status
            ├── ValidationError    400, 422
            ├── AuthError          401
            ├── ForbiddenError     403
            ├── NotFoundError      404
            ├── ConflictError      409
            ├── RateLimitedError   429
            ├── RedirectError      3xx, never followed
            └── ServerError        5xx

An error's text is for people and may be logged: it never holds the API key, a request header or a piece of an answer's
body, except the API's own short `error.code`, and that only when it looks like a code.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence


class Reason(StrEnum):
    """Why a poll failed: the `reason` label of `voicelink_poll_failures_total`."""

    AUTH = "auth"
    FORBIDDEN = "forbidden"
    VALIDATION = "validation"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    RATE_LIMITED = "rate_limited"
    SERVER_ERROR = "server_error"
    TIMEOUT = "timeout"
    CONNECT = "connect"
    BAD_RESPONSE = "bad_response"
    TOO_LARGE = "too_large"
    OTHER = "other"


class ExporterError(Exception):
    """Base of all errors of this package; `str()` is a sentence for the operator."""


class ConfigError(ExporterError):
    """The configuration can't be used.

    `problems` are lines of the form `path.to.key: what is wrong`, all that were found.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class StartupError(ExporterError):
    """The machine refuses what the configuration asks for, as a port that is in use."""


class StoreError(ExporterError):
    """The store doesn't answer, or refuses. Monitoring goes on; healing stops until it answers again.

    Of the errors below it, the text says what a person has to do.
    """


class NoStoreError(StoreError):
    """There is no store at the place where one was looked for."""


class StorePlaceError(StoreError):
    """The store has no place where it can be, or one that must not be used before a person has decided."""


class StoreReplacedError(StoreError):
    """Another store is at the place of the one that this process opened, or none: it is down until a person acts."""


class StoreVersionError(StoreError):
    """The store was written by another version of this program: a newer one, or one that has to be migrated first."""


class ApiError(ExporterError):
    """A request to the API gave no usable answer. `reason` is its name in the metrics."""

    reason: ClassVar[Reason] = Reason.OTHER
    retryable: ClassVar[bool] = False  # whether a read request may be tried again


class NotSentError(ApiError):
    """Nothing reached the API, so it can't have acted."""


class ConnectError(NotSentError):
    """No connection: name not found, refused, unreachable, or TLS failed."""

    reason = Reason.CONNECT
    retryable = True


class QuotaError(NotSentError):
    """The request budget of the key left no room before the caller's deadline."""

    reason = Reason.RATE_LIMITED


class LeaseExpiredError(NotSentError):
    """Too much time passed between a claim and its request, so the request did not leave."""


class ApiTimeoutError(ApiError):
    """No answer in time. Whether the API acted is not known."""

    reason = Reason.TIMEOUT
    retryable = True


class BrokenAnswerError(ApiError):
    """The connection ended before the answer did. Whether the API acted is not known."""

    reason = Reason.BAD_RESPONSE
    retryable = True


class BadResponseError(ApiError):
    """The answer is not what the API documents: not JSON, or JSON of another shape."""

    reason = Reason.BAD_RESPONSE


class TooLargeError(BadResponseError):
    """The answer is longer than `api.max_response_bytes`; reading stopped there."""

    reason = Reason.TOO_LARGE


class RejectedError(ApiError):
    """The API answered with an error status.

    `status` is the HTTP status. `code` is the API's `error.code`, or `None` where it sent none or something that
    doesn't look like one.
    """

    def __init__(self, message: str, *, status: int, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class ValidationError(RejectedError):
    """400 or 422: the API finds a field missing or invalid."""

    reason = Reason.VALIDATION


class AuthError(RejectedError):
    """401: no key, or one the API doesn't know."""

    reason = Reason.AUTH


class ForbiddenError(RejectedError):
    """403: the key is valid, but the account may not do this."""

    reason = Reason.FORBIDDEN


class NotFoundError(RejectedError):
    """404: no such thing, or not this account's."""

    reason = Reason.NOT_FOUND


class ConflictError(RejectedError):
    """409: a unique identifier exists already."""

    reason = Reason.CONFLICT


class RateLimitedError(RejectedError):
    """429. `retry_after` is how many seconds the API wants us to wait, `None` where it didn't say."""

    reason = Reason.RATE_LIMITED

    def __init__(self, message: str, *, status: int, code: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(message, status=status, code=code)
        self.retry_after = retry_after


class RedirectError(RejectedError):
    """3xx: never followed, since the key would go along."""

    reason = Reason.BAD_RESPONSE


class ServerError(RejectedError):
    """5xx: a fault of the API's."""

    reason = Reason.SERVER_ERROR
    retryable = True
