"""LLM traffic with seeded faults: agents' recorded messages as instrumented spans, scored as in production.

Data: `who_and_when/<part>/<run>.json` below the data directory. A warm stream is copied for each
trial, and the copy goes on with texts that it has never seen, with or without a fault.
"""

from __future__ import annotations

import copy
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from driftlock_otlp.config.root import Config
from driftlock_otlp.detection.compressor import Compressor, new_compressor
from driftlock_otlp.detection.scores import ALARM_SCORE
from driftlock_otlp.evaluation.genai_baselines import DETECTORS, RecordFacts, WindowPast, facts_of
from driftlock_otlp.evaluation.genai_faults import FAULTS, FaultKind
from driftlock_otlp.evaluation.genai_traffic import Run, Traffic, Truth, load_runs, requests
from driftlock_otlp.evaluation.measures import roc_auc
from driftlock_otlp.evaluation.result import Row, SuiteResult, Table
from driftlock_otlp.model import Signal
from driftlock_otlp.windowing.scoring import StreamScoring

_SEEDS = (1, 2)
_WARM_S = 3_600.0
_TRIALS = 2
_TRIAL_S = 60.0
_CONVERSATION_TRIAL_S = 200.0
_CLEAN_TRIALS = 3
_CLEAN_S = 300.0
_LEAST_SHARE = 0.05
"""Share of a window's records that show the fault, at least, for the window to count as faulty."""
_FEWEST_STEPS = 5


@dataclass(frozen=True, slots=True)
class _Window:
    """A judged window.

    Attributes:
        stream: Name of its stream.
        scores: By detector.
        record_auc: How well records with the fault are told from the others in it; NaN where it has only one kind.
    """

    stream: str
    scores: dict[str, float]
    record_auc: float


@dataclass(slots=True)
class _Trial:
    """What came out of a stretch of traffic."""

    windows: list[_Window] = field(default_factory=list)
    conversations: dict[str, float] = field(default_factory=dict)
    wrong: set[str] = field(default_factory=set)
    steps: dict[tuple[str, str], list[tuple[float, bool]]] = field(default_factory=lambda: defaultdict(list))
    leading: list[str] = field(default_factory=list)


def run_genai(data: Path, config: Config, on_file: Callable[[str, int, int], None]) -> SuiteResult:
    """Inject every fault into copies of warm streams; score ours beside baselines.

    Args:
        data: Directory that holds `who_and_when/`.
        config: Settings; one for all faults.
        on_file: Called before each kind of fault with its name, its number and how many there are.

    Raises:
        InputError: The data are not there, or not as they should be.
    """
    runs = load_runs(data)
    learned, judged = runs[::2], runs[1::2]
    compressor = new_compressor(config.detection.compressor)
    started_s, record_count = time.process_time(), 0
    clean: list[_Trial] = []
    faulty: dict[str, list[_Trial]] = {fault.name: [] for fault in FAULTS}
    total = len(_SEEDS) * (len(FAULTS) + 1)
    for number, seed in enumerate(_SEEDS):
        on_file(f"usual traffic, seed {seed}", number * (len(FAULTS) + 1), total)
        stream = _WarmStream(learned, seed, config, compressor)
        for trial in range(_CLEAN_TRIALS):
            clean.append(stream.go_on(1000 * seed + trial, judged, _CLEAN_S, None))
        for row, fault in enumerate(FAULTS):
            on_file(fault.name, number * (len(FAULTS) + 1) + row + 1, total)
            seconds = _TRIAL_S if fault.rearrange is None else _CONVERSATION_TRIAL_S
            for trial in range(_TRIALS):
                faulty[fault.name].append(stream.go_on(5000 * seed + trial, judged, seconds, fault))
        record_count += stream.record_count
    return SuiteResult(
        suite="genai",
        data=f"{len(runs)} recorded agent runs of Who&When, as OpenTelemetry spans; {len(FAULTS)} kinds of faults",
        split=(
            f"Streams learn {_WARM_S / 60:.0f} minutes made of one half of the runs; faults and usual traffic to tell"
            f" them from are made of the other half ({len(_SEEDS)} seeds, {_TRIALS} trials each)"
        ),
        settings=f"one for all, significance {config.significance('gen_ai'):g}, {compressor.fingerprint}",
        tables=(_by_window(faulty, clean), _usual(clean), _by_conversation(faulty, clean), _attribution(clean)),
        record_count=record_count,
        cpu_s=time.process_time() - started_s,
    )


class _WarmStream:
    """Streams that have learned, to be copied for each trial."""

    def __init__(self, runs: list[Run], seed: int, config: Config, compressor: Compressor) -> None:
        self._config, self._compressor = config, compressor
        self._traffic = Traffic(runs, seed)
        self._past: dict[str, WindowPast] = {}
        self.record_count = 0
        self._position = self._next_position = 0
        scoring = StreamScoring(config, compressor, with_records=True)
        self._score(scoring, self._traffic, _WARM_S, self._past, seed)
        # As a worker's checkpoint holds it; copied, since arrays in it may be those that are in use.
        self._clock_unix_nano = scoring.clock_unix_nano
        self._states: list[tuple[int, Any]] = copy.deepcopy(
            [(change.used, change.state) for change in scoring.take_changes()]
        )
        self._next_position = self._position
        for past in self._past.values():
            past.grow()

    def go_on(self, seed: int, runs: list[Run], seconds: float, fault: FaultKind | None) -> _Trial:
        """Return what a copy makes of the next seconds, with a fault from now on or without."""
        scoring = StreamScoring(self._config, self._compressor, with_records=True)
        scoring.restore(self._clock_unix_nano, copy.deepcopy(self._states))
        self._position = self._next_position
        if fault is None:
            traffic = self._traffic.fork(seed, runs)
        else:
            traffic = self._traffic.fork(seed, runs, fault.name, fault.change, fault.rearrange)
        return self._score(scoring, traffic, seconds, copy.deepcopy(self._past), seed)

    def _score(
        self, scoring: StreamScoring, traffic: Traffic, seconds: float, past: dict[str, WindowPast], seed: int
    ) -> _Trial:
        trial = _Trial()
        is_warming = not self._next_position
        known: dict[tuple[int, int], tuple[Truth, RecordFacts]] = {}
        first = self._position
        chance = np.random.default_rng((seed, len(traffic.fault)))
        for request, truths, clock in requests(traffic, seconds):
            spans = request.resource_spans[0].scope_spans[0].spans
            for item, (truth, span) in enumerate(zip(truths, spans, strict=True)):
                known[self._position, item] = truth, facts_of(span)
            verdicts = scoring.feed(Signal.TRACES, request.SerializeToString(), self._position, clock)
            self._position += 1
            self.record_count += len(truths)
            trial.leading += [anomaly.evidence[0].column for anomaly in verdicts.opened]
            for records, facts in zip(verdicts.records, verdicts.facts, strict=True):
                rows = [known.get(place) for place in zip(records.positions, records.items, strict=True)]
                own = [row for row in rows if row is not None]
                history = past.setdefault(records.stream.name, WindowPast())
                if is_warming:
                    history.learn([record for _, record in own])
                    continue
                scores = {name: judge(history, [record for _, record in own]) for name, judge in DETECTORS.items()}
                scores |= {"Driftlock": facts.score, "random": float(chance.random()), "flag everything": 1.0}
                history.learn([record for _, record in own])
                if min(records.positions) < first:
                    continue  # its records began before the trial
                shows = np.array([bool(truth.fault) for truth, _ in own])
                auc = roc_auc(records.scores, shows)
                is_clean = traffic.fault == ""
                if is_clean or shows.mean() >= _LEAST_SHARE:
                    trial.windows.append(_Window(records.stream.name, scores, auc))
                for (truth, _), score in zip(own, records.scores, strict=True):
                    name = truth.conversation
                    trial.conversations[name] = max(score, trial.conversations.get(name, 0.0))
                    trial.steps[truth.run, name].append((score, truth.is_mistake))
                    if truth.fault:
                        trial.wrong.add(name)
        return trial


def _by_window(faulty: dict[str, list[_Trial]], clean: list[_Trial]) -> Table:
    detectors = ("Driftlock", *DETECTORS, "flag everything", "random")
    rows = []
    for fault in FAULTS:
        windows = [window for trial in faulty[fault.name] for window in trial.windows]
        figures: list[float | None] = [_window_auc(windows, clean, detector) for detector in detectors]
        found = [window.scores["Driftlock"] >= ALARM_SCORE for window in windows]
        figures.append(float(np.mean(found)) if found else None)
        told = [window.record_auc for window in windows if not math.isnan(window.record_auc)]
        figures.append(float(np.mean(told)) if told else None)
        figures.append(float(len(windows)))
        rows.append(Row(f"{fault.name} ({fault.touches})", tuple(figures)))
    least = [min(row.figures[column] or 0.0 for row in rows) for column in range(len(detectors))]
    mean = [float(np.mean([row.figures[column] or 0.0 for row in rows])) for column in range(len(detectors))]
    rows.append(Row("mean of all kinds", (*mean, None, None, None)))
    rows.append(Row("worst kind", (*least, None, None, None)))
    return Table(
        "Windows with a fault against windows without, ROC-AUC by kind of fault",
        (*detectors, "alarmed at once", "records in them", "windows"),
        tuple(rows),
        "Windows of the streams that show the fault in 5 % of their records or more, against usual windows of the same"
        " streams. “Alarmed at once”: share of these windows above the bar that is fixed beforehand. “Records in them”:"
        " ROC-AUC of the records' own scores within a window.",
    )


def _window_auc(windows: Sequence[_Window], clean: Sequence[_Trial], detector: str) -> float | None:
    """Return the mean over streams, weighted by their faulty windows: scores of different streams do not mix."""
    figures, weights = [], []
    for stream in sorted({window.stream for window in windows}):
        own = [window.scores[detector] for window in windows if window.stream == stream]
        usual = [window.scores[detector] for trial in clean for window in trial.windows if window.stream == stream]
        if usual:
            figures.append(roc_auc([*own, *usual], [1] * len(own) + [0] * len(usual)))
            weights.append(len(own))
    return float(np.average(figures, weights=weights)) if figures else None


def _usual(clean: list[_Trial]) -> Table:
    windows = [window for trial in clean for window in trial.windows]
    alarmed = [window.scores["Driftlock"] >= ALARM_SCORE for window in windows]
    hours = len(clean) * _CLEAN_S / 3600
    anomalies = sum(len(trial.leading) for trial in clean)
    return Table(
        "Usual traffic of texts never seen",
        ("windows", "share above the bar", "anomalies", "hours"),
        (Row("Driftlock", (float(len(windows)), float(np.mean(alarmed)), float(anomalies), hours)),),
    )


def _by_conversation(faulty: dict[str, list[_Trial]], clean: list[_Trial]) -> Table:
    usual = [score for trial in clean for score in trial.conversations.values()]
    rows = []
    for fault in FAULTS:
        if fault.rearrange is None:
            continue
        wrong = [trial.conversations[name] for trial in faulty[fault.name] for name in sorted(trial.wrong)]
        auc = roc_auc([*wrong, *usual], [1] * len(wrong) + [0] * len(usual))
        rows.append(Row(fault.name, (auc, float(np.mean(np.array(wrong) >= ALARM_SCORE)), float(len(wrong)))))
    return Table(
        "Conversations with a fault against conversations without, by their oddest record",
        ("ROC-AUC", "alarmed", "conversations"),
        tuple(rows),
    )


def _attribution(clean: list[_Trial]) -> Table:
    """Return how far up the decisive mistakes of the recorded runs come among the steps of their run."""
    by_run: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    for trial in clean:
        for (run, _), steps in trial.steps.items():
            scores = np.array([score for score, _ in steps])
            mistakes = np.array([is_mistake for _, is_mistake in steps])
            if len(steps) >= _FEWEST_STEPS and mistakes.any() and not mistakes.all():
                top = float(mistakes[scores == scores.max()].mean())
                by_run[run].append((roc_auc(scores, mistakes), top, float(mistakes.mean())))
    figures = _mean_of([np.mean(plays, axis=0) for plays in by_run.values()])
    return Table(
        "The decisive mistake among the steps of its run, as Who&When labels it",
        ("ROC-AUC", "oddest step is the mistake", "runs"),
        (
            Row("Driftlock", (figures[0], figures[1], float(len(by_run)))),
            Row("random", (0.5, figures[2], float(len(by_run)))),
        ),
        "What is wrong in an answer is not to be seen in its structure: this is the measure of that.",
    )


def _mean_of(rows: Iterable[Any]) -> list[float]:
    found = list(rows)
    return [float(value) for value in np.mean(found, axis=0)] if found else [math.nan] * 3
