"""`/v1/streams`: what is followed, how far it has been learned, and how its windows scored."""

from __future__ import annotations

import sqlite3
from typing import Annotated

import msgspec
from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field

from driftlock_otlp.api.access import Caller
from driftlock_otlp.api.cursors import opaque, plain
from driftlock_otlp.api.health_check import rfc3339
from driftlock_otlp.api.v1.backend import Backend, Backing
from driftlock_otlp.api.v1.may import Reader
from driftlock_otlp.api.v1.problems import documented
from driftlock_otlp.api.v1.values import Cursor, Limit, Page, SignalName, Time, TimeParameter, time_of
from driftlock_otlp.errors import NotFoundError
from driftlock_otlp.model import StreamKey, WindowFacts
from driftlock_otlp.observability.live import LiveStream
from driftlock_otlp.storage import windows
from driftlock_otlp.windowing.tracked_stream import SHOWN_NAME

router = APIRouter(tags=["streams"])

_Parts = tuple[str, str, str, str]
_parts_decoder: msgspec.json.Decoder[_Parts] = msgspec.json.Decoder(_Parts)
_MOST_UNIX_NANO = (1 << 63) - 1

StreamId = Annotated[str, Path(min_length=1, max_length=8192, description="Id of a stream, as in the list.")]


class StreamRef(BaseModel):
    """Which stream."""

    id: str = Field(description="Names the stream in paths.")
    signal: SignalName = Field(description="What it holds.")
    service: str = Field(description="`service.name` of the resource.")
    name: str = Field(description="Metric, or model of an LLM operation; empty for logs and traces.")
    organization: str = Field(description="Whose it is; empty without keys.")


class Live(BaseModel):
    """What the detector says of a stream now."""

    is_warm: bool = Field(description="Whether it may alarm.")
    windows_to_warm: int = Field(description="Windows until it may, at least; 0 once it may.")
    baseline_windows: int = Field(description="Windows in the baseline.")
    baseline_records: int = Field(description="Records in them.")
    open_records: int = Field(description="Records in windows that are still open.")
    window_size: int = Field(description="Records at which a window closes.")
    anomaly_id: str | None = Field(description="The anomaly that goes on.")


class Stream(StreamRef):
    """A stream and how it is."""

    live: Live | None = Field(description="null if no worker follows it now.")


class Streams(Page):
    """Some streams, by signal, service and name."""

    streams: list[Stream]


class Window(BaseModel):
    """A scored window."""

    start: Time = Field(description="Event time of its first record.")
    end: Time = Field(description="Event time of its last record.")
    record_count: int
    outcome: str = Field(description="clean, flagged, anomalous or warming_up.")
    score: float = Field(description="[0, 1]; 0.5 is the bar of an immediate alarm.")
    p_value: float = Field(description="Conformal p-value, (0, 1].")
    bits: float = Field(description="Calibrated surprise, in bits.")
    ncd: float = Field(description="Normalised compression distance to the baseline.")
    compression_ratio: float
    baseline_compression_ratio: float
    entropy_bits: float = Field(description="Entropy of its symbols, bits a record.")
    baseline_entropy_bits: float

    @classmethod
    def of(cls, facts: WindowFacts) -> Window:
        """Return a window as it is told."""
        return cls(
            start=rfc3339(facts.start_unix_nano),
            end=rfc3339(facts.end_unix_nano),
            record_count=facts.record_count,
            outcome=facts.outcome,
            score=facts.score,
            p_value=facts.p_value,
            bits=facts.bits,
            ncd=facts.ncd,
            compression_ratio=facts.compression_ratio,
            baseline_compression_ratio=facts.baseline_compression_ratio,
            entropy_bits=facts.entropy_bits,
            baseline_entropy_bits=facts.baseline_entropy_bits,
        )


class StreamDetail(Stream):
    """A stream with its windows."""

    significance: float = Field(description="p-value at or below which a window is flagged: smaller is less sensitive.")
    has_own_significance: bool = Field(description="Whether somebody has set it for this stream.")
    baseline_since: Time | None = Field(
        description="How far back the baseline reaches: event time of the oldest window in it that is still stored."
    )
    windows: list[Window] = Field(description="Scored windows, newest first.")
    next_before: Time | None = Field(description="`before` of the next page; null at the end.")


def key_of(stream_id: str, caller: Caller) -> StreamKey:
    """Return the stream with this id.

    Raises:
        DecodeError: It is no id.
        NotFoundError: It is another organisation's.
    """
    kind, service, name, tenant = parts = plain(stream_id, _parts_decoder, "stream id")
    # A stream has one id only, which names it in the history, too.
    if opaque(parts) != stream_id or caller.tenant not in {None, tenant}:
        raise NotFoundError("there is no such stream")
    return StreamKey(kind, service, name, tenant)


def ref_of(key: StreamKey) -> StreamRef:
    """Return a stream as it is told."""
    return StreamRef(**_facts(key))


@router.get("/v1/streams", responses=documented(400), operation_id="list_streams", summary="List streams")
async def list_streams(caller: Reader, backend: Backing, limit: Limit = 100, cursor: Cursor = None) -> Streams:
    """Streams that have had a window, or are followed now, by signal, service and name."""
    after = None if cursor is None else plain(cursor, _parts_decoder, "cursor")
    live = await _live(backend, caller)
    known = await backend.state.read(lambda c: windows.streams(c, tenant=caller.tenant, after=after, limit=limit + 1))
    # A name that was cut is not one: such a stream is listed once a window of it is stored.
    whole = [key for key in live if max(len(key.service), len(key.name)) < SHOWN_NAME]
    keys = sorted({key for key in (*known, *whole) if after is None or _parts(key) > after}, key=_parts)
    page = keys[:limit]
    return Streams(
        streams=[Stream(**_facts(key), live=_said(live.get(_cut(key)))) for key in page],
        next_cursor=opaque(_parts(page[-1])) if len(keys) > limit else None,
    )


@router.get("/v1/streams/{id}", responses=documented(400, 404), operation_id="get_stream", summary="Look at a stream")
async def get_stream(
    caller: Reader,
    backend: Backing,
    id: StreamId,
    limit: Limit = 100,
    before: Annotated[TimeParameter | None, Query(description="Only windows that began before.")] = None,
) -> StreamDetail:
    """How a stream is: how far it has been learned, and the scores of its windows over time."""
    key = key_of(id, caller)
    live = (await _live(backend, caller)).get(_cut(key))
    own = await backend.findings.own_significance(caller, id)
    baseline_windows = live.baseline_window_count if live is not None else 0

    def read(connection: sqlite3.Connection) -> tuple[list[WindowFacts], int]:
        found = windows.find(connection, key, limit + 1, _MOST_UNIX_NANO if before is None else before)
        return found, windows.reaches_back_to(connection, key, baseline_windows)

    found, since = await backend.state.read(read)
    if not found and live is None and before is None:
        raise NotFoundError("there is no such stream")
    page = found[:limit]
    return StreamDetail(
        **_facts(key),
        live=_said(live),
        significance=backend.significance(key.kind) if own is None else own,
        has_own_significance=own is not None,
        baseline_since=time_of(since),
        windows=[Window.of(facts) for facts in page],
        next_before=time_of(page[-1].start_unix_nano) if len(found) > limit else None,
    )


async def find_stream(backend: Backend, caller: Caller, stream_id: str) -> StreamKey:
    """Return a stream that has had a window, or is followed now.

    Args:
        backend: Where it may be.
        caller: Who asks.
        stream_id: Its id.

    Raises:
        DecodeError: It is no id.
        NotFoundError: There is none.
    """
    key = key_of(stream_id, caller)
    if _cut(key) not in await _live(backend, caller) and not await backend.state.read(
        lambda c: windows.find(c, key, 1)
    ):
        raise NotFoundError("there is no such stream")
    return key


async def _live(backend: Backend, caller: Caller) -> dict[StreamKey, LiveStream]:
    _, streams = await backend.workers.look()
    return {stream.key: stream for stream in streams if caller.tenant in {None, stream.key.tenant}}


def _cut(key: StreamKey) -> StreamKey:
    """Return a stream as workers name it."""
    return StreamKey(key.kind, key.service[:SHOWN_NAME], key.name[:SHOWN_NAME], key.tenant)


def _said(live: LiveStream | None) -> Live | None:
    if live is None:
        return None
    return Live(
        is_warm=live.windows_to_warm == 0,
        windows_to_warm=live.windows_to_warm,
        baseline_windows=live.baseline_window_count,
        baseline_records=live.baseline_record_count,
        open_records=live.open_record_count,
        window_size=live.window_size,
        anomaly_id=live.anomaly_id or None,
    )


def _parts(key: StreamKey) -> _Parts:
    return key.kind, key.service, key.name, key.tenant


def _facts(key: StreamKey) -> dict[str, str]:
    return {
        "id": opaque(_parts(key)),
        "signal": key.kind,
        "service": key.service,
        "name": key.name,
        "organization": key.tenant,
    }
