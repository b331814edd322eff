from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from driftlock_otlp.config.root import Config
from driftlock_otlp.errors import InputError
from driftlock_otlp.evaluation.calibration.fleet import Fleet
from driftlock_otlp.evaluation.calibration.lives import Jobs, Ranking
from driftlock_otlp.evaluation.calibration.measured import Size
from driftlock_otlp.evaluation.calibration.real import real_sets
from driftlock_otlp.evaluation.calibration.streams import HOUR_WINDOWS, LogStream, MetricStream, TraceStream
from driftlock_otlp.evaluation.calibration.suite import run_calibration
from driftlock_otlp.evaluation.calibration.watch import STREAMS, Power, Quiet, Watch, inject

STREAM_DAYS = 8640


def clean(seed: int) -> Quiet:
    """A stream whose bits are those of uniform p-values, and which never alarms."""
    bits = np.random.default_rng(seed).exponential(1 / np.log(2), STREAM_DAYS)
    return Quiet(windows=STREAM_DAYS, bits=bits.tolist(), alarmed=[False] * STREAM_DAYS)


def fault(bits: float) -> Power:
    return Power(trials=1, bits=[[bits] * 4], alarmed_at=[0])


@pytest.mark.parametrize("kind", STREAMS)
def test_a_seed_gives_the_same_windows_again(kind: str) -> None:
    first, again = STREAMS[kind](7), STREAMS[kind](7)
    for _ in range(3):
        (one, one_s), (other, other_s) = first.window(), again.window()
        assert one_s == other_s
        for name, column in one.categories.items():
            assert [column.labels[i] for i in column.codes] == [
                other.categories[name].labels[i] for i in other.categories[name].codes
            ]
        for name, number in one.numbers.items():
            assert number.values.tolist() == other.numbers[name].values.tolist()


def test_faults_touch_about_as_many_records_as_they_say() -> None:
    logs, traces, metrics = LogStream(1, records=4000), TraceStream(1, traces=1000), MetricStream(1)
    named = logs.window("new_template", 0.25)[0].categories["template"]
    assert np.mean([named.labels[i].startswith("payment") for i in named.codes]) == pytest.approx(0.25, abs=0.03)
    jobs = logs.window("job", 0.3)[0].categories["template"]
    assert np.mean([jobs.labels[i].startswith("nightly") for i in jobs.codes]) == pytest.approx(0.3, abs=0.03)
    status = traces.window("errors", 0.25)[0].categories["status"]
    assert np.mean([status.labels[i].endswith("error") for i in status.codes]) == pytest.approx(0.26, abs=0.04)
    lasting = [metrics.window("level", 50.0)[0].numbers["value"].values[0] for _ in range(20)]
    assert np.mean(lasting) == pytest.approx(metrics.level[0] + 50 * metrics.sigma[0], rel=0.2)


def test_of_faults_that_stand_out_all_are_found_and_hardly_any_other() -> None:
    found = Fleet([clean(1), clean(2)], [fault(40.0)], seed=3).ticks(streams=100, faulty=2, count=100)
    assert (found.found, found.faults) == (200, 200)
    assert 0.02 <= found.shares / found.ticks <= 0.12  # .1 of the discoveries may be false


def test_faults_that_nothing_shows_are_not_found() -> None:
    found = Fleet([clean(1), clean(2)], [fault(1.0)], seed=3).ticks(streams=100, faulty=2, count=30)
    assert found.found <= 2


def test_over_hours_an_incident_is_right_when_it_holds_a_fault() -> None:
    # No stream of these is ever odd by chance: what is told are the faults, whatever it takes.
    silent = Quiet(windows=STREAM_DAYS, bits=[0.5] * STREAM_DAYS, alarmed=[False] * STREAM_DAYS)
    for name, found in Fleet([silent], [fault(40.0)], seed=5).hours(streams=20, hours=1, faults_an_hour=1).items():
        assert (found.right, found.wrong, found.found, found.faults) == (1, 0, 1, 1), name


def test_over_hours_false_alarms_are_wrong_and_those_of_one_stream_do_not_count_for_several() -> None:
    alarms = [number % 180 == 90 for number in range(STREAM_DAYS)]
    noisy = Quiet(windows=STREAM_DAYS, bits=[12.0 if alarm else 0.5 for alarm in alarms], alarmed=alarms)
    found = Fleet([noisy], [fault(1.0)], seed=6).hours(streams=8, hours=1, faults_an_hour=0)
    assert found["any incident"].wrong >= HOUR_WINDOWS // 180
    assert found["any incident"].right == 0
    assert found["of several streams"].wrong < found["any incident"].wrong
    assert found["any incident"].false_share == 1.0


def test_runs_of_a_job_are_counted_by_their_number() -> None:
    jobs = Jobs()
    for is_alarmed in (True, False):
        jobs.take(0, is_alarmed=is_alarmed)
        jobs.take(1, is_alarmed=False)
    assert (jobs.share(0, 1), jobs.share(1, 2), jobs.share(2, 3)) == (0.5, 0.0, None)


def test_ranking_counts_pairs() -> None:
    ranking = Ranking(clean=[1.0, 2.0], faulty={("level", 5.0): [3.0, 1.5]})
    assert ranking.auc(("level", 5.0)) == 0.75


def test_a_copy_with_a_fault_leaves_the_stream_as_it_was() -> None:
    watch, twin = Watch("metrics", 4).warm_up(), Watch("metrics", 4).warm_up()
    power = Power()
    inject(watch, ("level", 30.0), power)
    assert power.trials == 1
    assert len(power.bits[0]) == 4
    assert watch.score().vector.tolist() == pytest.approx(twin.score().vector.tolist(), nan_ok=True)


def test_quiet_parts_of_real_data_are_read_and_what_is_labelled_is_left_out(tmp_path: Path) -> None:
    quiet = tmp_path / "nab" / "data" / "artificialNoAnomaly"
    cloud = tmp_path / "ms_cloud" / "app"
    quiet.mkdir(parents=True)
    cloud.mkdir(parents=True)
    lines = [f"2020-01-01 00:00:00,{number}" for number in range(900)]
    (quiet / "flat.csv").write_text("\n".join(["timestamp,value", *lines]) + "\n")
    rows = [f"2020-01-01 00:00:00,{number},{int(number % 10 == 0)}" for number in range(1000)]
    (cloud / "one.csv").write_text("\n".join(["TimeStamp,Value,Label", *rows]) + "\n")
    sets = {real.name: real.streams for real in real_sets(tmp_path)}
    assert [len(streams) for streams in sets.values()] == [1, 1]
    assert sets["NAB artificialNoAnomaly"][0].window_count == 225
    (unlabelled,) = sets["Microsoft cloud, points without label"]
    assert unlabelled.window_count == 225  # of 1,000 points 900 have no label
    assert unlabelled.window()[0].numbers["value"].values.tolist() == [1.0, 2.0, 3.0, 4.0]


def test_a_file_that_is_no_series_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "ms_cloud" / "app").mkdir(parents=True)
    (tmp_path / "ms_cloud" / "app" / "one.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="TimeStamp,Value,Label"):
        list(real_sets(tmp_path))


def test_the_suite_needs_no_data() -> None:
    size = Size(
        seeds=range(1, 2), windows=4, every=4, lives=0, trials=0, days=0, hours=0, fleet=100, fleet_hours=1, ticks=2
    )
    begun: list[tuple[str, int, int]] = []

    def begin(name: str, number: int, count: int) -> None:
        begun.append((name, number, count))

    found = run_calibration(None, Config(), begin, size)
    assert [table.title.split(":")[0].partition(",")[0] for table in found.tables] == [
        "Clean streams", "Faults", "100 streams", "100 streams over 1 hours", "After long faults", "Cold start"
    ]  # fmt: skip
    assert [row.detector for row in found.tables[0].rows] == [f"Driftlock, {kind}" for kind in STREAMS]
    assert len(found.tables[1].rows) == 20
    assert [number for _, number, _ in begun] == list(range(begun[0][2]))
    assert found.record_count > 0
