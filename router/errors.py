"""Errors that a client sees, all in OpenAI's shape.

ApiError
├── BadRequest          400
├── NotFound            404
├── MethodNotAllowed    405
├── TooLarge            413
└── EngineUnavailable   503, with Retry-After
"""

from __future__ import annotations

import orjson


class ApiError(Exception):
    """Rendered as `{"error": {"message", "type", "param", "code"}}`."""

    status = 500
    kind = "server_error"
    code: str | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message, self.param, self.code = message, param, code or self.code

    def body(self) -> bytes:
        """The JSON document."""
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return orjson.dumps({"error": error})


class BadRequest(ApiError):
    """The request itself is wrong."""

    status, kind = 400, "invalid_request_error"


class NotFound(ApiError):
    """No such route or model."""

    status, kind = 404, "invalid_request_error"


class MethodNotAllowed(ApiError):
    """The route exists, the method does not."""

    status, kind = 405, "invalid_request_error"

    def __init__(self, message: str, allow: str) -> None:
        super().__init__(message)
        self.headers = ((b"allow", allow.encode()),)


class TooLarge(ApiError):
    """The body is over `router.max_body_mb`."""

    status, kind, code = 413, "invalid_request_error", "request_too_large"


class EngineUnavailable(ApiError):
    """The engine is starting, restarting or gone."""

    status, code = 503, "engine_unavailable"
    headers = ((b"retry-after", b"2"),)
