"""`/v1/anomalies`: what was found, to read."""

from __future__ import annotations

import asyncio
import csv
import io
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response

from driftlock_otlp.api.v1.anomaly_query import AnomalyQuery
from driftlock_otlp.api.v1.anomaly_schemas import Anomalies, AnomalyDetail, AnomalySummary, summary_facts
from driftlock_otlp.api.v1.backend import Backing
from driftlock_otlp.api.v1.may import Reader
from driftlock_otlp.api.v1.problems import documented
from driftlock_otlp.api.v1.values import Identifier
from driftlock_otlp.model import Anomaly
from driftlock_otlp.storage import windows
from driftlock_otlp.storage.anomalies import AnomalyPage

router = APIRouter(tags=["anomalies"])

_SHOWN_WINDOWS = 20
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@router.get(
    "/v1/anomalies",
    responses=documented(400)
    | {
        200: {
            "content": {"text/csv": {"schema": {"type": "string"}}},
            "headers": {"Link": {"description": 'The next page, as `<…>; rel="next"`.', "schema": {"type": "string"}}},
        }
    },
    response_model=Anomalies,
    operation_id="list_anomalies",
    summary="List anomalies",
)
async def list_anomalies(
    request: Request, caller: Reader, backend: Backing, query: Annotated[AnomalyQuery, Query()]
) -> Any:
    """Anomalies that fit everything given, newest first."""
    page = await backend.findings.page(caller, query.where(), query.limit, query.cursor)
    # A thousand anomalies take a while to write, in which the loop has others to serve.
    if query.format == "json":
        return Response(await asyncio.to_thread(_json, page), media_type="application/json")
    headers = {"content-disposition": 'attachment; filename="anomalies.csv"'}
    if page.next_cursor is not None:
        url = request.url.include_query_params(cursor=page.next_cursor)
        headers["link"] = f'<{url.path}?{url.query}>; rel="next"'
    return Response(await asyncio.to_thread(_csv, page.anomalies), media_type="text/csv", headers=headers)


@router.get("/v1/anomalies/{id}", responses=documented(404), operation_id="get_anomaly", summary="Look at an anomaly")
async def get_anomaly(
    caller: Reader,
    backend: Backing,
    id: Identifier,
    records: Annotated[
        int, Query(ge=0, le=20, description="Requests of which to quote what is held, where quoting is allowed.")
    ] = 0,
) -> AnomalyDetail:
    """An anomaly with its evidence, the windows before it and its own, what was done about it and what is withheld."""
    told = await backend.findings.told(caller, id, records)
    last = max(told.anomaly.last_unix_nano, told.anomaly.window_start_unix_nano)
    facts = await backend.state.read(
        lambda connection: windows.find(connection, told.anomaly.stream, _SHOWN_WINDOWS, min(last + 1, (1 << 63) - 1))
    )
    return AnomalyDetail.of_told(told, facts)


@router.get(
    "/v1/anomalies/{id}/evidence",
    responses=documented(404)
    | {200: {"content": {"application/zip": {}, "application/pdf": {}}, "description": "The bundle, or the PDF"}},
    response_class=Response,
    operation_id="get_evidence",
    summary="Take out the evidence of an anomaly",
)
async def get_evidence(
    caller: Reader,
    backend: Backing,
    id: Identifier,
    format: Annotated[
        Literal["bundle", "pdf"], Query(description="bundle: for `driftlock-otlp evidence verify`; pdf: for people.")
    ] = "bundle",
) -> Response:
    """Everything a verdict rests on, under a chain of hashes: whoever has it can compute the verdict again."""
    bundle = await backend.findings.evidence(caller, id)
    if format == "bundle":
        return _file(bundle, "application/zip", f"evidence-{id[:8]}.zip")
    return _file(await backend.pdf(bundle), "application/pdf", f"evidence-{id[:8]}.pdf")


def _file(content: bytes, media_type: str, name: str) -> Response:
    return Response(content, media_type=media_type, headers={"content-disposition": f'attachment; filename="{name}"'})


def _json(page: AnomalyPage) -> str:
    summaries = [AnomalySummary.of(anomaly) for anomaly in page.anomalies]
    return Anomalies(anomalies=summaries, next_cursor=page.next_cursor).model_dump_json()


def _csv(anomalies: list[Anomaly]) -> str:
    output = io.StringIO(newline="")
    writer = csv.writer(output)
    columns = [name for name in AnomalySummary.model_fields if name != "stream"]
    writer.writerow(["signal", "service", "name", "organization", *columns])
    for anomaly in anomalies:
        key, facts = anomaly.stream, summary_facts(anomaly)
        row = [key.kind, key.service, key.name, key.tenant, *(facts[name] for name in columns)]
        writer.writerow([_cell(value) for value in row])
    return output.getvalue()


def _cell(value: object) -> object:
    """Return a cell that no spreadsheet takes for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
