"""Metric data points: extraction from requests, and the columns of a window of them.

What a cumulative point says about the time since the point before it is worked out in
`windowing.intervals`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from typing import Any

import numpy as np
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.metrics.v1 import metrics_pb2 as pb

from driftlock_otlp.detection.columns import Columns, Counts, Number
from driftlock_otlp.model import StreamKind
from driftlock_otlp.windowing.batch import StreamBatch
from driftlock_otlp.windowing.encoding import SymbolColumns, number_values, text_of
from driftlock_otlp.windowing.extraction import (
    ATTRIBUTE_PREFIX,
    MAX_VALUE_CHARS,
    StreamBatches,
    add_record,
    plain_value,
)
from driftlock_otlp.windowing.intervals import Interval, SeriesMemory

MAX_BINS = 512
"""Columns of `buckets` that a window may have; further bins are left out."""

_MAX_QUANTILES = 8
_MAX_UNIT_CHARS = 32
_NO_RECORDED_VALUE = pb.DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK
_TEMPORALITY: dict[int, str] = {
    pb.AGGREGATION_TEMPORALITY_DELTA: "delta",
    pb.AGGREGATION_TEMPORALITY_CUMULATIVE: "cumulative",
}
_HISTOGRAM_COLUMNS = ("mean", "count_rate", "p95")
_POINT_CLASSES: dict[str, Any] = {
    "gauge": pb.NumberDataPoint,
    "sum": pb.NumberDataPoint,
    "histogram": pb.HistogramDataPoint,
    "exponential_histogram": pb.ExponentialHistogramDataPoint,
    "summary": pb.SummaryDataPoint,
}
_MOST_REMEMBERED = 4_096
_MAX_REMEMBERED_BYTES = 1_024
_COLUMNS_OF_TYPE = {
    "gauge": ("value",),
    "histogram": _HISTOGRAM_COLUMNS,
    "exponential_histogram": _HISTOGRAM_COLUMNS,
    "summary": ("mean", "count_rate"),
}


def extract(message: ExportMetricsServiceRequest, tenant: str) -> list[StreamBatch]:
    """Return the request's data points, one batch per service and metric.

    Args:
        message: The decoded request.
        tenant: Organisation it belongs to.

    Returns:
        Batches with the fields `type` (gauge, sum, histogram, exponential_histogram or summary),
        `series` (attributes as sorted text), `source` (digest of resource and scope), `unit`,
        `temporality`, `monotonic`, `start_time_unix_nano`, `no_recorded_value`, `trace_id` and
        `span_id` of an exemplar, `attributes.<key>`, and the values: `value`; or `count`, `sum`
        and what the type has.
    """
    batches = StreamBatches(tenant)
    item = -1
    for resource_metrics in message.resource_metrics:
        batches.enter_resource(resource_metrics.resource, resource_metrics.schema_url)
        for scope_metrics in resource_metrics.scope_metrics:
            source = _source_digest(batches.resource, scope_metrics.scope.name)
            for metric in scope_metrics.metrics:
                kind = metric.WhichOneof("data")
                if kind is None:
                    continue
                batch = batches.batch(StreamKind.METRICS.value, metric.name)
                data = getattr(metric, kind)
                temporality = getattr(data, "aggregation_temporality", 0)
                shared = _shared(kind, source, metric.unit, temporality, getattr(data, "is_monotonic", False))
                for point in data.data_points:
                    item += 1
                    _add_point(batch, item, kind, shared, point)
    return batches.all()


def extract_scanned(payload: bytes, tenant: str, scan: Any) -> list[StreamBatch]:
    """Return what `extract` does, from protobuf that the scanner has checked.

    Args:
        payload: The request.
        tenant: Organisation it belongs to.
        scan: The scanner.
    """
    batches = StreamBatches(tenant)
    item = -1
    kinds = {getattr(scan, kind.upper()): kind for kind in _POINT_CLASSES}
    for resource, schema_url, scopes in scan.envelopes(payload):
        batches.enter_serialized_resource(resource, schema_url)
        for scope, start, stop in scopes:
            source = _source_digest(batches.resource, scope)
            for name, unit, number, temporality, is_monotonic, data_start, data_stop in scan.metrics(
                payload, start, stop
            ):
                kind = kinds[number]
                batch = batches.batch(StreamKind.METRICS.value, name)
                shared = _shared(kind, source, unit, temporality, is_monotonic)
                add_slowly = partial(_add_serialized_point, batch, kind, shared, payload)
                attributes_of = _HISTOGRAM_ATTRIBUTES if kind == "histogram" else _NUMBER_ATTRIBUTES
                reader = scan.PointReader(payload, attributes_of, add_slowly)
                columns = (batch.fields, batch.items, batch.times_unix_nano)
                item = reader.read(data_start, data_stop, item, number, tuple(shared.values()), *columns)
    return batches.all()


def _shared(kind: str, source: str, unit: str, temporality: int, is_monotonic: bool) -> dict[str, Any]:
    """Return the fields that all data points of a metric have in common."""
    return {
        "type": kind,
        "source": source,
        "unit": unit[:_MAX_UNIT_CHARS],
        "temporality": _TEMPORALITY.get(temporality, ""),
        "monotonic": bool(is_monotonic),
    }


def _source_digest(resource: bytes, scope: str) -> str:
    return hashlib.blake2b(resource + b"\0" + scope.encode(), digest_size=8).hexdigest()


def _add_point(batch: StreamBatch, item: int, kind: str, shared: dict[str, Any], point: Any) -> None:
    fields = dict(shared)
    fields["series"] = _series(point.attributes, fields)
    fields["start_time_unix_nano"] = point.start_time_unix_nano
    fields["no_recorded_value"] = bool(point.flags & _NO_RECORDED_VALUE)
    _add_values(kind, point, fields)
    add_record(batch, item, point.time_unix_nano, fields)


def _add_serialized_point(
    batch: StreamBatch, kind: str, shared: dict[str, Any], payload: bytes, item: int, start: int, stop: int
) -> None:
    _add_point(batch, item, kind, shared, _POINT_CLASSES[kind].FromString(payload[start:stop]))


def _attribute_reader(point_class: Any) -> Callable[[bytes], tuple[tuple[str, ...], tuple[Any, ...], str]]:
    """Return what reads the attributes of a point of this class by their bytes, and remembers those that are short."""

    def read(serialized: bytes) -> tuple[tuple[str, ...], tuple[Any, ...], str]:
        fields: dict[str, Any] = {}
        series = _series(point_class.FromString(serialized).attributes, fields)
        return tuple(fields), tuple(fields.values()), series

    remembered = lru_cache(maxsize=_MOST_REMEMBERED)(read)
    return lambda serialized: (remembered if len(serialized) <= _MAX_REMEMBERED_BYTES else read)(serialized)


def _series(attributes: Iterable[KeyValue], fields: dict[str, Any]) -> str:
    """Add the attributes to the fields and return them as text, sorted by key."""
    values = {attribute.key: plain_value(attribute.value) for attribute in attributes}
    for key, value in values.items():
        fields[ATTRIBUTE_PREFIX + key[:MAX_VALUE_CHARS]] = value
    return ",".join(f"{key}={'' if values[key] is None else text_of(values[key])}" for key in sorted(values))[
        :MAX_VALUE_CHARS
    ]


_NUMBER_ATTRIBUTES = _attribute_reader(pb.NumberDataPoint)
_HISTOGRAM_ATTRIBUTES = _attribute_reader(pb.HistogramDataPoint)


def _add_values(kind: str, point: Any, fields: dict[str, Any]) -> None:
    if kind in ("gauge", "sum"):
        which = point.WhichOneof("value")
        fields["value"] = getattr(point, which) if which else None
    else:
        fields["count"] = point.count
        if kind == "summary":
            fields["sum"] = point.sum
            quantiles = sorted((entry.quantile, entry.value) for entry in point.quantile_values)
            fields["quantiles"] = [quantile for quantile, _ in quantiles]
            fields["quantile_values"] = [value for _, value in quantiles]
            return
        fields["sum"] = point.sum if point.HasField("sum") else None
        if kind == "histogram":
            fields["bucket_counts"] = list(point.bucket_counts)
            fields["explicit_bounds"] = list(point.explicit_bounds)
        else:
            fields["scale"] = point.scale
            fields["zero_count"] = point.zero_count
            fields["positive_offset"] = point.positive.offset
            fields["positive_counts"] = list(point.positive.bucket_counts)
            fields["negative_offset"] = point.negative.offset
            fields["negative_counts"] = list(point.negative.bucket_counts)
    traced = next((exemplar for exemplar in point.exemplars if exemplar.trace_id), None)
    if traced is not None:
        fields["trace_id"] = traced.trace_id
        fields["span_id"] = traced.span_id or None


class MetricShaper:
    """Columns of windows of one metric's data points.

    Category: `series`. Numbers, each a time series per symbol of `series`: `value` of gauges and
    non-monotonic sums, `rate` a second of counters and of delta sums, `mean`, `count_rate` and
    `p95` of histograms, and `quantile_<q>` of summaries. Counts: `buckets`, the observations of
    the interval per bucket; exponential histograms on a ladder of powers of two.

    A point that says nothing about its interval (the first of a cumulative series, a late or
    repeated one, one without a value) is NaN.
    """

    def __init__(self) -> None:
        self._symbols = SymbolColumns()
        self._memory = SeriesMemory()
        self._names: dict[str, None] = {}
        self._has_buckets = False

    @property
    def late_points(self) -> int:
        """Points so far that were not younger than the last of their series."""
        return self._memory.late_points

    @property
    def gap_points(self) -> int:
        """Points so far that said their series had no value."""
        return self._memory.gap_points

    @property
    def resets(self) -> int:
        """Restarts of counters so far."""
        return self._memory.resets

    def shape(self, batch: StreamBatch) -> Columns:
        """Return the typed columns of one window, windows being given in order."""
        n = len(batch.items)
        columns = Columns(record_count=n, time_unix_nano=np.array(batch.times_unix_nano, dtype=np.int64))
        names = [name for name in batch.fields if not name.startswith(ATTRIBUTE_PREFIX)]
        rows = zip(*(batch.column(name) for name in names), strict=True)
        intervals = []
        labels = []
        for time, row in zip(batch.times_unix_nano, rows, strict=True):
            point = dict(zip(names, row, strict=True))
            interval = self._memory.take(point, time)
            self._admit(point, interval)
            intervals.append(interval)
            labels.append(interval.series)
        columns.categories["series"] = self._symbols.encode("series", labels)
        unit = next((text for text in batch.column("unit") if text), "")
        for name in self._names:
            values = number_values([interval.numbers.get(name) for interval in intervals])
            own = f"{unit}/s" if name == "rate" else "1/s" if name == "count_rate" else unit
            columns.numbers[name] = Number(values, given="series", is_point_series=True, unit=own)
        if self._has_buckets:
            columns.counts["buckets"] = _counts(intervals)
        return columns

    def _admit(self, point: dict[str, Any], interval: Interval) -> None:
        """Remember the columns that this type of point has, so that windows do not differ in them."""
        kind = point["type"]
        if kind == "sum":
            expected: tuple[str, ...] = ("rate",) if interval.is_rate else ("value",)
        else:
            expected = _COLUMNS_OF_TYPE[kind]
        for name in expected:
            self._names.setdefault(name)
        if kind in ("histogram", "exponential_histogram"):
            self._has_buckets = True
        for name in interval.numbers:
            if name not in self._names and len(self._names) < len(_HISTOGRAM_COLUMNS) + _MAX_QUANTILES:
                self._names[name] = None

    def state(self) -> dict[str, Any]:
        """Return everything remembered, as plain values."""
        return {
            "symbols": self._symbols.state(),
            "memory": self._memory.state(),
            "names": list(self._names),
            "has_buckets": self._has_buckets,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Become the shaper that returned this state."""
        self._symbols = SymbolColumns.of_state(state["symbols"])
        self._memory = SeriesMemory.of_state(state["memory"])
        self._names = dict.fromkeys(state["names"])
        self._has_buckets = state["has_buckets"]


def _counts(intervals: list[Interval]) -> Counts:
    """Return the intervals' buckets as one table, bins in ascending order of their upper bounds."""
    bins = sorted({bin_ for interval in intervals for bin_ in interval.buckets})[:MAX_BINS]
    place = {bin_: column for column, bin_ in enumerate(bins)}
    table = np.zeros((len(intervals), len(bins)))
    for row, interval in enumerate(intervals):
        for bin_, count in interval.buckets.items():
            column = place.get(bin_)
            if column is not None:
                table[row, column] += count
    return Counts(table, [f"({lower:g}, {upper:g}]" if lower < upper else f"{upper:g}" for lower, upper in bins])
