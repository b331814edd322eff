"""Every error of the API, as problem details.

References:
    RFC 9457, "Problem Details for HTTP APIs".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import msgspec
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from driftlock_otlp.errors import DriftlockError, RetryableError
from driftlock_otlp.otlp.responses import http_status

MEDIA_TYPE = "application/problem+json"
_MOST_MISTAKES = 20
_LONGEST_DETAIL = 1000


class Mistake(BaseModel):
    """One thing that is wrong with a request."""

    where: str = Field(description="The parameter, or the path into the body.", examples=["query.limit"])
    detail: str = Field(description="What is wrong with it.")


class Problem(BaseModel):
    """Why a request failed (RFC 9457)."""

    type: str = Field("about:blank", description="Always about:blank: the status says what kind of problem it is.")
    title: str = Field(description="Name of the status.", examples=["Not Found"])
    status: int = Field(description="The HTTP status.", examples=[404])
    detail: str = Field(description="What went wrong, for people.")
    request_id: str = Field(description="The request's X-Request-Id, which is in the log, too.")
    errors: list[Mistake] = Field(default=[], description="What is wrong with the request, one by one.")


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the descriptions of errors for a route's `responses`."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in statuses
    }


def problem(
    status: int,
    detail: str,
    request_id: str,
    *,
    errors: Sequence[Mistake] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return a problem as a response."""
    try:
        title = HTTPStatus(status).phrase
    except ValueError:
        title = "Error"
    body = Problem(
        title=title,
        status=status,
        detail=detail[:_LONGEST_DETAIL],
        request_id=request_id,
        errors=list(errors[:_MOST_MISTAKES]),
    )
    content = msgspec.json.encode(body.model_dump())
    return Response(content, status_code=status, media_type=MEDIA_TYPE, headers=dict(headers or {}))


def of_error(error: DriftlockError, request_id: str) -> Response:
    """Return the problem that an error of ours is; only what may be said is said."""
    headers = {}
    if isinstance(error, RetryableError):
        headers["retry-after"] = str(max(math.ceil(error.retry_after_s or 1.0), 1))
    status = http_status(error)
    if status == HTTPStatus.UNAUTHORIZED:
        headers["www-authenticate"] = "Bearer"
    return problem(status, str(error), request_id, headers=headers)


def of_validation(error: RequestValidationError, request_id: str) -> Response:
    """Return the problem that a request is which the schema refuses; nothing of it is repeated."""
    mistakes = [
        Mistake(where=".".join(str(part) for part in item["loc"]), detail=str(item["msg"])) for item in error.errors()
    ]
    return problem(422, "the request does not fit; see errors", request_id, errors=mistakes)


def of_http(error: HTTPException, request_id: str) -> Response:
    """Return the problem that the framework found."""
    return problem(error.status_code, str(error.detail), request_id, headers=error.headers)


def unexpected(request_id: str) -> Response:
    """Return the problem of what should not have happened, which says nothing of it."""
    return problem(500, "something went wrong inside; it is in the log", request_id)
