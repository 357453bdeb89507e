"""The error tree: as it is drawn, with the reason that metrics show for each."""

from __future__ import annotations

import re

import pytest

from exporter import errors
from exporter.errors import ApiError, ConfigError, ExporterError, RateLimitedError, RejectedError

REASONS = {
    "ApiError": "other",
    "NotSentError": "other",
    "ConnectError": "connect",
    "QuotaError": "rate_limited",
    "LeaseExpiredError": "other",
    "ApiTimeoutError": "timeout",
    "BrokenAnswerError": "bad_response",
    "BadResponseError": "bad_response",
    "TooLargeError": "too_large",
    "RejectedError": "other",
    "ValidationError": "validation",
    "AuthError": "auth",
    "ForbiddenError": "forbidden",
    "NotFoundError": "not_found",
    "ConflictError": "conflict",
    "RateLimitedError": "rate_limited",
    "RedirectError": "bad_response",
    "ServerError": "server_error",
}
RETRYABLE = {"ConnectError", "ApiTimeoutError", "BrokenAnswerError", "ServerError"}


def tree(error: type[ExporterError], depth: int = 0) -> list[tuple[int, str]]:
    return [(depth, error.__name__), *(line for inner in error.__subclasses__() for line in tree(inner, depth + 1))]


def test_the_drawing_is_the_tree() -> None:
    drawn = re.findall(r"^    ([│├└─ ]*)(\w+Error)\b", errors.__doc__ or "", re.MULTILINE)
    assert [(len(indent) // 4, name) for indent, name in drawn] == tree(ExporterError)


def test_every_error_of_the_api_has_its_reason() -> None:
    found = {name: getattr(errors, name) for _, name in tree(ApiError)}
    assert {name: error.reason.value for name, error in found.items()} == REASONS
    assert {name for name, error in found.items() if error.retryable} == RETRYABLE


def test_a_configuration_error_holds_its_problems_and_is_all_of_them() -> None:
    error = ConfigError(["poll: a", "web: b"])
    assert error.problems == ("poll: a", "web: b")
    assert str(error) == "poll: a\nweb: b"


@pytest.mark.parametrize("name", [name for _, name in tree(RejectedError)])
def test_a_rejection_knows_its_status_and_code(name: str) -> None:
    error = getattr(errors, name)("the API refuses (418)", status=418, code="TEAPOT")
    assert (str(error), error.status, error.code) == ("the API refuses (418)", 418, "TEAPOT")
    assert getattr(errors, name)("", status=400).code is None


def test_a_rate_limit_may_say_how_long() -> None:
    assert RateLimitedError("", status=429, retry_after=5.0).retry_after == 5
    assert RateLimitedError("", status=429).retry_after is None
