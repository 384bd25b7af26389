"""Errors that a client sees, all in OpenAI's shape; on Anthropic's routes in the shape that its SDK reads too.

ApiError
├── BadRequest          400
├── Unauthorized        401
├── Forbidden           403
├── NotFound            404
├── MethodNotAllowed    405
├── TooSlow             408  the request did not arrive in time
├── TooLarge            413
├── TooManyRequests     429, with Retry-After
├── EngineUnavailable   503, with Retry-After
└── EngineTooSlow       504
"""

from __future__ import annotations

import orjson

ANTHROPIC = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
"""Anthropic's names for what OpenAI tells apart by `code`."""


class ApiError(Exception):
    """Rendered as `{"error": {"message", "type", "param", "code"}}`."""

    status = 500
    kind = "server_error"
    code: str | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message, self.param, self.code = message, param, code or self.code

    def body(self, anthropic: bool = False) -> bytes:
        """The JSON document."""
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        if anthropic:
            return orjson.dumps(
                {"type": "error", "error": error | {"type": ANTHROPIC.get(self.status, "api_error")}}
            )
        return orjson.dumps({"error": error})


class BadRequest(ApiError):
    """The request itself is wrong."""

    status, kind = 400, "invalid_request_error"


class Unauthorized(ApiError):
    """No key, or one that is not among the stack's."""

    status, kind, code = 401, "authentication_error", "invalid_api_key"
    headers = ((b"www-authenticate", b"Bearer"),)


class Forbidden(ApiError):
    """The key is known and may not do this."""

    status, kind, code = 403, "permission_error", "not_allowed"


class NotFound(ApiError):
    """No such route, model or request."""

    status, kind = 404, "invalid_request_error"


class MethodNotAllowed(ApiError):
    """The route exists, the method does not."""

    status, kind = 405, "invalid_request_error"

    def __init__(self, message: str, allow: str) -> None:
        super().__init__(message)
        self.headers = ((b"allow", allow.encode()),)


class TooSlow(ApiError):
    """The request's body did not arrive within `router.receive_timeout_s`."""

    status, kind, code = 408, "invalid_request_error", "request_timeout"
    headers = ((b"connection", b"close"),)


class TooLarge(ApiError):
    """The body is over `router.max_body_mb`."""

    status, kind, code = 413, "invalid_request_error", "request_too_large"


class TooManyRequests(ApiError):
    """The key's budget of this minute is spent, or more requests are in flight than `router.max_in_flight`."""

    status, kind, code = 429, "rate_limit_error", "rate_limit_exceeded"

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.headers = ((b"retry-after", str(max(1, retry_after_s)).encode()),)


class EngineUnavailable(ApiError):
    """The engine is starting, restarting or gone, or this router is shutting down."""

    status, code = 503, "engine_unavailable"
    headers = ((b"retry-after", b"2"),)


class EngineTooSlow(ApiError):
    """The answer took longer than `router.answer_timeout_s`."""

    status, code = 504, "engine_timeout"
