"""Anomalies to find."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from driftlock_otlp.model import Anomaly, Evidence, Signal, StreamKey, WindowFacts
from driftlock_otlp.storage import anomalies, history, incidents, quarantine, suppressions, windows
from driftlock_otlp.storage.incidents import StoredIncident
from driftlock_otlp.storage.suppressions import FOR_GOOD, Suppression
from tests.unit.api.v1.api import NOW, Api

S = 10**9
CHECKOUT = StreamKey("logs", "checkout", tenant="acme")
BILLING = StreamKey("metrics", "billing", "queue.depth", "globex")
INCIDENT_ID = "1" * 32
SUPPRESSION_ID = "2" * 32


def _resource() -> bytes:
    resource = Resource()
    resource.attributes.add(key="service.name").value.string_value = "checkout"
    encoded: bytes = resource.SerializeToString()
    return encoded


ANOMALY = Anomaly(
    id=f"{1:032x}",
    stream=CHECKOUT,
    state="open",
    severity="high",
    detected_unix_nano=NOW,
    window_start_unix_nano=NOW - 10 * S,
    window_end_unix_nano=NOW,
    record_count=200,
    score=0.93,
    p_value=0.004,
    bits=41.5,
    ncd=0.71,
    compression_ratio=3.2,
    baseline_compression_ratio=9.1,
    entropy_bits=5.5,
    baseline_entropy_bits=1.25,
    baseline_windows=12,
    baseline_records=2400,
    explanation="A template never seen before: payment failed",
    evidence=(Evidence("template", "pattern", 30.5, "new", "x", "y"),),
    trace_id="0af7651916cd43dd8448eb211c80319c",
    span_id="b7ad6b7169203331",
    related_trace_ids=("1" * 32,),
    template="payment <*> failed",
    resource=_resource(),
    resource_schema_url="",
    fingerprint="openzl/1/abc",
    compressor="openzl 0.3",
)


def numbered(number: int, **changes: Any) -> Anomaly:
    """Return an anomaly of its own, `number` seconds after the first."""
    return replace(ANOMALY, id=f"{number:032x}", **{"detected_unix_nano": NOW + number * S, **changes})


async def record(api: Api, *found: Anomaly) -> None:
    """Store anomalies."""
    await api.backend.state.write(lambda c: [anomalies.record(c, anomaly, NOW) for anomaly in found])


async def happen(api: Api, anomaly: Anomaly, action: str) -> int:
    """Write into the history that something happened to an anomaly; return its number."""
    facts = {"tenant": anomaly.stream.tenant, "actor": history.SERVICE, "action": action, "subject": anomaly.id}
    return await api.backend.state.write(lambda c: history.record(c, at_unix_nano=NOW, detail={}, **facts))


async def withhold(api: Api, anomaly: Anomaly, position: int = 1, text: str = "card 4711 declined") -> None:
    """Withhold a log record of an anomaly."""
    request = ExportLogsServiceRequest()
    request.resource_logs.add().scope_logs.add().log_records.add().body.string_value = text
    await api.backend.state.write(
        lambda c: quarantine.add(
            c,
            position=position,
            signal=Signal.LOGS,
            anomaly_ids=[anomaly.id],
            stream="",
            payload=request.SerializeToString(),
            item_count=1,
            now_unix_nano=NOW,
        )
    )


async def keep_evidence(api: Api, anomaly: Anomaly, bundle: bytes) -> None:
    """Keep an evidence bundle."""
    await api.backend.state.write(
        lambda c: c.execute(
            "INSERT INTO evidence (anomaly_id, size_bytes, bundle) VALUES (?, ?, ?)",
            (anomaly.id, len(bundle), bundle),
        )
    )


async def fill(api: Api) -> None:
    """Store something of acme's behind every route."""
    incident = StoredIncident(INCIDENT_ID, "acme", "page", "open", NOW, NOW, 0, ANOMALY.id, "checkout fails")
    window = WindowFacts(CHECKOUT, NOW - 10 * S, NOW, 200, "anomalous", 0.9, 0.004, 41.5, 0.7, 3.2, 9.1, 5.5, 1.25)
    await record(api, replace(ANOMALY, incident_id=INCIDENT_ID))
    await api.backend.state.write(lambda c: incidents.put(c, incident))
    await api.backend.state.write(lambda c: windows.add(c, [window]))
    await keep_evidence(api, ANOMALY, b"checkout")
    silence = Suppression(
        SUPPRESSION_ID, "acme", "pattern", "logs", "checkout", "", "", NOW, FOR_GOOD, "known", "local", NOW
    )
    await api.backend.state.write(lambda c: suppressions.add(c, silence))
    await happen(api, ANOMALY, "anomaly_opened")
    await withhold(api, ANOMALY, text="checkout")
