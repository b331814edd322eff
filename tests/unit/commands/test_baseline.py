"""`baseline`: what one data directory has learned, another one begins with."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from driftlock_otlp.__main__ import main
from driftlock_otlp.config.file import load
from driftlock_otlp.detection.compressor import new_compressor
from driftlock_otlp.model import Signal, StreamKey
from driftlock_otlp.orders import Feedback
from driftlock_otlp.storage.lock import lock_log
from driftlock_otlp.windowing.scoring import StreamScoring
from driftlock_otlp.worker import messages
from driftlock_otlp.worker.checkpoint import Checkpoint, Place, SavedStream, checkpoint_path, encode_state
from driftlock_otlp.worker.process import Worker
from tests.e2e.traffic import Traffic

SIZE = 20
SECOND = 1_000_000_000
CLOCK = 1_800_000_000 * SECOND
SETTINGS = [
    f"windows.logs.size={SIZE}",
    "windows.logs.baseline_records=40",
    f"windows.traces.size={SIZE}",
    "windows.traces.baseline_records=40",
    "detection.warm_up_windows=20",
]
SHOP = StreamKey("logs", "shop")


def config_of(directory: Path, *more: str) -> Any:
    return load(None, [*SETTINGS, f"queue.path={directory}", *more], environ={})


def learn(directory: Path, *more: str, windows: int = 50) -> list[str]:
    """Let a data directory learn a stream of logs and one of traces; return the ids of anomalies that go on."""
    config = config_of(directory, *more)
    scoring = StreamScoring(config, new_compressor("auto"))
    traffic, opened = Traffic(), []
    for turn in range(windows):
        odd = turn >= 46
        for number, payload in enumerate((traffic.logs(SIZE, 1.0 if odd else 0.0), traffic.traces(SIZE))):
            signal = (Signal.LOGS, Signal.TRACES)[number]
            opened += scoring.feed(signal, payload, 2 * turn + number, CLOCK + turn * SECOND).opened
    directory.mkdir(exist_ok=True)
    count = config.detection.workers
    states = [
        SavedStream(repr(change.key), encode_state(change.state), change.used, change.is_resident)
        for change in scoring.take_changes()
    ]
    for index in range(count):
        with closing(Checkpoint(checkpoint_path(directory, index, count))) as checkpoint:
            checkpoint.write(Place(1, CLOCK, CLOCK), states if index == 0 else [])
    return [anomaly.id for anomaly in opened]


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    directory = tmp_path_factory.mktemp("learned")
    return directory, learn(directory)


@pytest.fixture
def command() -> Callable[..., int]:
    def run(action: str, directory: Path, *arguments: str) -> int:
        settings = [part for setting in (*SETTINGS, f"queue.path={directory}") for part in ("--set", setting)]
        return main(["baseline", action, *settings, *arguments])

    return run


def armed(directory: Path, *more: str) -> list[StreamScoring]:
    """Return what the workers of a directory begin with."""
    config = config_of(directory, *more)
    scorings = []
    for index in range(config.detection.workers):
        answers = io.BytesIO()
        path = checkpoint_path(directory, index, config.detection.workers)
        order = messages.Start(
            config.model_dump_json(), str(directory / "log"), str(path), index, config.detection.workers, 7
        )
        worker = Worker(order, answers)
        scorings.append(worker._scoring)
        worker.close()
    return scorings


def test_an_empty_directory_is_armed_at_once_by_the_baselines_of_another(
    learned: tuple[Path, list[str]], tmp_path: Path, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    directory, anomaly_ids = learned
    file = tmp_path / "all.baseline"
    assert command("export", directory, "--out", str(file)) == 0
    assert capsys.readouterr().out == f"2 baselines in {file}.\n"
    assert file.stat().st_mode & 0o077 == 0
    other = tmp_path / "other"
    assert command("import", other, str(file)) == 0
    assert "2 baselines taken over" in capsys.readouterr().out
    for workers in (1, 3):
        target = tmp_path / f"with-{workers}"
        more = f"detection.workers={workers}"
        assert command("import", target, "--set", more, str(file)) == 0
        scorings = armed(target, more)
        assert sum(scoring.warming_up_count() for scoring in scorings) == 0
        assert sum(sum(scoring.stream_counts().values()) for scoring in scorings) == 2
        later = CLOCK + 90 * 86_400 * SECOND
        # What was said of its past anomalies is remembered, and can still be said.
        outcomes = [scoring.obey(Feedback(SHOP, anomaly_ids[0], "confirmed"), later).orders for scoring in scorings]
        assert {"obeyed": 1} in outcomes
        traffic, opened = Traffic(3), []
        for turn, share in enumerate((0.0, 0.0, 1.0, 1.0)):
            payload = traffic.logs(SIZE, share)
            for scoring in scorings:
                verdicts = scoring.feed(Signal.LOGS, payload, turn, later + turn * SECOND)
                opened += [(turn, anomaly) for anomaly in verdicts.opened]
        ((turn, anomaly),) = opened
        assert turn == 2
        assert anomaly.id not in anomaly_ids


def test_kind_and_service_choose(
    learned: tuple[Path, list[str]], tmp_path: Path, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(tmp_path / "some.baseline")
    assert command("export", learned[0], "--kind", "traces", "--out", file) == 0
    assert capsys.readouterr().out.startswith("1 baseline in")
    assert command("export", learned[0], "--service", "nobody", "--out", file) == 1
    assert "no baseline to export" in capsys.readouterr().err
    assert command("export", learned[0], "--service", "shop", "--out", file) == 0
    assert command("import", tmp_path / "new", "--kind", "logs", file) == 0
    assert capsys.readouterr().out.count("1 baseline taken over") == 1


def test_other_settings_are_refused_by_name_and_nothing_is_written(
    learned: tuple[Path, list[str]], tmp_path: Path, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    file, target = str(tmp_path / "all.baseline"), tmp_path / "new"
    command("export", learned[0], "--out", file)
    assert command("import", target, "--set", "windows.logs.size=21", "--set", "detection.compressor=zstd", file) == 1
    message = capsys.readouterr().err
    for part in ("windows.logs.size is 20 there and 21 here", "compressor is ", "--kind", "learn anew"):
        assert part in message
    assert not list(target.glob("detector-*"))
    # And an export tells of streams that the configuration would let learn anew.
    assert command("export", learned[0], "--set", "windows.logs.size=21", "--out", file) == 0
    assert "Passed over, since they were learned with other settings than the configuration has: logs/shop." in (
        capsys.readouterr().err
    )


def test_a_running_sidecar_is_not_written_into_and_is_read_from(
    learned: tuple[Path, list[str]], tmp_path: Path, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(tmp_path / "all.baseline")
    (learned[0] / "log").mkdir(exist_ok=True)
    lock = lock_log(learned[0] / "log")
    try:
        assert command("export", learned[0], "--out", file) == 0
        assert command("import", learned[0], file) == 2
    finally:
        os.close(lock)
    assert "in use by another running sidecar; stop that one" in capsys.readouterr().err


def test_what_a_directory_knows_is_kept_unless_it_is_to_be_replaced_and_no_anomaly_goes_on(
    tmp_path: Path, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    source, target, file = tmp_path / "source", tmp_path / "target", str(tmp_path / "all.baseline")
    learn(source, windows=40)
    learn(target, windows=10)
    command("export", source, "--out", file)
    assert command("import", target, file) == 0
    told = capsys.readouterr()
    assert told.err == "Kept as they are: logs/shop, traces/shop.\n"
    assert "0 baselines taken over" in told.out
    assert sum(scoring.warming_up_count() for scoring in armed(target)) == 2
    assert command("import", target, "--replace", file) == 0
    assert sum(scoring.warming_up_count() for scoring in armed(target)) == 0
    learn(target, windows=50)
    capsys.readouterr()
    assert command("import", target, "--replace", file) == 0
    assert capsys.readouterr().err == "Kept as they are: logs/shop.\n"


@pytest.mark.parametrize("content", [b"", b"no file", b"\x28\xb5\x2f\xfd" + bytes(20)])
def test_what_is_no_baseline_is_refused(
    content: bytes, tmp_path: Path, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "odd"
    file.write_bytes(content)
    assert command("import", tmp_path, str(file)) == 1
    assert "no file that `baseline export` wrote" in capsys.readouterr().err
    assert command("import", tmp_path, str(tmp_path / "missing")) == 2
