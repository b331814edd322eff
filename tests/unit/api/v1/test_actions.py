"""What people do about anomalies, and that the history says who did it."""

from __future__ import annotations

from typing import Any

import pytest

from driftlock_otlp.auth.roles import Role
from driftlock_otlp.errors import OverloadedError
from driftlock_otlp.orders import Feedback, decode
from driftlock_otlp.storage import quarantine
from tests.unit.api.v1.api import Api
from tests.unit.api.v1.found import ANOMALY, CHECKOUT, record, withhold

PATH = f"/v1/anomalies/{ANOMALY.id}"


async def audit(api: Api) -> list[tuple[str, str, dict[str, Any]]]:
    entries = (await api.get("/v1/audit")).json["entries"]
    return [(entry["actor"], entry["action"], entry["detail"]) for entry in reversed(entries)]


async def test_a_status_is_set_and_the_history_says_by_whom_and_why(keyed: Api) -> None:
    await record(keyed, ANOMALY)
    key = keyed.keys["acme", Role.OPERATOR]
    answer = await keyed.call("PATCH", f"{PATH}/status", {"status": "acknowledged", "note": "on it"}, key=key)
    assert (answer.status, answer.json["status"], answer.json["state"]) == (200, "acknowledged", "open")
    (entry,) = (await keyed.get(PATH, key=key)).json["history"]
    assert entry["actor"] == f"key:{key.split('_')[1]}"
    assert entry["detail"] == {"from": "new", "to": "acknowledged", "note": "on it"}


@pytest.mark.parametrize(
    "body", [{}, {"status": "resolved"}, {"status": "new", "more": 1}, {"status": 1}, [], b"{", b"", b"[" * 100_000]
)
async def test_a_status_that_people_cannot_set_is_refused(api: Api, body: Any) -> None:
    await record(api, ANOMALY)
    assert (await api.call("PATCH", f"{PATH}/status", body)).status in {400, 422}
    assert await audit(api) == []


async def test_feedback_goes_to_the_detector_through_the_log_and_can_be_taken_back(api: Api) -> None:
    await record(api, ANOMALY)
    for verdict, shown in (("false_alarm", "false_alarm"), ("confirmed", "confirmed"), ("withdrawn", None)):
        answer = await api.call("POST", f"{PATH}/feedback", {"verdict": verdict})
        assert answer.status == 202
        assert (await api.get(PATH)).json["feedback"] == shown
    entries = [stored.entry for stored in api.log.read(0, 1 << 20)]
    assert [decode(entry.payload) for entry in entries] == [
        Feedback(CHECKOUT, ANOMALY.id, verdict) for verdict in ("false_alarm", "confirmed", "withdrawn")
    ]
    assert {(entry.signal, entry.item_count, entry.tenant) for entry in entries} == {(None, 0, "acme")}
    assert [detail["verdict"] for _, _, detail in await audit(api)] == ["false_alarm", "confirmed", "withdrawn"]


async def test_feedback_that_the_log_does_not_take_is_refused_and_the_history_says_so(api: Api) -> None:
    async def full(entry: Any) -> int:
        raise OverloadedError("the log is full", 5.0)

    api.log.append = full  # type: ignore[method-assign]
    await record(api, ANOMALY)
    answer = await api.call("POST", f"{PATH}/feedback", {"verdict": "confirmed"})
    assert (answer.status, answer.headers["retry-after"]) == (503, "5")
    assert [action for _, action, _ in await audit(api)] == ["feedback_given", "order_refused"]


@pytest.mark.parametrize(
    ("verb", "action", "left"), [("release", "records_released", 2), ("drop", "records_dropped", 0)]
)
async def test_what_is_withheld_is_released_or_dropped_once(api: Api, verb: str, action: str, left: int) -> None:
    await record(api, ANOMALY)
    await withhold(api, ANOMALY, 1)
    await withhold(api, ANOMALY, 2)
    first = await api.call("POST", f"{PATH}/{verb}", {"note": "checked"})
    again = await api.call("POST", f"{PATH}/{verb}")
    assert (first.json, again.json) == ({"items": 2}, {"items": 0})
    assert await audit(api) == [("local", action, {"items": 2, "note": "checked"})]
    released = await api.backend.state.read(lambda c: quarantine.released(c, 10))
    assert len(released) == left


async def test_nothing_of_another_organisation_is_changed(keyed: Api) -> None:
    await record(keyed, ANOMALY)
    await withhold(keyed, ANOMALY)
    key = keyed.keys["globex", Role.ADMIN]
    asked = [("PATCH", "status", {"status": "dismissed"}), ("POST", "feedback", {"verdict": "confirmed"})]
    for method, what, body in [*asked, ("POST", "release", None), ("POST", "drop", None)]:
        assert (await keyed.call(method, f"{PATH}/{what}", body, key=key)).status == 404
    told = (await keyed.get(PATH, key=keyed.keys["acme", Role.VIEWER])).json
    assert (told["status"], told["withheld_items"], told["history"], told["feedback"]) == ("new", 1, [], None)
    assert not keyed.log.read(0, 1 << 20)
