"""`POST /v1/events`: telemetry as plain JSON, on the very path that OTLP takes."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from driftlock_otlp.api.v1 import problems
from driftlock_otlp.api.v1.backend import Backing
from driftlock_otlp.api.v1.border import REQUEST_ID
from driftlock_otlp.api.v1.may import Sender
from driftlock_otlp.api.v1.values import Time
from driftlock_otlp.otlp.plain_events import MOST_EVENTS, Converted, convert

router = APIRouter(tags=["events"])

PATH = "/v1/events"
MOST_BYTES = 4 << 20
"""Longest body."""
_TRANSPORT = "events"
_decode = msgspec.json.Decoder().decode

EventType = Literal["log", "logs", "metric", "metrics", "trace", "traces", "span", "llm"]


class EventBody(BaseModel):
    """One event."""

    model_config = {
        "extra": "forbid",
        "json_schema_extra": {
            "examples": [
                {
                    "event_type": "log",
                    "timestamp": "2026-11-24T10:00:00Z",
                    "data": {"level": "error", "message": "payment failed", "order": 4711},
                    "metadata": {"service": "checkout", "environment": "production"},
                }
            ]
        },
    }

    event_type: EventType = Field(description="What it is; llm is a generative AI operation.")
    timestamp: Time | None = Field(None, description="When it happened; without it, now, and a repeat is not known.")
    data: Any = Field(description="What happened; see docs/api.md for what is understood of each type.")
    metadata: dict[str, Any] = Field({}, description="Where: service, environment, host, version, and what you like.")
    organization_id: str | None = Field(None, description="Not needed: the key says it. Another one is refused.")


class EventMistake(BaseModel):
    """An event that was not taken."""

    index: int = Field(description="Its place in the request, from 0.")
    detail: str = Field(description="What is wrong with it.")


class Taken(BaseModel):
    """What became of the events."""

    accepted: int = Field(description="Events that are in the durable log.")
    rejected: int = Field(description="Events that are not, and never will be.")
    errors: list[EventMistake] = Field(description="Why, for the first hundred of them.")


_MOST_ERRORS = 100
_ONE = {"$ref": "#/components/schemas/EventBody"}


@router.post(
    PATH,
    responses=problems.documented(400, 413, 415),
    response_model=Taken,
    operation_id="send_events",
    summary="Send telemetry as plain JSON",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {
                        "anyOf": [_ONE, {"type": "array", "items": _ONE, "maxItems": MOST_EVENTS, "minItems": 1}]
                    }
                }
            },
        }
    },
)
async def send_events(request: Request, response: Response, caller: Sender, backend: Backing) -> Any:
    """One event, or a list of them, for senders without OpenTelemetry.

    The answer comes once they are in the durable log. They are scored, forwarded, limited and counted as OTLP is, which
    they become. What is wrong with an event is told by its index, and the others are taken all the same; if none can be
    taken, the request is refused.
    """
    headers = request.headers
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "send events as application/json")
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise HTTPException(415, "send events uncompressed, or as OTLP")
    tenant = backend.gate.tenant(caller.organization)
    declared_bytes = int(headers.get("content-length", "0"))
    with backend.gate.admit(tenant, declared_bytes):
        tenant.require(declared_bytes)
        body = await request.body()
        tenant.spend(len(body))
        done = _converted(body, backend.clock(), caller.organization)
        if not done.event_count:
            mistakes = [problems.Mistake(where=f"body.{index}", detail=detail) for index, detail in done.mistakes]
            return problems.problem(
                422, "none of the events can be taken; see errors", request.scope[REQUEST_ID], errors=mistakes
            )
        for signal, payload in done.requests:
            await backend.ingest.ingest_protobuf(signal, payload, _TRANSPORT, caller.organization)
    for name, value in tenant.budget():
        response.headers[name] = value
    return Taken(
        accepted=done.event_count,
        rejected=len(done.mistakes),
        errors=[EventMistake(index=index, detail=detail) for index, detail in done.mistakes[:_MOST_ERRORS]],
    )


def _converted(body: bytes, now_unix_nano: int, organization: str) -> Converted:
    try:
        decoded = _decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise HTTPException(400, f"the body is no JSON: {error}") from None
    events = decoded if isinstance(decoded, list) else [decoded]
    if not events:
        raise HTTPException(422, "the list is empty")
    if len(events) > MOST_EVENTS:
        raise HTTPException(422, f"more than {MOST_EVENTS} events; send them in several requests")
    return convert(events, now_unix_nano, organization)
