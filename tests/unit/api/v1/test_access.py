"""Every route, tried with no key, a wrong key, another organisation's key, and a key of each role."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from fastapi.routing import APIRoute

from driftlock_otlp.api.cursors import opaque
from driftlock_otlp.api.v1.app import ROUTERS, new_app
from driftlock_otlp.auth.roles import Permission, Role
from tests.unit.api.v1.api import Api, live
from tests.unit.api.v1.found import ANOMALY, CHECKOUT, INCIDENT_ID, SUPPRESSION_ID, fill

STREAM_ID = opaque(["logs", "checkout", "", "acme"])


@dataclass(frozen=True)
class Row:
    """How a route is tried.

    Attributes:
        permission: What it needs.
        names: Parameters of its path that name something of acme's.
        body: A body that is right.
        status: What is answered to those who may.
        shows: Returns, from the answer to another organisation, whether it shows something of acme's.
    """

    permission: Permission
    body: Any = None
    status: int = 200
    shows: Callable[[Any], bool] = lambda answer: b"checkout" in answer.body


READ, ACT = Permission.READ, Permission.ACT
ROWS = {
    "get_version": Row(READ),
    "list_streams": Row(READ),
    "get_stream": Row(READ),
    "get_usage": Row(READ),
    "list_anomalies": Row(READ),
    "get_anomaly": Row(READ),
    "get_evidence": Row(READ),
    "set_status": Row(ACT, {"status": "dismissed"}),
    "give_feedback": Row(ACT, {"verdict": "confirmed"}, 202),
    "release_records": Row(ACT),
    "drop_records": Row(ACT),
    "list_incidents": Row(READ),
    "get_incident": Row(READ),
    "get_audit": Row(READ),
    "follow_anomalies": Row(READ),
    "set_sensitivity": Row(Permission.CONFIGURE, {"significance": 0.001}, 202),
    "suppose": Row(READ, {"significance": 0.001}),
    "list_suppressions": Row(READ),
    "add_suppression": Row(
        ACT, {"purpose": "pattern", "service": "other"}, 201, lambda answer: b'"organization":"acme"' in answer.body
    ),
    "remove_suppression": Row(ACT),
    "send_events": Row(Permission.INGEST, {"event_type": "log", "data": "hello"}),
}
PARAMETERS = {
    "/v1/streams/{id}": STREAM_ID,
    "/v1/anomalies/{id}": ANOMALY.id,
    "/v1/incidents/{id}": INCIDENT_ID,
    "/v1/suppressions/{id}": SUPPRESSION_ID,
}
ROUTES = {route.operation_id: route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)}


@pytest.fixture
async def filled(keyed: Api) -> Api:
    """The API with something of acme's behind each route."""
    await fill(keyed)
    keyed.workers.streams = [live(CHECKOUT)]
    return keyed


async def ask(api: Api, operation: str, key: str) -> Any:
    route, row = ROUTES[operation], ROWS[operation]
    path = route.path
    for start, known in PARAMETERS.items():
        if path.startswith(start):
            path = path.replace("{id}", known)
    assert route.methods
    (method,) = route.methods
    return await api.call(method, path, row.body, key=key)


def test_every_route_has_a_row() -> None:
    assert set(ROWS) == set(ROUTES)
    app = new_app("1.2.3")
    operations = [operation for methods in app.openapi()["paths"].values() for operation in methods.values()]
    assert {operation["operationId"] for operation in operations} == set(ROWS)
    # What is the same for everybody, and is tried in `test_border.py`, stands on the application itself.
    beside = {route.path for route in app.router.routes if isinstance(route, APIRoute)}
    assert beside == {"/v1/openapi.json", "/v1/docs", "/v1/docs.css"}


@pytest.mark.parametrize("operation", ROUTES)
async def test_no_route_is_open_without_a_valid_key(filled: Api, operation: str) -> None:
    right = filled.keys["acme", Role.ADMIN]
    wrong = right[:-1] + ("A" if right[-1] != "A" else "B")
    for key in ("", "nonsense", wrong):
        assert (await ask(filled, operation, key)).status == 401


@pytest.mark.parametrize("operation", ROUTES)
@pytest.mark.parametrize("role", Role)
async def test_a_key_may_what_its_role_permits_and_no_more(filled: Api, operation: str, role: Role) -> None:
    row = ROWS[operation]
    answer = await ask(filled, operation, filled.keys["acme", role])
    assert answer.status == (row.status if row.permission in role.permissions else 403), answer.body


@pytest.mark.parametrize("operation", ROUTES)
async def test_another_organisation_neither_sees_nor_changes_anything(filled: Api, operation: str) -> None:
    answer = await ask(filled, operation, filled.keys["globex", Role.ADMIN])
    if "{id}" in ROUTES[operation].path:
        assert answer.status == 404
    else:
        assert answer.status == ROWS[operation].status
    assert not ROWS[operation].shows(answer)


@pytest.mark.parametrize("operation", ROUTES)
async def test_every_route_is_described(operation: str) -> None:
    route = ROUTES[operation]
    assert route.summary and route.description and route.tags
