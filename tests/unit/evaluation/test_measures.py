"""Measures of scores against labels, on cases counted by hand."""

import math

import numpy as np
import pytest

from driftlock_otlp.evaluation.measures import (
    best_f1,
    bootstrap_interval,
    event_f1,
    events,
    f1_at,
    flag_everything_f1,
    pr_auc,
    roc_auc,
)


def test_perfect_scores_reach_one_and_reversed_ones_zero() -> None:
    labels = [0, 0, 1, 1]
    assert roc_auc([1, 2, 3, 4], labels) == 1.0
    assert pr_auc([1, 2, 3, 4], labels) == 1.0
    assert roc_auc([4, 3, 2, 1], labels) == 0.0
    # Found third and fourth: (1/3 + 2/4) / 2.
    assert pr_auc([4, 3, 2, 1], labels) == pytest.approx((1 / 3 + 1 / 2) / 2)


def test_equal_scores_are_one_step_in_whatever_order_they_come() -> None:
    for labels in ([1, 0, 0, 0], [0, 0, 0, 1]):
        assert roc_auc([5, 5, 5, 5], labels) == 0.5
        assert pr_auc([5, 5, 5, 5], labels) == 0.25


def test_pairs_counted_by_hand() -> None:
    # Positives 3 and 1, negatives 2, 1, 0: of six pairs, 3 + 1 + 1/2 are in order.
    assert roc_auc([3, 1, 2, 1, 0], [1, 1, 0, 0, 0]) == pytest.approx(4.5 / 6)
    # At 3 one of one, at 1 two of four.
    assert pr_auc([3, 1, 2, 1, 0], [1, 1, 0, 0, 0]) == pytest.approx(0.5 * 1 + 0.5 * 0.5)


def test_silence_ranks_below_everything() -> None:
    assert roc_auc([-math.inf, 0.0, -math.inf], [0, 1, 0]) == 1.0
    assert pr_auc([-math.inf, 0.0, -math.inf], [1, 0, 0]) == pytest.approx(1 / 3)


def test_without_both_kinds_there_is_no_figure() -> None:
    assert math.isnan(roc_auc([1, 2], [0, 0]))
    assert math.isnan(roc_auc([1, 2], [1, 1]))
    assert math.isnan(pr_auc([1, 2], [0, 0]))
    assert best_f1([1, 2], [0, 0]).f1 == 0.0


def test_scores_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        roc_auc([math.nan, 1.0], [0, 1])
    with pytest.raises(ValueError, match="equally long"):
        pr_auc([1.0], [0, 1])


def test_agrees_with_scikit_learn_on_scores_with_ties() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(3)
    for _ in range(5):
        labels = generator.random(200) < 0.2
        scores = np.round(generator.normal(size=200) + labels, 1)
        assert roc_auc(scores, labels) == pytest.approx(metrics.roc_auc_score(labels, scores))
        assert pr_auc(scores, labels) == pytest.approx(metrics.average_precision_score(labels, scores))


def test_best_f1_names_its_threshold() -> None:
    found = best_f1([0.9, 0.8, 0.7, 0.1], [1, 0, 1, 0])
    assert (found.threshold, found.recall) == (0.7, 1.0)
    assert found.precision == pytest.approx(2 / 3)
    assert found.f1 == pytest.approx(0.8)
    assert f1_at([0.9, 0.8, 0.7, 0.1], [1, 0, 1, 0], found.threshold) == found


def test_nothing_found_is_zero_and_everything_is_the_floor() -> None:
    labels = [1, 0, 0, 0]
    assert f1_at([1, 1, 1, 1], labels, 2.0).f1 == 0.0
    assert f1_at([1, 1, 1, 1], labels, 1.0).f1 == flag_everything_f1(labels) == pytest.approx(0.4)


def test_runs_of_labels_are_events() -> None:
    assert events([1, 0, 1, 1]) == [(0, 0), (2, 3)]
    assert events([]) == []


def test_an_event_is_met_late_within_the_tolerance_only() -> None:
    labels = [0, 1, 1, 0, 0, 0, 0, 0]
    late = [0, 0, 0, 0, 1, 0, 0, 0]
    assert event_f1(late, labels, 1, tolerance=1).f1 == 0.0
    assert event_f1(late, labels, 1, tolerance=2).f1 == 1.0
    assert event_f1([1, 0, 0, 0, 0, 0, 0, 0], labels, 1, tolerance=2).f1 == 0.0


def test_alarms_close_together_are_one() -> None:
    labels = [1, 1, 0, 0, 0, 0, 0, 0]
    scores = [1, 0, 0, 0, 0, 1, 0, 1]
    found = event_f1(scores, labels, 1, tolerance=1)
    assert (found.recall, found.precision) == (1.0, 0.5)
    assert event_f1(scores, labels, 1, tolerance=0).precision == pytest.approx(1 / 3)


def test_interval_holds_the_mean_and_narrows_with_more_units() -> None:
    generator = np.random.default_rng(0)
    few, many = generator.normal(size=10), generator.normal(size=1000)
    narrow, wide = bootstrap_interval(many, 1), bootstrap_interval(few, 1)
    assert wide.low < wide.estimate < wide.high
    assert narrow.high - narrow.low < (wide.high - wide.low) / 4
    # The mean of 1000 normal values has a standard error of .0316.
    assert narrow.high - narrow.low == pytest.approx(2 * 1.96 * 0.0316, rel=0.15)


def test_intervals_are_the_same_for_the_same_seed_and_skip_units_without_a_figure() -> None:
    assert bootstrap_interval([0.2, 0.4, math.nan], 5) == bootstrap_interval([0.2, 0.4], 5)
    assert math.isnan(bootstrap_interval([math.nan], 5).estimate)
    assert math.isnan(bootstrap_interval([], 5).estimate)


def test_an_interval_of_another_statistic_draws_whole_units() -> None:
    hits_of_all = [[1, 2], [0, 2], [2, 2]]
    found = bootstrap_interval(hits_of_all, 1, statistic=lambda rows: float(rows[:, 0].sum() / rows[:, 1].sum()))
    assert found.estimate == 0.5
    assert 0.0 <= found.low < 0.5 < found.high <= 1.0
