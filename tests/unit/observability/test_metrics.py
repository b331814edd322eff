"""The catalogue of metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from driftlock_otlp.observability.metrics import Metrics

BOUNDED = {
    "signal",
    "transport",
    "outcome",
    "reason",
    "by",
    "change",
    "level",
    "cursor",
    "unit",
    "exporter",
    "kind",
    "severity",
    "worker",
    "component",
}


def test_every_metric_has_our_prefix_a_sentence_and_labels_of_bounded_sets() -> None:
    metrics = Metrics()
    families = list(metrics.registry.collect())
    assert len(families) > 15
    for family in families:
        assert family.name.startswith("driftlock_")
        assert family.documentation.endswith(".")
    for value in vars(metrics).values():
        assert set(getattr(value, "_labelnames", ())) <= BOUNDED


def test_two_catalogues_do_not_share_counts() -> None:
    first, second = Metrics(), Metrics()
    first.worker_restarts.inc()
    assert second.registry.get_sample_value("driftlock_worker_restarts_total") == 0


def test_metrics_are_registered_where_they_are_told() -> None:
    registry = CollectorRegistry()
    Metrics(registry).errors.labels("exporter").inc(2)
    assert registry.get_sample_value("driftlock_errors_total", {"component": "exporter"}) == 2
