"""The management API over gRPC: list, get, watch and set the status of anomalies, as over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn
from urllib.parse import unquote

import grpc
import grpc.aio
import structlog
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from pydantic import ValidationError

from driftlock_otlp.api.access import Access, Caller
from driftlock_otlp.api.feed import News
from driftlock_otlp.api.management_v1 import management_pb2 as pb
from driftlock_otlp.api.v1.actions import NewStatus
from driftlock_otlp.api.v1.anomaly_query import AnomalyQuery
from driftlock_otlp.api.v1.anomaly_schemas import AnomalyDetail, AnomalySummary, HistoryItem
from driftlock_otlp.api.v1.backend import Backend
from driftlock_otlp.auth.roles import Permission
from driftlock_otlp.config.values import Endpoint
from driftlock_otlp.errors import ConfigError, DecodeError, DriftlockError, OverloadedError
from driftlock_otlp.http_listener import remove_stale_socket
from driftlock_otlp.model import AnomalyStatus
from driftlock_otlp.observability.metrics import Metrics
from driftlock_otlp.otlp import responses

SERVICE = "driftlock.management.v1.Management"

_KEY = "api.grpc_endpoint"
_MOST_REQUEST_BYTES = 1 << 20
_LONGEST_STOP_S = 2.0
_DEFAULT_LIMIT = 100
_RETRY_S = 2.0

_logger = structlog.get_logger(__name__)


class ManagementGrpc:
    """Serves the management API over gRPC; a `Component`.

    Args:
        endpoint: Where to listen.
        backend: What the calls stand on.
        access: Who may ask.
        metrics: Where unexpected errors are counted.
    """

    name = "api.grpc"

    def __init__(self, endpoint: Endpoint, backend: Backend, access: Access, metrics: Metrics) -> None:
        self._endpoint = endpoint
        self._backend = backend
        self._access = access
        self._metrics = metrics
        self._server: grpc.aio.Server | None = None
        self._port = 0

    @property
    def port(self) -> int:
        """The port in use once started; 0 for a unix socket."""
        return self._port

    async def start(self) -> None:
        """Listen.

        Raises:
            ConfigError: The address cannot be listened on.
        """
        options = [("grpc.max_receive_message_length", _MOST_REQUEST_BYTES), ("grpc.so_reuseport", 0)]
        server = grpc.aio.server(options=options)
        server.add_generic_rpc_handlers((self._handlers(),))
        try:
            if self._endpoint.path:
                remove_stale_socket(self._endpoint.path)
            port = server.add_insecure_port(str(self._endpoint))
        except (OSError, RuntimeError) as error:
            raise ConfigError(f"{_KEY}: cannot listen on {self._endpoint} (is it taken?): {error}") from None
        self._port = 0 if self._endpoint.path else port
        await server.start()
        self._server = server

    async def stop(self, grace_s: float) -> None:
        """Let calls in flight finish; those who watch are let go."""
        if self._server is not None:
            server, self._server = self._server, None
            self._backend.feed.close()
            await server.stop(min(grace_s, _LONGEST_STOP_S))

    def _handlers(self) -> grpc.GenericRpcHandler:
        unary: dict[str, tuple[Callable[[Caller, Any], Awaitable[Message]], Permission, Any]] = {
            "ListAnomalies": (self._list, Permission.READ, pb.ListAnomaliesRequest),
            "GetAnomaly": (self._get, Permission.READ, pb.GetAnomalyRequest),
            "SetStatus": (self._set_status, Permission.ACT, pb.SetStatusRequest),
        }
        methods = {
            name: grpc.unary_unary_rpc_method_handler(
                self._guarded(work, permission), request_deserializer=kind.FromString, response_serializer=_encode
            )
            for name, (work, permission, kind) in unary.items()
        }
        methods["WatchAnomalies"] = grpc.unary_stream_rpc_method_handler(
            self._watch, request_deserializer=pb.WatchAnomaliesRequest.FromString, response_serializer=_encode
        )
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    def _guarded(
        self, work: Callable[[Caller, Any], Awaitable[Message]], permission: Permission
    ) -> Callable[[Any, grpc.aio.ServicerContext], Awaitable[Message]]:
        async def call(request: Any, context: grpc.aio.ServicerContext) -> Message:
            try:
                return await work(self._caller(context, permission), request)
            except Exception as error:
                await self._fail(context, error)

        return call

    async def _fail(self, context: grpc.aio.ServicerContext, error: Exception) -> NoReturn:
        if isinstance(error, ValidationError):
            mistakes = error.errors(include_input=False, include_url=False)
            error = DecodeError("; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in mistakes))
        elif not isinstance(error, DriftlockError):
            self._metrics.errors.labels("api").inc()
            _logger.exception("request_failed", transport="grpc")
        failure = responses.grpc_failure(error)
        await context.abort(failure.code, failure.message, failure.trailing_metadata)
        raise AssertionError("abort always raises")

    def _caller(self, context: grpc.aio.ServicerContext, permission: Permission) -> Caller:
        self._access.require_local(_peer(context.peer()), None, None)
        caller = self._identify(context)
        caller.require(permission)
        return caller

    def _identify(self, context: grpc.aio.ServicerContext) -> Caller:
        metadata = {name: value for name, value in context.invocation_metadata() or () if isinstance(value, str)}
        return self._access.identify(metadata.get("authorization"), metadata.get("x-api-key"))

    async def _list(self, caller: Caller, request: pb.ListAnomaliesRequest) -> Message:
        query = _query(request)
        page = await self._backend.findings.page(caller, query.where(), query.limit, query.cursor)
        return pb.ListAnomaliesResponse(
            anomalies=[_anomaly(AnomalySummary.of(anomaly)) for anomaly in page.anomalies],
            next_cursor=page.next_cursor or "",
        )

    async def _get(self, caller: Caller, request: pb.GetAnomalyRequest) -> Message:
        told = AnomalyDetail.of_told(await self._backend.findings.told(caller, request.id, 0), [])
        detail = pb.AnomalyDetail(anomaly=_anomaly(told))
        facts = told.model_dump()
        for name in _DETAIL_FIELDS:
            if facts[name] is not None:
                setattr(detail, name, facts[name])
        _set_times(detail, {"window_start": told.window_start, "window_end": told.window_end})
        detail.related_trace_ids.extend(told.related_trace_ids)
        detail.evidence.extend(pb.Evidence(**item.model_dump()) for item in told.evidence)
        detail.history.extend(_entry(item) for item in told.history)
        return detail

    async def _set_status(self, caller: Caller, request: pb.SetStatusRequest) -> Message:
        new = NewStatus.model_validate({"status": request.status, "note": request.note})
        anomaly = await self._backend.findings.set_status(caller, request.id, AnomalyStatus(new.status), new.note)
        return _anomaly(AnomalySummary.of(anomaly))

    async def _watch(self, request: pb.WatchAnomaliesRequest, context: grpc.aio.ServicerContext) -> None:
        feed = self._backend.feed
        try:
            caller = self._caller(context, Permission.READ)
            with feed.place(caller):
                floor, newest = await feed.ends()
                after = min(max(request.after, 0), newest) if request.HasField("after") else newest
                async for message in self._news(caller, context, after, floor):
                    try:
                        async with asyncio.timeout(feed.slow_s):
                            await context.write(message)
                    except TimeoutError:
                        raise OverloadedError("nothing was taken for too long; come back", _RETRY_S) from None
        except Exception as error:
            await self._fail(context, error)

    async def _news(
        self, caller: Caller, context: grpc.aio.ServicerContext, after: int, floor: int
    ) -> AsyncIterator[pb.News]:
        yield pb.News(seq=after, missed_up_to=floor if after < floor else 0)
        async for up_to, news in self._backend.feed.follow(caller, after):
            for item in news:
                yield _news(item)
            if not news:
                self._identify(context)
                yield pb.News(seq=up_to)


_DETAIL_FIELDS = (
    *("compression_ratio", "baseline_compression_ratio", "entropy_bits", "baseline_entropy_bits", "baseline_windows"),
    *("baseline_records", "span_id", "fingerprint", "compressor", "feedback", "has_evidence_bundle"),
    *("withheld_items", "released_items"),
)
_TIMES = ("detected_at", "last_at", "resolved_at")


def _encode(message: Message) -> bytes:
    encoded: bytes = message.SerializeToString()
    return encoded


def _query(request: pb.ListAnomaliesRequest) -> AnomalyQuery:
    """Return the query that a request is; what is left out is not asked for."""
    given: dict[str, Any] = {
        field.name: value for field, value in request.ListFields() if field.name not in {"since", "until"}
    }
    given.setdefault("limit", _DEFAULT_LIMIT)
    for name in ("since", "until"):
        if request.HasField(name):
            try:
                given[name] = getattr(request, name).ToJsonString()
            except ValueError:
                raise DecodeError(f"{name}: not a time") from None
    return AnomalyQuery.model_validate(given)


def _anomaly(summary: AnomalySummary) -> pb.Anomaly:
    facts = {name: getattr(summary, name) for name in AnomalySummary.model_fields}
    times = {name: facts.pop(name) for name in _TIMES}
    stream = pb.Stream(**facts.pop("stream").model_dump())
    message = pb.Anomaly(stream=stream, **{name: value for name, value in facts.items() if value is not None})
    _set_times(message, times)
    return message


def _entry(item: HistoryItem) -> pb.HistoryEntry:
    facts = item.model_dump()
    at, detail = facts.pop("at"), facts.pop("detail")
    message = pb.HistoryEntry(**facts)
    message.detail.SetInParent()
    message.detail.update(detail)
    _set_times(message, {"at": at})
    return message


def _news(news: News) -> pb.News:
    return pb.News(
        seq=news.entry.seq,
        entry=_entry(HistoryItem.of(news.entry)),
        anomaly=_anomaly(AnomalySummary.of(news.anomaly)),
    )


def _set_times(message: Any, times: dict[str, str | None]) -> None:
    for name, text in times.items():
        if text is not None:
            time = Timestamp()
            time.FromJsonString(text)
            getattr(message, name).CopyFrom(time)


def _peer(peer: str) -> str | None:
    """Return the address of a peer as gRPC names it; None for a unix socket.

    >>> [_peer(peer) for peer in ("ipv4:127.0.0.1:5", "ipv6:%5B::1%5D:5", "unix:", "odd")]
    ['127.0.0.1', '::1', None, '']
    """
    kind, _, rest = peer.partition(":")
    if kind.startswith("unix"):
        return None
    return unquote(rest).rpartition(":")[0].strip("[]") if kind in {"ipv4", "ipv6"} else ""
