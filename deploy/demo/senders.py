"""A made-up shop that reports to the sidecar with the real OpenTelemetry SDK.

Two services, each with logs, metrics and traces: `checkout` sends over gRPC, `warehouse` over
HTTP. All chance is seeded. Events keep to a timetable: if the machine stalls, the shop catches up,
with the times at which things should have happened.

Reads orders from standard input, one a line: `break logs`, `mend logs`, likewise `metrics` and
`traces`. Ends, flushing what it has, when standard input ends.

    python senders.py --grpc 127.0.0.1:4317 --http 127.0.0.1:4318 --seed 1
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from opentelemetry._logs import SeverityNumber
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcLogExporter
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpanExporter
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpanExporter
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExporter, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Span, SpanKind, StatusCode, set_span_in_context

EXPORT_MS = 200
"""Between two exports of logs, or of spans."""
METRIC_EXPORT_MS = 250
"""Between two exports of metrics."""

_DURATION_BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0)
_NANO = 1_000_000_000


class Faults:
    """Which signals are broken at the moment; set from the orders, read by the shop."""

    def __init__(self) -> None:
        self._broken: set[str] = set()

    def obey(self, order: str) -> None:
        """Take one order: `break <signal>` or `mend <signal>`."""
        verb, _, signal = order.partition(" ")
        if verb == "break":
            self._broken.add(signal)
        elif verb == "mend":
            self._broken.discard(signal)

    def in_(self, signal: str) -> bool:
        """Return whether the signal is broken."""
        return signal in self._broken


class Telemetry:
    """One service's OpenTelemetry SDK.

    Args:
        service: Its `service.name`.
        exporters: For logs, metrics and spans.
    """

    def __init__(self, service: str, exporters: tuple[LogRecordExporter, MetricExporter, SpanExporter]) -> None:
        resource = Resource.create({"service.name": service, "deployment.environment.name": "demo"})
        log_exporter, metric_exporter, span_exporter = exporters
        self._logs = LoggerProvider(resource=resource)
        self._logs.add_log_record_processor(BatchLogRecordProcessor(log_exporter, schedule_delay_millis=EXPORT_MS))
        reader = PeriodicExportingMetricReader(metric_exporter, export_interval_millis=METRIC_EXPORT_MS)
        self._metrics = MeterProvider([reader], resource=resource)
        self._traces = TracerProvider(resource=resource)
        self._traces.add_span_processor(BatchSpanProcessor(span_exporter, schedule_delay_millis=EXPORT_MS))
        self._logger = self._logs.get_logger(f"{service}.app")
        self._tracer = self._traces.get_tracer(f"{service}.app")
        self.meter = self._metrics.get_meter(f"{service}.app")

    def log(
        self,
        when_unix_nano: int,
        severity: SeverityNumber,
        body: str,
        context: Context | None = None,
        **attributes: str | int,
    ) -> None:
        """Write a log record, with the trace of `context`; `a__b` names the attribute `a.b`."""
        self._logger.emit(
            timestamp=when_unix_nano,
            severity_number=severity,
            severity_text=severity.name,
            body=body,
            context=context,
            attributes={name.replace("__", "."): value for name, value in attributes.items()},
        )

    def trace(self, end_unix_nano: int, root: Step, steps: Iterable[Step]) -> tuple[Context, float]:
        """Write a root span that has just ended, with its steps, one after the other, as children.

        Returns:
            The root's context, and its duration in seconds.
        """
        steps = list(steps)
        duration_ms = root.duration_ms + sum(step.duration_ms for step in steps)
        start = end_unix_nano - int(duration_ms * 1e6)
        span = self._start(root, start, None)
        context = set_span_in_context(span, Context())
        at = start + int(root.duration_ms * 0.3e6)
        for step in steps:
            child = self._start(step, at, context)
            at += int(step.duration_ms * 1e6)
            self._end(child, step, at)
        self._end(span, root, end_unix_nano)
        return context, duration_ms / 1e3

    def shutdown(self) -> None:
        """Send what is left."""
        self._traces.shutdown()
        self._logs.shutdown()
        self._metrics.shutdown()

    def _start(self, step: Step, at_unix_nano: int, parent: Context | None) -> Span:
        return self._tracer.start_span(
            step.name, context=parent or Context(), kind=step.kind, start_time=at_unix_nano, attributes=step.attributes
        )

    @staticmethod
    def _end(span: Span, step: Step, at_unix_nano: int) -> None:
        if step.error:
            span.set_status(StatusCode.ERROR, step.error)
            span.set_attribute("error.type", step.error)
        span.end(end_time=at_unix_nano)


@dataclass(slots=True)
class Step:
    """One operation of a trace."""

    name: str
    kind: SpanKind
    duration_ms: float
    attributes: Mapping[str, str | int] = field(default_factory=dict)
    error: str = ""


class Checkout:
    """The web shop: about 45 requests a second, over four routes, a third of them purchases.

    Broken logs: 28 % of its records are a new error. Broken traces: charging a card takes eight
    times as long, and fails in four of ten cases.
    """

    requests_per_s = 45.0

    def __init__(self, telemetry: Telemetry, faults: Faults, chance: random.Random) -> None:
        self._telemetry, self._faults, self._chance = telemetry, faults, chance
        self._duration = telemetry.meter.create_histogram(
            "http.server.request.duration",
            unit="s",
            description="Duration of HTTP server requests.",
            explicit_bucket_boundaries_advisory=_DURATION_BOUNDS_S,
        )
        self._routes: list[tuple[str, Callable[[], list[Step]]]] = [
            ("GET /products", self._product_steps),
            ("GET /search", self._search_steps),
            ("GET /cart", self._cart_steps),
            ("POST /checkout", self._checkout_steps),
        ]

    def serve(self, now_unix_nano: int) -> None:
        """Serve one request that ends now."""
        route, make_steps = self._chance.choices(self._routes, (24, 20, 20, 36))[0]
        steps = make_steps()
        error = next((step.error for step in steps if step.error), "")
        method, path = route.split(" ")
        status = 502 if error else 200
        attributes: dict[str, str | int] = {
            "http.request.method": method,
            "http.route": path,
            "http.response.status_code": status,
        }
        root = Step(route, SpanKind.SERVER, self._ms(4), attributes, error and "502")
        context, duration_s = self._telemetry.trace(now_unix_nano, root, steps)
        self._duration.record(duration_s, {"http.route": path})
        self._log(now_unix_nano, SeverityNumber.INFO, f"{route} answered in {duration_s * 1e3:.0f} ms", path, context)
        for severity, body in self._remarks(path):
            self._log(now_unix_nano, severity, body, path, context)

    def _product_steps(self) -> list[Step]:
        return [self._session(), Step("cache get", SpanKind.CLIENT, self._ms(1.5)), self._page()]

    def _search_steps(self) -> list[Step]:
        return [self._session(), self._query("search products", 20), self._page()]

    def _cart_steps(self) -> list[Step]:
        return [self._session(), self._query("select cart", 6), self._page()]

    def _checkout_steps(self) -> list[Step]:
        slow = self._faults.in_("traces")
        charge = Step(
            "charge card",
            SpanKind.CLIENT,
            self._ms(60) * (8 if slow else 1),
            {"server.address": "payments.example"},
            "timeout" if slow and self._chance.random() < 0.4 else "",
        )
        return [self._session(), self._query("select cart", 6), charge, self._query("insert order", 9), self._page()]

    def _session(self) -> Step:
        return Step("authenticate session", SpanKind.INTERNAL, self._ms(3))

    def _query(self, name: str, median_ms: float) -> Step:
        return Step(name, SpanKind.CLIENT, self._ms(median_ms), {"db.system.name": "postgresql"})

    def _page(self) -> Step:
        return Step("render page", SpanKind.INTERNAL, self._ms(12))

    def _remarks(self, path: str) -> list[tuple[SeverityNumber, str]]:
        chance = self._chance
        remarks = [
            (SeverityNumber.DEBUG, f"session of user {chance.randrange(90_000)} found in cache"),
            (SeverityNumber.INFO, f"cart of user {chance.randrange(90_000)} has {chance.randrange(1, 9)} items"),
        ]
        if path == "/checkout":
            price = f"{chance.randrange(5, 400)}.{chance.randrange(100):02d}"
            remarks.append((SeverityNumber.INFO, f"order {chance.randrange(10**6)} placed for {price} EUR"))
        if chance.random() < 0.12:
            remarks.append((SeverityNumber.WARN, f"cache miss for product {chance.randrange(5000)}"))
        return remarks

    def _log(self, when: int, severity: SeverityNumber, body: str, route: str, context: Context) -> None:
        if self._faults.in_("logs") and self._chance.random() < 0.28:
            severity = SeverityNumber.ERROR
            order = self._chance.randrange(10**6)
            body = f"coupon service refused connection, order {order} priced without discount"
        self._telemetry.log(when, severity, body, context, http__route=route)

    def _ms(self, median: float) -> float:
        return self._chance.lognormvariate(math.log(median), 0.3)


class Warehouse:
    """The warehouse: about 12 shipments a second, and six queues of work.

    Broken metrics: the packing queue is six times as long as usual.
    """

    shipments_per_s = 12.0
    _usual_depths: Mapping[str, float] = {
        "picking": 40.0,
        "packing": 25.0,
        "labels": 60.0,
        "loading": 15.0,
        "customs": 30.0,
        "returns": 20.0,
    }

    def __init__(self, telemetry: Telemetry, faults: Faults, chance: random.Random) -> None:
        self._telemetry, self._faults, self._chance = telemetry, faults, chance
        # Read by the metric reader's thread, hence chance of its own.
        self._depth_chance = random.Random(chance.random())
        self._swing = dict.fromkeys(self._usual_depths, 0.0)
        self._items = telemetry.meter.create_counter("items.picked", unit="{item}", description="Items picked.")
        telemetry.meter.create_observable_gauge(
            "queue.depth", [self._depths], unit="{job}", description="Jobs that wait, by queue."
        )

    def ship(self, now_unix_nano: int) -> None:
        """Finish one shipment now."""
        chance = self._chance
        carrier = chance.choices(("post", "courier", "freight"), (6, 3, 1))[0]
        shipment, count = chance.randrange(10**6), chance.randrange(3, 9)
        steps = [
            Step("pick items", SpanKind.INTERNAL, self._ms(25)),
            Step("pack parcel", SpanKind.INTERNAL, self._ms(40)),
            Step("print label", SpanKind.CLIENT, self._ms(15), {"peer.service": "label-printer"}),
        ]
        root = Step("process shipment", SpanKind.CONSUMER, self._ms(5), {"messaging.system": "rabbitmq"})
        context, _ = self._telemetry.trace(now_unix_nano, root, steps)
        for zone in ("north", "east", "south", "west"):
            self._items.add(count + chance.randrange(3), {"zone": zone})
        bodies = [
            (SeverityNumber.INFO, f"picked {count} items for shipment {shipment}"),
            (SeverityNumber.INFO, f"label printed for shipment {shipment} by {carrier}"),
            (SeverityNumber.DEBUG, f"scanner {chance.randrange(20)} synchronised in {chance.randrange(3, 40)} ms"),
        ]
        if chance.random() < 0.1:
            bodies.append((SeverityNumber.WARN, f"shelf {chance.randrange(300)} is running low"))
        for severity, body in bodies:
            self._telemetry.log(now_unix_nano, severity, body, context, carrier=carrier)

    def _depths(self, options: CallbackOptions) -> list[Observation]:
        observations = []
        for queue, usual in self._usual_depths.items():
            # Wanders about its usual length, by some 12 %.
            self._swing[queue] = 0.8 * self._swing[queue] + self._depth_chance.gauss(0, 0.07)
            depth = usual * math.exp(self._swing[queue])
            if queue == "packing" and self._faults.in_("metrics"):
                depth *= 6
            observations.append(Observation(round(depth), {"queue": queue}))
        return observations

    def _ms(self, median: float) -> float:
        return self._chance.lognormvariate(math.log(median), 0.3)


def keep_timetable(act: Callable[[int], None], per_s: float, chance: random.Random, is_over: threading.Event) -> None:
    """Call `act` with its due time, about `per_s` times a second, a little irregularly."""
    due_unix_nano = time.time_ns()
    while not is_over.is_set():
        due_unix_nano += int(chance.gammavariate(4.0, 0.25 / per_s) * _NANO)
        is_over.wait(max((due_unix_nano - time.time_ns()) / _NANO, 0.0))
        act(due_unix_nano)


def main() -> None:
    """Run the shop until standard input ends."""
    parser = argparse.ArgumentParser(description="A made-up shop that sends telemetry.")
    parser.add_argument("--grpc", required=True, help="host:port of the sidecar's OTLP/gRPC receiver")
    parser.add_argument("--http", required=True, help="host:port of the sidecar's OTLP/HTTP receiver")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()

    over_grpc = Telemetry(
        "checkout",
        (
            GrpcLogExporter(endpoint=options.grpc, insecure=True),
            GrpcMetricExporter(endpoint=options.grpc, insecure=True),
            GrpcSpanExporter(endpoint=options.grpc, insecure=True),
        ),
    )
    base = f"http://{options.http}/v1"
    over_http = Telemetry(
        "warehouse",
        (
            HttpLogExporter(endpoint=f"{base}/logs"),
            HttpMetricExporter(endpoint=f"{base}/metrics"),
            HttpSpanExporter(endpoint=f"{base}/traces"),
        ),
    )
    faults, is_over = Faults(), threading.Event()
    checkout = Checkout(over_grpc, faults, random.Random(options.seed))
    warehouse = Warehouse(over_http, faults, random.Random(options.seed + 1))
    threads = [
        threading.Thread(target=keep_timetable, args=(act, per_s, random.Random(options.seed + offset), is_over))
        for act, per_s, offset in (
            (checkout.serve, Checkout.requests_per_s, 2),
            (warehouse.ship, Warehouse.shipments_per_s, 3),
        )
    ]
    for thread in threads:
        thread.start()
    for order in sys.stdin:
        faults.obey(order.strip())
    is_over.set()
    for thread in threads:
        thread.join()
    over_grpc.shutdown()
    over_http.shutdown()


if __name__ == "__main__":
    main()
