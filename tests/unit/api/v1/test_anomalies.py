"""Anomalies: found, filtered, page by page, as CSV, one with everything; incidents and the audit trail."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from driftlock_otlp.auth.roles import Role
from driftlock_otlp.model import WindowFacts
from driftlock_otlp.storage import incidents, windows
from driftlock_otlp.storage.incidents import StoredIncident
from tests.unit.api.v1.api import NOW, Api
from tests.unit.api.v1.found import (
    ANOMALY,
    BILLING,
    CHECKOUT,
    INCIDENT_ID,
    S,
    fill,
    happen,
    keep_evidence,
    numbered,
    record,
    withhold,
)


async def numbers(api: Api, query: str) -> list[int]:
    answer = await api.get(f"/v1/anomalies{query}")
    assert answer.status == 200, answer.body
    return [int(item["id"], 16) for item in answer.json["anomalies"]]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", [4, 3, 2, 1]),
        ("?signal=metrics", [3]),
        ("?service=billing", [3]),
        ("?service=bill", []),
        ("?state=resolved", [2]),
        ("?status=dismissed", [3]),
        ("?severity=low", [4]),
        ("?level=page", [2]),
        (f"?incident_id={INCIDENT_ID}", [4]),
        ("?text=TIMED+out", [2]),
        ("?min_score=0.95", [4]),
        ("?max_p_value=0.001", [3]),
        ("?is_suppressed=true", [1]),
        ("?since=2027-01-15T08:00:03Z", [4, 3]),
        ("?until=2027-01-15T08:00:03Z", [2, 1]),
        ("?since=2027-01-15T10:00:03%2B02:00&signal=logs", [4]),
    ],
)
async def test_a_list_holds_what_fits_everything_given(api: Api, query: str, expected: list[int]) -> None:
    await record(
        api,
        numbered(1, is_suppressed=True),
        numbered(2, state="resolved", level="page", explanation="the gateway timed out", resolved_unix_nano=NOW),
        numbered(3, stream=BILLING, p_value=0.0005, status="dismissed"),
        numbered(4, score=0.99, severity="low", incident_id=INCIDENT_ID),
    )
    assert await numbers(api, query) == expected


async def test_pages_neither_repeat_nor_skip_while_more_is_found(api: Api) -> None:
    await record(api, *(numbered(index) for index in range(1, 8)))
    seen, cursor = [], ""
    for index in range(4):
        page = (await api.get(f"/v1/anomalies?limit=2{cursor}")).json
        seen += [int(item["id"], 16) for item in page["anomalies"]]
        cursor = f"&cursor={page['next_cursor']}"
        await record(api, numbered(100 + index))
    assert seen == [7, 6, 5, 4, 3, 2, 1]
    assert page["next_cursor"] is None


@pytest.mark.parametrize("cursor", ["oops", "zz.1", "f" * 40 + ".1", "%00", "-1.1"])
async def test_a_cursor_that_is_none_is_refused_or_finds_nothing(api: Api, cursor: str) -> None:
    answer = await api.get(f"/v1/anomalies?cursor={cursor}")
    assert answer.status in {400, 422} or answer.json["anomalies"] == []


async def test_csv_has_the_same_rows_the_next_page_and_no_formulas(api: Api) -> None:
    await record(api, numbered(1, explanation='=cmd|"/c calc"!A1'), numbered(2))
    answer = await api.get("/v1/anomalies?limit=1&format=csv&signal=logs")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    url = answer.headers["link"].removeprefix("<").removesuffix('>; rel="next"')
    rows = list(csv.DictReader(io.StringIO((await api.get(url)).body.decode())))
    assert [row["id"] for row in rows] == [numbered(1).id]
    assert rows[0]["explanation"] == '\'=cmd|"/c calc"!A1'
    assert (rows[0]["signal"], rows[0]["service"], rows[0]["score"]) == ("logs", "checkout", "0.93")


async def test_one_anomaly_is_told_with_its_evidence_windows_history_and_what_is_withheld(api: Api) -> None:
    await record(api, ANOMALY)
    facts = WindowFacts(CHECKOUT, NOW - 10 * S, NOW, 200, "anomalous", 0.9, 0.004, 41.5, 0.7, 3.2, 9.1, 5.5, 1.25)
    later = replace(facts, start_unix_nano=NOW + S, end_unix_nano=NOW + 2 * S)
    await api.backend.state.write(lambda c: windows.add(c, [facts, later]))
    await happen(api, ANOMALY, "anomaly_opened")
    await withhold(api, ANOMALY)
    told = (await api.get(f"/v1/anomalies/{ANOMALY.id}?records=5")).json
    assert told["evidence"] == [
        {"column": "template", "kind": "pattern", "bits": 30.5, "text": "new", "observed": "x", "expected": "y"}
    ]
    assert [item["outcome"] for item in told["windows"]] == ["anomalous"]
    assert [(item["actor"], item["action"]) for item in told["history"]] == [("driftlock", "anomaly_opened")]
    assert told["resource"] == {"attributes": [{"key": "service.name", "value": {"stringValue": "checkout"}}]}
    assert (told["withheld_items"], told["feedback"], told["has_evidence_bundle"]) == (1, None, False)
    assert "card 4711 declined" in str(told["records"])
    quiet = (await api.get(f"/v1/anomalies/{ANOMALY.id}")).json
    assert quiet["records"] == []


async def test_records_are_not_quoted_where_quoting_is_off(api: Api) -> None:
    anomaly = replace(ANOMALY, stream=replace(CHECKOUT, kind="gen_ai"))
    await record(api, anomaly)
    await withhold(api, anomaly)
    told = (await api.get(f"/v1/anomalies/{anomaly.id}?records=5")).json
    assert (told["withheld_items"], told["records"]) == (1, None)


@pytest.mark.parametrize("identifier", ["0" * 31, "0" * 33, "A" * 32, "oops", "0" * 32])
async def test_an_id_that_is_none_or_unknown_finds_nothing(api: Api, identifier: str) -> None:
    await record(api, ANOMALY)
    assert (await api.get(f"/v1/anomalies/{identifier}")).status in {404, 422}


async def test_evidence_is_a_file_and_a_document(api: Api) -> None:
    await record(api, ANOMALY)
    path = f"/v1/anomalies/{ANOMALY.id}/evidence"
    assert (await api.get(path)).status == 404
    await keep_evidence(api, ANOMALY, b"zip")
    bundle, document = await api.get(path), await api.get(f"{path}?format=pdf")
    assert (bundle.body, bundle.headers["content-type"]) == (b"zip", "application/zip")
    assert (document.body, document.headers["content-type"]) == (b"%PDF of zip", "application/pdf")
    assert "evidence-00000000.pdf" in document.headers["content-disposition"]


async def test_incidents_come_newest_first_with_their_anomalies(api: Api) -> None:
    stored = [
        StoredIncident(
            f"{n:032x}", "acme", "page", "open" if n % 2 else "resolved", NOW + n, NOW + n, 0, ANOMALY.id, "t"
        )
        for n in range(1, 6)
    ]
    for incident in stored:
        await api.backend.state.write(partial(incidents.put, incident=incident))
    await record(api, numbered(7, incident_id=stored[2].id), numbered(8, incident_id=stored[3].id))
    first = (await api.get("/v1/incidents?limit=2&state=open")).json
    rest = (await api.get(f"/v1/incidents?limit=2&state=open&cursor={first['next_cursor']}")).json
    found = [int(item["id"], 16) for item in first["incidents"] + rest["incidents"]]
    assert (found, rest["next_cursor"]) == ([5, 3, 1], None)
    one = (await api.get(f"/v1/incidents/{stored[2].id}")).json
    assert [int(item["id"], 16) for item in one["anomalies"]] == [7]
    assert (await api.get(f"/v1/incidents/{'f' * 32}")).status == 404


async def test_the_audit_trail_is_paged_and_an_organisation_sees_its_own(keyed: Api) -> None:
    theirs = numbered(9, stream=BILLING)
    for anomaly in (ANOMALY, theirs, ANOMALY, ANOMALY):
        await happen(keyed, anomaly, "anomaly_opened")
    key = keyed.keys["acme", Role.VIEWER]

    async def page(query: str) -> Any:
        return (await keyed.get(f"/v1/audit{query}", key=key)).json

    first = await page("?limit=2")
    rest = await page(f"?limit=2&cursor={first['next_cursor']}")
    assert [entry["seq"] for entry in first["entries"] + rest["entries"]] == [4, 3, 1]
    assert rest["next_cursor"] is None
    assert (await page(f"?subject={theirs.id}"))["entries"] == []


async def test_what_belongs_to_another_organisation_is_not_found(keyed: Api) -> None:
    await fill(keyed)
    mine, theirs = keyed.keys["acme", Role.VIEWER], keyed.keys["globex", Role.VIEWER]
    assert (await keyed.get("/v1/anomalies", key=mine)).json["anomalies"]
    assert (await keyed.get("/v1/anomalies", key=theirs)).json["anomalies"] == []
    for path in (f"/v1/anomalies/{ANOMALY.id}", f"/v1/incidents/{INCIDENT_ID}"):
        assert (await keyed.get(path, key=mine)).status == 200
        assert (await keyed.get(path, key=theirs)).status == 404
