from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1 import metrics_pb2 as pb

from driftlock_otlp.detection.columns import Columns
from driftlock_otlp.model import Signal, StreamKey
from driftlock_otlp.windowing.intervals import MAX_SERIES, on_ladder, quantile_of
from driftlock_otlp.windowing.metrics import MetricShaper
from driftlock_otlp.windowing.streams import split_request
from tests.unit.windowing.messages import SECOND, T0, metrics, only, pairs, resource

DELTA, CUMULATIVE = pb.AGGREGATION_TEMPORALITY_DELTA, pb.AGGREGATION_TEMPORALITY_CUMULATIVE
NAN = float("nan")


def _number(value: float | None, at: float, start: float | None = None, **attributes: Any) -> pb.NumberDataPoint:
    """A point at `at` seconds after T0."""
    point = pb.NumberDataPoint(time_unix_nano=T0 + round(at * SECOND), attributes=pairs(attributes))
    if start is not None:
        point.start_time_unix_nano = T0 + round(start * SECOND)
    if isinstance(value, int):
        point.as_int = value
    elif value is not None:
        point.as_double = value
    return point


def _gauge(*points: pb.NumberDataPoint, name: str = "m") -> pb.Metric:
    return pb.Metric(name=name, gauge=pb.Gauge(data_points=points))


def _sum(*points: pb.NumberDataPoint, temporality: Any = CUMULATIVE, monotonic: bool = True) -> pb.Metric:
    data = pb.Sum(data_points=points, aggregation_temporality=temporality, is_monotonic=monotonic)
    return pb.Metric(name="m", unit="By", sum=data)


def _histogram(*points: pb.HistogramDataPoint, temporality: Any = CUMULATIVE) -> pb.Metric:
    return pb.Metric(
        name="m", unit="ms", histogram=pb.Histogram(data_points=points, aggregation_temporality=temporality)
    )


def _histogram_point(at: float, counts: list[int], total: float, start: float = -100) -> pb.HistogramDataPoint:
    return pb.HistogramDataPoint(
        time_unix_nano=T0 + round(at * SECOND),
        start_time_unix_nano=T0 + round(start * SECOND),
        count=sum(counts),
        sum=total,
        bucket_counts=counts,
        explicit_bounds=[10.0, 20.0],
    )


def _exponential(*points: pb.ExponentialHistogramDataPoint, temporality: Any = DELTA) -> pb.Metric:
    data = pb.ExponentialHistogram(data_points=points, aggregation_temporality=temporality)
    return pb.Metric(name="m", exponential_histogram=data)


def _exponential_point(at: float, scale: int, offset: int, counts: list[int], **more: Any) -> Any:
    return pb.ExponentialHistogramDataPoint(
        time_unix_nano=T0 + round(at * SECOND),
        start_time_unix_nano=T0 - 100 * SECOND,
        scale=scale,
        count=sum(counts) + more.get("zero_count", 0),
        positive=pb.ExponentialHistogramDataPoint.Buckets(offset=offset, bucket_counts=counts),
        **more,
    )


def _shape(*found: pb.Metric, shaper: MetricShaper | None = None) -> Columns:
    return (shaper or MetricShaper()).shape(only(Signal.METRICS, metrics(list(found))))


def _values(columns: Columns, name: str) -> list[float]:
    column = columns.numbers[name]
    assert column.given == "series"
    assert column.is_point_series
    return column.values.tolist()


def _same(values: list[float], expected: list[float]) -> None:
    np.testing.assert_allclose(values, expected)


def test_items_count_all_points_in_message_order() -> None:
    request = ExportMetricsServiceRequest()
    for service in ("a", "b", "a"):
        group = request.resource_metrics.add(resource=resource(service))
        group.scope_metrics.add(
            metrics=[_gauge(_number(1, 0), _number(2, 0)), pb.Metric(name="empty"), _gauge(_number(3, 0), name="k")]
        )
    found = {batch.key: batch.items for batch in split_request(Signal.METRICS, request, "t")}
    assert found == {
        StreamKey("metrics", "a", "m", "t"): [0, 1, 6, 7],
        StreamKey("metrics", "a", "k", "t"): [2, 8],
        StreamKey("metrics", "b", "m", "t"): [3, 4],
        StreamKey("metrics", "b", "k", "t"): [5],
    }


def test_a_series_is_named_by_its_sorted_attributes() -> None:
    columns = _shape(_gauge(_number(1, 0, zone="b", code=200), _number(2, 0, code=200, zone="b"), _number(3, 0)))
    assert columns.categories["series"].labels == ["code=200,zone=b", ""]
    assert columns.categories["series"].codes.tolist() == [0, 0, 1]


def test_an_exemplar_gives_its_trace() -> None:
    point = _number(1.0, 0)
    point.exemplars.add()
    point.exemplars.add(trace_id=b"t" * 16, span_id=b"s" * 8)
    batch = only(Signal.METRICS, metrics([_gauge(point, _number(2.0, 1))]))
    assert (batch.column("trace_id"), batch.column("span_id")) == ([b"t" * 16, None], [b"s" * 8, None])


def test_gauges_are_their_values_and_strange_ones_are_unknown() -> None:
    values = [1.5, NAN, float("inf"), -2, None]
    columns = _shape(_gauge(*(_number(value, at) for at, value in enumerate(values))))
    _same(_values(columns, "value"), [1.5, NAN, NAN, -2, NAN])


def test_a_counter_is_a_rate_across_windows() -> None:
    shaper = MetricShaper()
    first = _shape(_sum(_number(100, 0, 0), _number(150, 10, 0)), shaper=shaper)
    second = _shape(_sum(_number(150, 20, 0), _number(250, 40, 0)), shaper=shaper)
    _same(_values(first, "rate"), [NAN, 5])
    _same(_values(second, "rate"), [0, 5])
    assert first.numbers["rate"].unit == "By/s"
    assert list(first.numbers) == ["rate"]


@pytest.mark.parametrize(
    ("points", "rate", "why"),
    [
        ([(100, 0, -50), (30, 10, 4)], 30 / 6, "start moved: counted since the new start"),
        ([(100, 0, -50), (130, 10, 4)], 130 / 6, "start moved although the value grew"),
        ([(100, 0, -50), (30, 10, -50)], 30 / 10, "fell without a new start: since the last point"),
        ([(100, 0, None), (30, 10, None)], NAN, "fell, start unknown"),
        ([(100, 0, None), (130, 10, None)], 3, "grew, start unknown"),
    ],
)
def test_a_restarted_counter_counts_from_its_start(points: list[Any], rate: float, why: str) -> None:
    shaper = MetricShaper()
    columns = _shape(_sum(*(_number(*point) for point in points)), shaper=shaper)
    _same(_values(columns, "rate"), [NAN, rate])
    assert shaper.resets == (why != "grew, start unknown")


def test_late_and_repeated_points_are_unknown_and_counted() -> None:
    shaper = MetricShaper()
    points = [_number(10, 0, -9), _number(20, 10, -9), _number(15, 5, -9), _number(20, 10, -9), _number(40, 20, -9)]
    _same(_values(_shape(_sum(*points), shaper=shaper), "rate"), [NAN, 1, NAN, NAN, 2])
    assert (shaper.late_points, shaper.resets) == (2, 0)
    gauges = MetricShaper()
    _same(_values(_shape(_gauge(_number(1, 10), _number(2, 5), _number(3, 10)), shaper=gauges), "value"), [1, NAN, 3])
    assert gauges.late_points == 1


def test_a_point_without_recorded_value_is_a_gap() -> None:
    shaper = MetricShaper()
    gap = _number(0, 10, -9)
    gap.flags = pb.DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK
    columns = _shape(_sum(_number(10, 0, -9), gap, _number(30, 20, -9)), shaper=shaper)
    _same(_values(columns, "rate"), [NAN, NAN, 1])
    assert shaper.gap_points == 1


def test_delta_sums_are_rates_of_their_own_interval() -> None:
    points = [_number(30, 10, 0), _number(40, 20, 10), _number(7, 30)]
    _same(_values(_shape(_sum(*points, temporality=DELTA)), "rate"), [3, 4, 7])


def test_series_that_becomes_cumulative_begins_anew() -> None:
    sums, histograms = MetricShaper(), MetricShaper()
    for at, temporality in enumerate((DELTA, CUMULATIVE, DELTA, CUMULATIVE), start=1):
        expected = [NAN] if temporality == CUMULATIVE else [5.0]
        _same(_values(_shape(_sum(_number(5, at, at - 1), temporality=temporality), shaper=sums), "rate"), expected)
        histogram = _histogram(_histogram_point(at, [1, 2, 2], 9.0, start=at - 1), temporality=temporality)
        _same(_values(_shape(histogram, shaper=histograms), "count_rate"), expected)


def test_non_monotonic_cumulative_sums_are_values() -> None:
    columns = _shape(_sum(_number(5, 0, -9), _number(3, 10, -9), monotonic=False))
    _same(_values(columns, "value"), [5, 3])


def test_large_counters_keep_every_digit() -> None:
    big = 2**62
    _same(_values(_shape(_sum(_number(big, 0, -9), _number(big + 3, 1, -9))), "rate"), [NAN, 3])


def test_cumulative_histograms_tell_what_happened_since_the_last_point() -> None:
    shaper = MetricShaper()
    points = [
        _histogram_point(0, [5, 5, 0], 100),
        _histogram_point(10, [5, 15, 10], 500),
        _histogram_point(20, [5, 15, 10], 500),
        _histogram_point(30, [4, 0, 0], 8, start=22),
    ]
    columns = _shape(_histogram(*points), shaper=shaper)
    _same(_values(columns, "count_rate"), [NAN, 2, 0, 0.5])
    _same(_values(columns, "mean"), [NAN, 20, NAN, 2])
    _same(_values(columns, "p95"), [NAN, 20, NAN, 10])
    buckets = columns.counts["buckets"]
    assert buckets.labels == ["(-inf, 10]", "(10, 20]", "(20, inf]"]
    np.testing.assert_array_equal(buckets.counts, [[0, 0, 0], [0, 10, 10], [0, 0, 0], [4, 0, 0]])
    assert shaper.resets == 1


def test_delta_histograms_stand_alone() -> None:
    columns = _shape(_histogram(_histogram_point(10, [0, 20, 0], 300, start=0), temporality=DELTA))
    _same(_values(columns, "count_rate"), [2])
    _same(_values(columns, "mean"), [15])
    _same(_values(columns, "p95"), [19.5])


def test_one_bound_histograms_are_not_taken_for_exponential_ones() -> None:
    def point(at: int, counts: list[int]) -> pb.HistogramDataPoint:
        return pb.HistogramDataPoint(
            time_unix_nano=T0 + at * SECOND, count=sum(counts), bucket_counts=counts, explicit_bounds=[5.0]
        )

    columns = _shape(_histogram(point(0, [1, 1]), point(1, [3, 2])))
    np.testing.assert_array_equal(columns.counts["buckets"].counts, [[0, 0], [2, 1]])
    assert np.isnan(_values(columns, "mean")[1])


def test_exponential_histograms_share_one_ladder_whatever_their_scale() -> None:
    # scale 1: bucket i is (2^(i/2), 2^((i+1)/2)]; 2 and 3 lie in (2, 4], 4 in (4, 8].
    fine = _exponential_point(10, 1, 2, [1, 2, 4], zero_count=3)
    # scale -1: bucket 0 is (1, 4].
    coarse = _exponential_point(20, -1, 0, [8])
    columns = _shape(_exponential(fine, coarse))
    buckets = columns.counts["buckets"]
    assert buckets.labels == ["0", "(1, 2]", "(2, 4]", "(4, 8]"]
    np.testing.assert_array_equal(buckets.counts, [[3, 0, 3, 4], [0, 4, 4, 0]])


def test_cumulative_exponential_histograms_survive_a_change_of_scale() -> None:
    shaper = MetricShaper()
    first = _exponential_point(0, 1, 2, [1, 2, 4, 0])
    second = _exponential_point(10, 0, 1, [3, 10])
    columns = _shape(_exponential(first, second, temporality=CUMULATIVE), shaper=shaper)
    _same(_values(columns, "count_rate"), [NAN, 0.6])
    np.testing.assert_array_equal(columns.counts["buckets"].counts, [[0], [6]])
    assert columns.counts["buckets"].labels == ["(4, 8]"]
    assert shaper.resets == 0


def test_negative_exponential_buckets_have_negative_bounds() -> None:
    point = _exponential_point(10, 0, 0, [])
    point.negative.offset = 1
    point.negative.bucket_counts.extend([2, 1])
    point.count = 3
    columns = _shape(_exponential(point))
    assert columns.counts["buckets"].labels == ["(-8, -4]", "(-4, -2]"]
    assert columns.counts["buckets"].counts.tolist() == [[1, 2]]


@pytest.mark.parametrize("scale", [-(2**31), -2000, -12, 40, 2**31 - 1])
def test_absurd_scales_and_offsets_do_no_harm(scale: int) -> None:
    points = [_exponential_point(at, scale, 2**31 - 1 - at, [1, at + 1]) for at in range(3)]
    columns = _shape(_exponential(*points, temporality=CUMULATIVE))
    assert columns.counts["buckets"].counts.shape[0] == 3


def test_summaries_give_rate_mean_and_quantiles() -> None:
    def point(at: int, count: int, total: float, high: float) -> pb.SummaryDataPoint:
        quantile = pb.SummaryDataPoint.ValueAtQuantile
        return pb.SummaryDataPoint(
            time_unix_nano=T0 + at * SECOND,
            start_time_unix_nano=T0 - SECOND,
            count=count,
            sum=total,
            quantile_values=[quantile(quantile=0.99, value=high), quantile(quantile=0.5, value=1.0)],
        )

    columns = _shape(pb.Metric(name="m", summary=pb.Summary(data_points=[point(0, 10, 100, 5), point(10, 30, 200, 7)])))
    _same(_values(columns, "count_rate"), [NAN, 2])
    _same(_values(columns, "mean"), [NAN, 5])
    _same(_values(columns, "quantile_0.5"), [1, 1])
    _same(_values(columns, "quantile_0.99"), [5, 7])


def test_two_replicas_with_the_same_attributes_are_two_series() -> None:
    request = metrics([_sum(_number(100, 0, -9), _number(110, 10, -9))], service_instance_id="one")
    request.resource_metrics.extend(
        metrics([_sum(_number(5, 0, -9), _number(25, 10, -9))], service_instance_id="two").resource_metrics
    )
    shaper = MetricShaper()
    columns = shaper.shape(only(Signal.METRICS, request))
    _same(_values(columns, "rate"), [NAN, 1, NAN, 2])
    assert columns.categories["series"].labels == ["", "#2"]
    # A replica that takes over after silence takes the label over, not the counter.
    later = metrics([_sum(_number(7, 1000, 900))], service_instance_id="three")
    again = shaper.shape(only(Signal.METRICS, later))
    assert again.categories["series"].labels == [""]
    _same(_values(again, "rate"), [NAN])


def test_series_memory_is_bounded() -> None:
    shaper = MetricShaper()
    _shape(_sum(*(_number(1, 0, -9, k=n) for n in range(MAX_SERIES + 50))), shaper=shaper)
    assert len(shaper.state()["memory"]["last"]) == MAX_SERIES
    columns = _shape(_sum(_number(2, 1, -9, k=0), _number(2, 1, -9, k=MAX_SERIES)), shaper=shaper)
    _same(_values(columns, "rate"), [NAN, 1])


def test_quantiles_lie_within_the_bounds_that_are_known() -> None:
    assert quantile_of({}, 0.95) is None
    assert quantile_of({(float("-inf"), 5.0): 4}, 0.95) == 5.0
    assert quantile_of({(float("-inf"), 5.0): 1, (5.0, float("inf")): 9}, 0.95) == 5.0
    assert quantile_of({(float("-inf"), float("inf")): 9}, 0.95) is None


def test_the_ladder_keeps_the_number_of_observations() -> None:
    fine = {(2.0 ** (k / 16), 2.0 ** ((k + 1) / 16)): float(k + 1) for k in range(-40, 90) if k >= 0}
    assert sum(on_ladder(fine).values()) == pytest.approx(sum(fine.values()))
    assert sum(on_ladder({(1e-300, 1e300): 3.0}).values()) == pytest.approx(3.0)
