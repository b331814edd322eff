"""Sensitivity per stream, what-if, suppressions and maintenance."""

from __future__ import annotations

from typing import Any

import pytest

from driftlock_otlp.auth.roles import Role
from driftlock_otlp.model import WindowFacts
from driftlock_otlp.orders import Sensitivity, decode
from driftlock_otlp.storage import windows
from tests.unit.api.v1.api import NOW, Api
from tests.unit.api.v1.found import ANOMALY, CHECKOUT, S, record

STREAM = "/v1/streams/WyJsb2dzIiwiY2hlY2tvdXQiLCIiLCJhY21lIl0"


@pytest.fixture
async def followed(api: Api) -> Api:
    facts = [
        WindowFacts(CHECKOUT, NOW + index * 60 * S, NOW + index * 60 * S + S, 50, "clean", *rest)
        for index, rest in enumerate((0.1, 0.5, bits, 0.9, 4.0, 4.0, 2.0, 2.0) for bits in (1.0, 12.0, 2.0))
    ]
    await api.backend.state.write(lambda c: windows.add(c, facts))
    return api


async def test_sensitivity_goes_to_the_detector_through_the_log_and_is_shown(followed: Api) -> None:
    before = (await followed.get(STREAM)).json
    assert (before["significance"], before["has_own_significance"]) == (0.01, False)
    for value, shown in ((0.001, (0.001, True)), (None, (0.01, False))):
        assert (await followed.call("PUT", f"{STREAM}/sensitivity", {"significance": value})).status == 202
        after = (await followed.get(STREAM)).json
        assert (after["significance"], after["has_own_significance"]) == shown
    orders = [decode(stored.entry.payload) for stored in followed.log.read(0, 1 << 20)]
    assert orders == [Sensitivity(CHECKOUT, 0.001), Sensitivity(CHECKOUT, None)]
    actions = [entry["action"] for entry in (await followed.get("/v1/audit")).json["entries"]]
    assert actions == ["sensitivity_set"] * 2


@pytest.mark.parametrize("value", [0, 0.5, 1, -1, "0.1", True])
async def test_a_significance_that_cannot_be_is_refused(followed: Api, value: Any) -> None:
    assert (await followed.call("PUT", f"{STREAM}/sensitivity", {"significance": value})).status == 422
    assert not followed.log.read(0, 1 << 20)


async def test_a_stream_that_nobody_knows_takes_no_order(followed: Api) -> None:
    other = "/v1/streams/WyJsb2dzIiwibm9uZSIsIiIsIiJd/sensitivity"
    assert (await followed.call("PUT", other, {"significance": 0.1})).status == 404
    padded = f"{STREAM}/sensitivity".replace("Il0/", "Il0%3D/")
    assert (await followed.call("PUT", padded, {"significance": 0.1})).status in {400, 404}


async def test_what_if_judges_stored_windows_again_and_changes_nothing(followed: Api) -> None:
    supposed = (await followed.call("POST", f"{STREAM}/what-if", {"significance": 0.001})).json
    assert (supposed["fired"], supposed["would_have_fired"]) == (1, 0)
    assert [window["fires"] for window in supposed["windows"]] == [False, True, False]
    assert (await followed.get("/v1/audit")).json["entries"] == []
    one = (await followed.call("POST", f"{STREAM}/what-if", {"significance": 0.001, "windows": 1})).json
    assert [window["bits"] for window in one["windows"]] == [2.0]


async def test_a_suppression_silences_what_falls_under_it_until_it_is_taken_away(keyed: Api) -> None:
    await record(keyed, ANOMALY)
    key = keyed.keys["acme", Role.OPERATOR]
    body = {"purpose": "pattern", "service": "checkout", "template": ANOMALY.template, "note": "known"}
    made = await keyed.call("POST", "/v1/suppressions", body, key=key)
    assert (made.status, made.json["silenced"], made.json["ends"]) == (201, 1, None)
    assert made.json["created_by"] == f"key:{key.split('_')[1]}"
    assert (await keyed.get("/v1/anomalies?is_suppressed=true", key=key)).json["anomalies"]
    (listed,) = (await keyed.get("/v1/suppressions", key=key)).json["suppressions"]
    path = f"/v1/suppressions/{listed['id']}"
    theirs = keyed.keys["globex", Role.OPERATOR]
    assert (await keyed.get("/v1/suppressions", key=theirs)).json["suppressions"] == []
    assert (await keyed.call("DELETE", path, key=theirs)).status == 404
    assert (await keyed.call("DELETE", path, key=key)).json["removed_at"] is not None
    assert (await keyed.call("DELETE", path, key=key)).status == 404
    assert (await keyed.get("/v1/suppressions", key=key)).json["suppressions"] == []


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"purpose": "pattern"}, 400),
        ({"purpose": "maintenance", "service": "checkout"}, 422),
        ({"purpose": "maintenance", "ends": "2027-01-15T07:00:00Z"}, 400),
        ({"purpose": "maintenance", "ends": "2027-01-15T09:00:00Z"}, 201),
        ({"purpose": "maintenance", "ends": 1_800_000_000}, 422),
        ({"purpose": "other", "service": "checkout"}, 422),
        ({"purpose": "pattern", "service": "checkout", "ends": "9999-12-31T23:59:59Z"}, 201),
    ],
)
async def test_a_suppression_says_what_and_until_when(api: Api, body: dict[str, Any], status: int) -> None:
    assert (await api.call("POST", "/v1/suppressions", body)).status == status
