"""The whole way from a request to verdicts, for a set of streams; used by workers and by replay.

One `StreamScoring` owns the windows, shapers and detectors of its streams outright. It is
driven by requests and by the clock, does no I/O, and the same input gives the same output.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from driftlock_otlp.config.root import Config
from driftlock_otlp.detection.compressor import Compressor
from driftlock_otlp.detection.detector import StreamDetector
from driftlock_otlp.detection.levels import StreamLevel
from driftlock_otlp.detection.scores import DetectorSettings, WindowScore, fingerprint, to_score
from driftlock_otlp.errors import CompressorError
from driftlock_otlp.model import Anomaly, EvidenceBundle, ItemRange, Signal, StreamKey
from driftlock_otlp.observability.live import LiveStream
from driftlock_otlp.orders import FeedbackVerdict, Order, Sensitivity
from driftlock_otlp.windowing.assembler import Window, WindowAssembler
from driftlock_otlp.windowing.evidence import EvidencePace, Judged, make_bundle
from driftlock_otlp.windowing.found import anomaly_of, drift_of, facts_of, further_of, outcome_of
from driftlock_otlp.windowing.stream_table import StreamState, StreamTable, partition_of
from driftlock_otlp.windowing.streams import new_record_scorers, new_shaper, read_request
from driftlock_otlp.windowing.tracked_stream import TrackedStream
from driftlock_otlp.windowing.verdicts import RecordScores, Verdicts

_MAX_AHEAD_NANO = 3_600 * 10**9
"""Event times further than this ahead of the clock are not believed."""
_IS_GOOD: dict[FeedbackVerdict, bool | None] = {"false_alarm": True, "confirmed": False, "withdrawn": None}
_MOST_PLACED = 100_000
"""Stream keys whose partition is remembered; it is soon found again."""


class StreamChange(NamedTuple):
    """A stream that changed.

    Attributes:
        key: Which.
        state: Everything remembered about it.
        used: A count that says how its last use compares with those of others.
        is_resident: False if it has made room for another.
    """

    key: StreamKey
    state: StreamState
    used: int
    is_resident: bool


def detector_settings(config: Config, kind: str) -> DetectorSettings:
    """Return what of the configuration changes the scores of streams of one kind."""
    window = config.window(kind)
    return DetectorSettings(
        significance=config.significance(kind),
        warm_up_windows=config.detection.warm_up_windows,
        calibration_windows=config.detection.calibration_windows,
        baseline_windows=window.baseline_windows,
        baseline_records=window.baseline_records,
        recovery_windows=config.detection.recovery_windows,
        adopt_after_windows=config.detection.adopt_after_windows,
    )


def stream_fingerprints(config: Config, compressor: Compressor) -> dict[str, str]:
    """Return the identity of detector and windows of each kind of stream: baselines of two never mix."""
    return {
        kind: _with_windows(
            fingerprint(detector_settings(config, kind), compressor), config.window(kind).model_dump_json()
        )
        for kind in type(config.windows).model_fields
    }


class StreamScoring:
    """Windows and detectors of the streams of one partition.

    Args:
        config: All settings.
        compressor: Judges order and structure.
        partition: (index, count): takes the streams whose stable hash falls to `index`.
        with_records: Also return the score of every record.
        with_evidence: Also return a bundle of evidence for each anomaly that begins.
        load: Returns the state of a stream that was evicted before, None if there is none: what
            `changes` told of it last.
    """

    def __init__(
        self,
        config: Config,
        compressor: Compressor,
        partition: tuple[int, int] = (0, 1),
        *,
        with_records: bool = False,
        with_evidence: bool = False,
        load: Callable[[StreamKey], StreamState | None] = lambda _: None,
    ) -> None:
        self._config = config
        self._compressor = compressor
        self._partition = partition
        self._with_records = with_records
        self._evidence_pace = EvidencePace() if with_evidence else None
        self._assembler = WindowAssembler(config.windows)
        self._streams = StreamTable(
            config.detection.max_streams, self._new_stream, self._assembler.has_open, self._evicted_state, load
        )
        self._is_mine: dict[StreamKey, bool] = {}
        self._changed: set[StreamKey] = set()
        self._settings = {kind: detector_settings(config, kind) for kind in type(config.windows).model_fields}
        self._fingerprints = stream_fingerprints(config, compressor)

    def feed(self, signal: Signal, payload: bytes, position: int, clock_unix_nano: int, tenant: str = "") -> Verdicts:
        """Take one request.

        Args:
            signal: Its signal.
            payload: OTLP protobuf.
            position: Its position in the log; must not decrease.
            clock_unix_nano: When it was received, on the clock that ages windows.
            tenant: Whose it is.

        Raises:
            DecodeError: It is not OTLP; nothing was taken.
        """
        batches = read_request(signal, payload, tenant)
        verdicts = self.advance(clock_unix_nano)
        evicted_before = self._streams.eviction_count
        for batch in batches:
            if not self._takes(batch.key):
                continue
            if self._streams.use(batch.key, self._take_over) is None:
                verdicts.unscored_items["max_streams"] += len(batch.items)
                continue
            self._changed.add(batch.key)
            self._score_all(self._assembler.add(batch, position), verdicts)
        verdicts.evicted_streams = self._streams.eviction_count - evicted_before
        return verdicts

    def advance(self, clock_unix_nano: int) -> Verdicts:
        """Let time pass, closing the windows that are too old."""
        verdicts = Verdicts()
        self._score_all(self._assembler.advance(clock_unix_nano), verdicts)
        return verdicts

    def obey(self, order: Order, clock_unix_nano: int) -> Verdicts:
        """Do what people have ordered, if it concerns a stream of this partition.

        Args:
            order: The order.
            clock_unix_nano: When it was given, on the clock that ages windows.
        """
        verdicts = self.advance(clock_unix_nano)
        key = order.stream
        if not self._takes(key):
            return verdicts
        evicted_before = self._streams.eviction_count
        stream = self._streams.use_known(key, self._take_over) if key.kind in self._settings else None
        verdicts.evicted_streams = self._streams.eviction_count - evicted_before
        is_known = stream is not None
        if stream is not None:
            self._changed.add(key)
            if isinstance(order, Sensitivity):
                stream.detector.set_significance(order.significance)
            else:
                has_ended = stream.detector.judge(order.anomaly_id, is_good=_IS_GOOD[order.verdict])
                is_known = has_ended is not None
                if has_ended:
                    verdicts.resolved.append((order.anomaly_id, stream.last_event_unix_nano, "dismissed"))
        verdicts.orders["obeyed" if is_known else "unknown"] += 1
        return verdicts

    def flush(self) -> Verdicts:
        """Close every open window: the input has ended."""
        verdicts = Verdicts()
        self._score_all(self._assembler.flush(), verdicts)
        return verdicts

    def oldest_position(self) -> int | None:
        """Return the position of the oldest request with a record that has no verdict yet."""
        return self._assembler.oldest_position()

    def oldest_opened_unix_nano(self) -> int | None:
        """Return when the oldest open window opened."""
        return self._assembler.oldest_opened_unix_nano()

    def stream_counts(self) -> Counter[str]:
        """Return the number of streams by kind."""
        return Counter(stream.key.kind for stream in self._streams)

    def warming_up_count(self) -> int:
        """Return how many streams cannot alarm yet."""
        return sum(not stream.detector.is_warm for stream in self._streams)

    def constant_count(self) -> int:
        """Return how many streams have scores that do not vary."""
        return sum(stream.detector.has_constant_scores for stream in self._streams)

    def live_streams(self, most: int) -> list[LiveStream]:
        """Return how at most `most` streams are: those with anomalies first, then the latest by their last window."""
        chosen = heapq.nlargest(
            most,
            self._streams,
            key=lambda stream: (stream.detector.has_open_anomaly, stream.last_event_unix_nano, stream.key),
        )
        counts = self._assembler.open_counts()
        live = []
        for stream in chosen:
            windows, records, opened_unix_nano = counts.get(stream.key, (0, 0, self.clock_unix_nano))
            age_s = (self.clock_unix_nano - opened_unix_nano) / 1e9
            live.append(stream.live(self._config.window(stream.key.kind).size, windows, records, age_s))
        return live

    def take_changes(self) -> Iterator[StreamChange]:
        """Yield the streams that changed since this was last called; to be taken to the end."""
        for key in sorted(self._changed):
            evicted = self._streams.evicted(key)
            if evicted is not None:
                yield StreamChange(key, evicted[1], evicted[0], is_resident=False)
            else:
                yield StreamChange(key, self.stream_state(key), self._streams[key].used, is_resident=True)
        self._changed.clear()
        self._streams.release_evicted()

    @property
    def evicted_count(self) -> int:
        """Evicted streams whose states wait to be taken with the changes."""
        return self._streams.evicted_count

    @property
    def clock_unix_nano(self) -> int:
        """The clock that ages windows."""
        return self._assembler.clock_unix_nano

    def stream_state(self, key: StreamKey) -> StreamState:
        """Return everything remembered about a stream, as plain values and arrays."""
        stream = self._streams[key]
        return {
            "key": [key.kind, key.service, key.name, key.tenant],
            "fingerprint": stream.fingerprint,
            "detector": stream.detector.state(),
            "shaper": stream.shaper.state(),
            "anomaly_id": stream.anomaly_id,
            "drift_id": stream.drift_id,
            "anomaly_windows": stream.anomaly_windows,
            "level": stream.level.state(),
            "last_event": stream.last_event_unix_nano,
            "windows": self._assembler.open_windows(key),
        }

    def restore(self, clock_unix_nano: int, states: Iterable[tuple[int, StreamState]]) -> list[str]:
        """Take over streams from a checkpoint.

        Open windows are taken over in any case; a baseline only if its detector was the same.

        Args:
            clock_unix_nano: The clock that ages windows.
            states: When each was used last, and its state; ascending.

        Returns:
            The streams that start to learn anew since settings or the compressor changed.
        """
        anew = []
        self._assembler.clock_unix_nano = clock_unix_nano
        for used, state in states:
            key = StreamKey(*state["key"])
            stream = self._streams.put(key, used) if self._takes(key) else None
            if stream is None:
                continue
            if state["fingerprint"] != stream.fingerprint:
                anew.append(str(key))
            self._take_over(stream, state)
        self._assembler.settle()
        return anew

    def _take_over(self, stream: TrackedStream, state: StreamState) -> None:
        stream.last_event_unix_nano = state["last_event"]
        if state["fingerprint"] == stream.fingerprint:
            stream.detector.restore(state["detector"])
            stream.shaper.restore(state["shaper"])
            stream.anomaly_id, stream.drift_id = state["anomaly_id"], state["drift_id"]
            # States of before do not know them.
            stream.anomaly_windows = state.get("anomaly_windows", 1)
            stream.level = StreamLevel(state.get("level", ()))
        else:
            stream.detector.set_significance(state["detector"].get("significance"))
        self._assembler.restore(stream.key, state["windows"])

    def _takes(self, key: StreamKey) -> bool:
        index, count = self._partition
        if count == 1:
            return True
        mine = self._is_mine.get(key)
        if mine is None:
            if len(self._is_mine) >= _MOST_PLACED:
                self._is_mine.clear()
            mine = self._is_mine[key] = partition_of(key, count) == index
        return mine

    def _evicted_state(self, key: StreamKey) -> StreamState:
        self._changed.add(key)
        return self.stream_state(key)

    def _new_stream(self, key: StreamKey) -> TrackedStream:
        detector = StreamDetector(self._settings[key.kind], self._compressor, new_record_scorers(key.kind))
        return TrackedStream(key, detector, new_shaper(key.kind), self._fingerprints[key.kind])

    def _score_all(self, windows: Iterable[Window], verdicts: Verdicts) -> None:
        for window in windows:
            stream = self._streams[window.key]
            self._changed.add(window.key)
            try:
                self._score(stream, window, verdicts)
            except CompressorError:
                verdicts.windows[window.key.kind, "unscored"] += 1
                verdicts.unscored_items["compressor"] += len(window.positions)

    def _score(self, stream: TrackedStream, window: Window, verdicts: Verdicts) -> None:
        times = window.batch.times_unix_nano
        # A sender's clock that is far ahead must not be the reference of the windows that follow.
        latest = window.closed_unix_nano + _MAX_AHEAD_NANO
        last = max((time for time in times if time <= latest), default=0) or window.closed_unix_nano
        previous = stream.last_event_unix_nano
        duration_s = (last - previous) / 1e9 if previous and last > previous and not window.session else 0.0
        columns = stream.shaper.shape(window.batch)
        if window.session and columns.sessions is None:
            columns.sessions = np.zeros(columns.record_count, np.int32)
        detector = stream.detector
        score = detector.score_one(columns, window.closed_unix_nano, duration_s)
        if self._with_records:
            verdicts.records.append(self._record_scores(stream, window, score))
        level = stream.level.take(score.margin_bits)
        if score.is_alarm:
            anomaly = anomaly_of(
                stream, window, score, level, self._quote_max_bytes(stream), self._compressor.fingerprint
            )
            stream.anomaly_id, stream.anomaly_windows = anomaly.id, 1
            verdicts.opened.append(anomaly)
            if self._evidence_pace is not None and self._evidence_pace.admits(window.closed_unix_nano):
                verdicts.evidence.append(self._bundle(stream, anomaly, window, duration_s, score))
        if score.is_anomalous:
            stream.anomaly_windows += not score.is_alarm
            _add_ranges(window, stream.anomaly_id, stream.anomaly_windows, verdicts.diverted)
            if not score.is_alarm:
                verdicts.ongoing.append(further_of(stream, last, score, level))
        if score.is_resolved:
            how = "adopted" if score.is_adopted else "recovered"
            verdicts.resolved.append((stream.anomaly_id, last, how))
        verdicts.windows[stream.key.kind, outcome_of(score)] += 1
        facts = facts_of(window, score)
        verdicts.facts.append(facts)
        stream.last_window = facts
        stream.window_count += 1
        detector.learn_one(score, stream.anomaly_id)
        self._tell_drift(stream, window, score, last, verdicts)
        stream.last_event_unix_nano = max(last, previous)

    def _tell_drift(
        self, stream: TrackedStream, window: Window, score: WindowScore, last_unix_nano: int, verdicts: Verdicts
    ) -> None:
        for news in stream.detector.drift.take_news():
            if isinstance(news, str):
                verdicts.resolved.append((stream.drift_id, last_unix_nano, news))
                continue
            quote_max_bytes = self._quote_max_bytes(stream)
            anomaly = drift_of(stream, window, score, news, quote_max_bytes, self._compressor.fingerprint)
            stream.drift_id = stream.detector.drift.anomaly_id = anomaly.id
            verdicts.opened.append(anomaly)

    def _quote_max_bytes(self, stream: TrackedStream) -> int:
        return self._config.quote_max_bytes(stream.key.kind)

    def _bundle(
        self, stream: TrackedStream, anomaly: Anomaly, window: Window, duration_s: float, score: WindowScore
    ) -> EvidenceBundle:
        kind = stream.key.kind
        quotes = score.columns.is_content_free or self._quote_max_bytes(stream) > 0
        judged = Judged(
            anomaly.id, stream.key, stream.fingerprint, self._settings[kind], window.closed_unix_nano, duration_s, score
        )
        told = {"severity": anomaly.severity, "explanation": anomaly.explanation, "evidence": anomaly.evidence}
        return make_bundle(judged, stream.detector.state(), told, self._compressor, quotes_labels=quotes)

    def _record_scores(self, stream: TrackedStream, window: Window, score: WindowScore) -> RecordScores:
        margins = stream.detector.record_margins(score)
        return RecordScores(
            window.positions,
            window.batch.items,
            window.batch.times_unix_nano,
            stream.key,
            [to_score(float(margin)) for margin in margins],
            score.p_value,
            score.is_anomalous,
        )


def _with_windows(detector_fingerprint: str, window_settings: str) -> str:
    text = detector_fingerprint + window_settings
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _add_ranges(window: Window, anomaly_id: str, count: int, diverted: dict[int, list[ItemRange]]) -> None:
    """Add the window's items, as runs of neighbours per request; it is the anomaly's window of this number."""
    positions = np.array(window.positions, dtype=np.int64)
    items = np.array(window.batch.items, dtype=np.int64)
    breaks = np.flatnonzero((np.diff(positions) != 0) | (np.diff(items) != 1)) + 1
    for run in np.split(np.arange(len(items)), breaks):
        first = int(items[run[0]])
        diverted.setdefault(int(positions[run[0]]), []).append(ItemRange(first, len(run), anomaly_id, count))
