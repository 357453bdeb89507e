"""The API's error answers."""

from __future__ import annotations

from http import HTTPStatus

CODES = {
    HTTPStatus.BAD_REQUEST: "VALIDATION_ERROR",
    HTTPStatus.UNAUTHORIZED: "UNAUTHORIZED",
    HTTPStatus.FORBIDDEN: "FORBIDDEN",
    HTTPStatus.NOT_FOUND: "NOT_FOUND",
    HTTPStatus.CONFLICT: "CONFLICT",
    HTTPStatus.TOO_MANY_REQUESTS: "LIMIT_REACHED",
    HTTPStatus.INTERNAL_SERVER_ERROR: "INTERNAL_ERROR",
}
"""The codes that the vendor documents."""


class Refusal(Exception):  # noqa: N818 - an answer of the API, not a failure of the simulator
    """An answer of the API with an error status."""

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = int(status)
        self.message = message
        self.headers = headers or {}


def error_code(status: int) -> str:
    """Return the `error.code` of a status; of those that the vendor doesn't document, INTERNAL_ERROR or HTTP_nnn."""
    for known, code in CODES.items():
        if known == status:
            return code
    return "INTERNAL_ERROR" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else f"HTTP_{status}"


def envelope(status: int, message: str) -> dict[str, object]:
    """Return the body of an error answer."""
    return {"success": False, "error": {"code": error_code(status), "message": message}}


def invalid(message: str) -> Refusal:
    """Refuse a missing or invalid field."""
    return Refusal(HTTPStatus.BAD_REQUEST, message)


def not_found(what: str) -> Refusal:
    """Refuse what does not exist or belongs to another account."""
    return Refusal(HTTPStatus.NOT_FOUND, f"{what} not found")
