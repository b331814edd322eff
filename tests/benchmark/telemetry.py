"""Seeded requests of varied telemetry, as several services would send them: what costs are measured on.

Nothing of it is recorded traffic: sentences, routes and distributions are made up, so that the
number of templates, attribute shapes and repeated values is like that of a small shop's services.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.metrics.v1 import metrics_pb2

from driftlock_otlp.model import Signal

SERVICES = ("checkout", "inventory", "gateway")
START_UNIX_NANO = 1_760_000_000_000_000_000
_NANO = 10**9
_ROUTES = ("/cart", "/cart/{id}", "/orders", "/orders/{id}", "/health", "/items/{id}", "/search", "/login")
_METHODS = ("GET", "GET", "GET", "POST", "PUT", "DELETE")
_SENTENCES: tuple[tuple[str, int, Callable[[random.Random], tuple[Any, ...]]], ...] = (
    ("request finished in {} ms with status {}", 9, lambda r: (r.randrange(2, 900), r.choice((200, 200, 200, 404)))),
    ("user {} added item {} to cart", 9, lambda r: (r.randrange(10**6), r.randrange(10**4))),
    ("cache miss for key session:{:016x}", 9, lambda r: (r.getrandbits(64),)),
    ("reserved {} units of sku {} in warehouse {}", 9, lambda r: (r.randrange(1, 9), r.randrange(10**5), "north")),
    ("connection from {}.{}.{}.{}:{} accepted", 9, lambda r: (10, *(r.randrange(256) for _ in range(3)), 4433)),
    ("SELECT took {:.3f}s, {} rows", 9, lambda r: (r.random(), r.randrange(500))),
    ("order {} paid with card ending {:04d}", 9, lambda r: (r.randrange(10**8), r.randrange(10**4))),
    ("published event order.created partition={} offset={}", 9, lambda r: (r.randrange(12), r.randrange(10**7))),
    ("heartbeat", 9, lambda r: ()),
    ("token refreshed for tenant {}", 9, lambda r: (r.choice(("acme", "globex", "initech")),)),
    ("flushed {} metrics in {} us", 5, lambda r: (r.randrange(900), r.randrange(4000))),
    ("gc pause {} ms, heap {} MB of {} MB", 5, lambda r: (r.randrange(40), r.randrange(900), 1024)),
    ("retrying call to payments, attempt {} of {}", 13, lambda r: (r.randrange(1, 4), 4)),
    ("slow query ({} ms): SELECT * FROM orders WHERE id = {}", 13, lambda r: (r.randrange(999), r.randrange(10**7))),
    ("circuit breaker for shipping is half open", 13, lambda r: ()),
    ("failed to parse promotion '{}'", 17, lambda r: (r.choice(("SPRING", "2for1", "VIP")),)),
    ("timeout after {} ms calling http://shipping:{}/rates", 17, lambda r: (r.randrange(3000, 3100), 8080)),
)
_WEIGHTS = [40 // (1 + place // 2) for place in range(len(_SENTENCES))]
_SEVERITY_TEXTS = {5: "DEBUG", 9: "INFO", 13: "WARN", 17: "ERROR"}


def log_requests(count: int, records: int, seed: int = 1, services: tuple[str, ...] = SERVICES) -> list[bytes]:
    """Return Export requests of logs whose streams have eight columns, four of them from attributes.

    Args:
        count: Requests; each from the next of the services in turn.
        records: Log records in each.
        seed: Another seed, other parameters.
        services: Names of the services.
    """
    draw = random.Random(seed)
    requests = []
    for number in range(count):
        request = ExportLogsServiceRequest()
        scope = _resource(request.resource_logs.add(), services[number % len(services)]).scope_logs.add()
        scope.scope.name, scope.scope.version = "shop.logging", "2.1.0"
        for place, chosen in enumerate(draw.choices(_SENTENCES, _WEIGHTS, k=records)):
            sentence, severity, parameters = chosen
            time = START_UNIX_NANO + number * _NANO + place * (_NANO // records)
            record = scope.log_records.add(time_unix_nano=time, observed_time_unix_nano=time + 1_000_000)
            record.severity_number, record.severity_text = severity, _SEVERITY_TEXTS[severity]
            record.body.string_value = sentence.format(*parameters(draw))
            _attributes(
                record.attributes,
                {
                    "thread.name": f"worker-{draw.randrange(8)}",
                    "code.function.name": f"shop.{draw.choice(('cart', 'orders', 'stock'))}.handle",
                    "http.route": draw.choice(_ROUTES),
                    "duration_ms": draw.lognormvariate(3, 1),
                },
            )
            if draw.random() < 0.6:
                record.trace_id, record.span_id = draw.randbytes(16), draw.randbytes(8)
                record.flags = 1
        requests.append(request.SerializeToString())
    return requests


def trace_requests(count: int, spans: int, seed: int = 1, services: tuple[str, ...] = SERVICES) -> list[bytes]:
    """Return Export requests of spans: traces of one server span and up to five calls below it."""
    draw = random.Random(seed)
    requests = []
    for number in range(count):
        request = ExportTraceServiceRequest()
        scope = _resource(request.resource_spans.add(), services[number % len(services)]).scope_spans.add()
        scope.scope.name = "shop.tracing"
        made = 0
        while made < spans:
            trace_id, root_id = draw.randbytes(16), draw.randbytes(8)
            start = START_UNIX_NANO + number * _NANO + made * (_NANO // spans)
            route, method = draw.choice(_ROUTES), draw.choice(_METHODS)
            for child in range(min(draw.randrange(1, 7), spans - made)):
                span = scope.spans.add(trace_id=trace_id, span_id=draw.randbytes(8) if child else root_id)
                span.start_time_unix_nano = start + child * 1_000_000
                span.end_time_unix_nano = span.start_time_unix_nano + int(draw.lognormvariate(1, 1) * 1_000_000)
                status = draw.choices((200, 404, 503), (95, 4, 1))[0]
                if child == 0:
                    span.name, span.kind = f"{method} {route}", 2
                    _attributes(
                        span.attributes,
                        {"http.request.method": method, "http.route": route, "http.response.status_code": status},
                    )
                else:
                    span.parent_span_id, span.kind = root_id, 3
                    span.name = draw.choice(("SELECT orders", "redis GET", "payments/Charge", f"GET /items/{child}"))
                    _attributes(
                        span.attributes,
                        {"db.system.name": "postgresql", "server.address": "db-0", "net.peer.port": 5432},
                    )
                if status == 503:
                    span.status.code = 2
                    span.events.add(name="exception", time_unix_nano=span.end_time_unix_nano)
                made += 1
        requests.append(request.SerializeToString())
    return requests


def metric_requests(count: int, points: int, seed: int = 1, services: tuple[str, ...] = SERVICES) -> list[bytes]:
    """Return Export requests of data points: gauges, cumulative sums and histograms in equal parts."""
    draw = random.Random(seed)
    requests = []
    totals: dict[tuple[str, int], list[int]] = {}
    each = points // 3
    for number in range(count):
        request = ExportMetricsServiceRequest()
        service = services[number % len(services)]
        scope = _resource(request.resource_metrics.add(), service).scope_metrics.add()
        scope.scope.name = "shop.metrics"
        gauge = scope.metrics.add(name="queue.depth", unit="{item}").gauge
        total = scope.metrics.add(name="requests", unit="{request}").sum
        total.aggregation_temporality, total.is_monotonic = metrics_pb2.AGGREGATION_TEMPORALITY_CUMULATIVE, True
        histogram = scope.metrics.add(name="latency", unit="ms").histogram
        histogram.aggregation_temporality = metrics_pb2.AGGREGATION_TEMPORALITY_CUMULATIVE
        for series in range(each):
            time = START_UNIX_NANO + number * 10 * _NANO
            labels = {"route": _ROUTES[series % len(_ROUTES)], "pod": f"pod-{series // len(_ROUTES)}"}
            state = totals.setdefault((service, series), [0] * 11)
            point = gauge.data_points.add(time_unix_nano=time, as_double=draw.gauss(50, 5))
            _attributes(point.attributes, labels)
            state[10] += draw.randrange(100)
            point = total.data_points.add(start_time_unix_nano=START_UNIX_NANO - 1, time_unix_nano=time)
            point.as_int = state[10]
            _attributes(point.attributes, labels)
            for bin_ in range(10):
                state[bin_] += draw.randrange(20 - bin_)
            bins = histogram.data_points.add(start_time_unix_nano=START_UNIX_NANO - 1, time_unix_nano=time)
            bins.bucket_counts.extend(state[:10])
            bins.explicit_bounds.extend([1, 2, 5, 10, 20, 50, 100, 200, 500])
            bins.count, bins.sum = sum(state[:10]), 12.5 * sum(state[:10])
            _attributes(bins.attributes, labels)
        requests.append(request.SerializeToString())
    return requests


REQUESTS: dict[Signal, Callable[..., list[bytes]]] = {
    Signal.LOGS: log_requests,
    Signal.METRICS: metric_requests,
    Signal.TRACES: trace_requests,
}
"""Makers by signal, all with the same arguments."""


def _resource(entry: Any, service: str) -> Any:
    _attributes(
        entry.resource.attributes,
        {"service.name": service, "service.instance.id": f"{service}-7d9f8-x2x", "deployment.environment.name": "prod"},
    )
    return entry


def _attributes(attributes: Any, values: dict[str, str | int | float]) -> None:
    for key, value in values.items():
        any_value = attributes.add(key=key).value
        if isinstance(value, str):
            any_value.string_value = value
        elif isinstance(value, int):
            any_value.int_value = value
        else:
            any_value.double_value = value
