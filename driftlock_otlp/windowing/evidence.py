"""Evidence bundles: all that a verdict rests on, in one file that an auditor can recompute it from.

A bundle is a ZIP archive. Its members, in the order of the chain:

    settings.json     the detector: algorithm, compressor, thresholds, stream, fingerprint
    window.json       the odd window as typed columns; arrays are in
    window.frames     one frame of the compressor after the other
    detector.json     all that the detector remembered at that moment: baseline, calibration, bars; arrays in
    detector.frames
    calibration.json  the surprise of every past window that the p-value ranks this one among
    verdict.json      code lengths, p-value, verdict, and what people were told
    manifest.json     SHA-256 of each member, and the chain: SHA-256 of the link before, the name and that hash

The last link, the root, stands for the whole; whoever has noted it knows that no byte has changed since.
`verify` rebuilds the detector, judges the window again and compares. It needs the same algorithm and
compressor; what needs neither is said by the chain and by `calibration.json`.

Where nothing of the payload may be quoted, every label is replaced by a keyed hash of it, the same
everywhere in the bundle; the key is thrown away. Labels only say which records are alike, so the
recomputed verdict is the same.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import msgspec

from driftlock_otlp.detection.columns import Category, Columns, Counts, Number
from driftlock_otlp.detection.compressor import Compressor, new_compressor
from driftlock_otlp.detection.detector import StreamDetector
from driftlock_otlp.detection.scores import ALGORITHM, DetectorSettings, WindowScore
from driftlock_otlp.errors import CompressorError, InputError
from driftlock_otlp.model import EvidenceBundle, StreamKey
from driftlock_otlp.windowing.bundle import (
    BUNDLE_FORMAT,
    Bundle,
    FrameReader,
    Frames,
    of_plain,
    pack_bundle,
    to_json,
    to_plain,
)
from driftlock_otlp.windowing.streams import new_record_scorers

_MOST_A_MINUTE = 100
_TOLERANCE = 1e-9
_WORDS = """
above alarm_height anchor anchored_unix_nano anomaly_id bad bar baseline before began_s beyond bits calibrated_on
calm_checks calm_windows cases check_count checked_unix_nano clock count counts deviation drift drifting edits escapes
fresh given governor_bits has_order history history_total hourly_counts hourly_means ids interval_s is_histogram
is_open is_point_series is_positive_scale is_protected jobs keys kinds known labels largest last_alarm
last_closed_unix_nano last_s lasting learned learned_total left_out level line lines log2_rate mean members
multiplicity novel_total novelties novelty numbers open_id open_windows order past pending point rare_value rate
recent recent_bits recent_count recent_s record_count record_governor_bits records recurrences running seasons seen
session sessions severities shift significance since_refit slow_span sparse_to_warm symbols tail_sum times unit
unknown used values verdicts volume windows windows_since
"""
_STRUCTURE = frozenset(_WORDS.split())
"""Words of the state's own structure, which are not labels."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A window and its verdict, as the detector had them.

    Attributes:
        anomaly_id: What it raised.
        stream: Where.
        fingerprint: Identity of detector and windows.
        settings: Of the detector.
        closed_unix_nano: When it closed.
        duration_s: Seconds of event time since the window before.
        score: The verdict, with the window itself.
    """

    anomaly_id: str
    stream: StreamKey
    fingerprint: str
    settings: DetectorSettings
    closed_unix_nano: int
    duration_s: float
    score: WindowScore


class EvidencePace:
    """Bounds the bundles of one minute: a bundle costs some 30 ms, and in an outage everything alarms at once."""

    def __init__(self) -> None:
        self._minute = self._count = 0

    def admits(self, clock_unix_nano: int) -> bool:
        """Return whether one more may be made, by the clock of the windows."""
        minute = clock_unix_nano // 60_000_000_000
        if minute != self._minute:
            self._minute, self._count = minute, 0
        self._count += 1
        return self._count <= _MOST_A_MINUTE


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was recomputed.

    Attributes:
        name: What.
        stored: As the bundle says.
        found: As recomputed.
        is_right: Whether they agree.
    """

    name: str
    stored: str
    found: str
    is_right: bool


def make_bundle(
    judged: Judged, detector_state: Any, told: Mapping[str, object], compressor: Compressor, *, quotes_labels: bool
) -> EvidenceBundle:
    """Return the bundle of a verdict.

    Args:
        judged: The window and its verdict.
        detector_state: `StreamDetector.state` after the window was scored and before it was learned.
        told: What people were told; plain values and dataclasses.
        compressor: Writes the frames.
        quotes_labels: Whether labels stand in the bundle as they are, or hashed.

    Raises:
        CompressorError: The compressor failed.
    """
    score, columns = judged.score, judged.score.columns
    keep = _STRUCTURE | columns.categories.keys() | columns.numbers.keys() | columns.counts.keys()
    keep |= {name for _, name in detector_state["baseline"]["order"]}
    rename = _as_it_is if quotes_labels else _hasher(frozenset(keep))
    window_frames, detector_frames = Frames(compressor), Frames(compressor)
    settings = {
        "format": BUNDLE_FORMAT,
        "algorithm": ALGORITHM,
        "compressor": compressor.fingerprint,
        "fingerprint": judged.fingerprint,
        "anomaly_id": judged.anomaly_id,
        "stream": asdict(judged.stream),
        "detector": asdict(judged.settings),
        "labels": "as they are" if quotes_labels else "hashed",
    }
    window = {
        "closed_unix_nano": judged.closed_unix_nano,
        "duration_s": judged.duration_s,
        "columns": _columns_state(columns, rename, window_frames),
    }
    verdict = {
        "is_alarm": score.is_alarm,
        "is_flagged": score.is_flagged,
        "bits": score.bits,
        "margin_bits": score.margin_bits,
        "p_value": score.p_value,
        "claims": [
            {"column": claim.column, "claim": claim.name, "kind": claim.kind, "evidence": value, "bits": bits}
            for claim, value, bits in zip(
                score.claims, _padded(score.vector, len(score.claims)), score.column_bits.tolist(), strict=True
            )
        ],
        "told": msgspec.to_builtins(told),
    }
    calibration = {
        "strongest_bits": float(score.column_bits.max()) if score.column_bits.size else 0.0,
        "past_strongest_bits": [] if score.past is None else score.past.tolist(),
        "p_value": "(1 + number of past values at or above this window's) / (1 + number of past values)",
    }
    detector = to_plain(detector_state, rename, detector_frames)
    root, data = pack_bundle(
        {
            "settings.json": to_json(settings),
            "window.json": to_json(window | {"frames": window_frames.index}),
            "window.frames": window_frames.data,
            "detector.json": to_json({"state": detector, "frames": detector_frames.index}),
            "detector.frames": detector_frames.data,
            "calibration.json": to_json(calibration),
            "verdict.json": to_json(verdict),
        }
    )
    return EvidenceBundle(judged.anomaly_id, judged.stream.tenant, root, data)


def compressor_of(bundle: Bundle) -> Compressor:
    """Return the compressor that wrote a bundle, or the one at hand if that is not here.

    Raises:
        InputError: The bundle does not say which it was.
    """
    try:
        return new_compressor("zstd" if bundle.json("settings.json")["compressor"].startswith("zstd") else "auto")
    except (KeyError, AttributeError, TypeError) as error:
        raise InputError(f"the bundle does not say which compressor wrote it: {error!r}") from error


def verify(bundle: Bundle, compressor: Compressor) -> list[Check]:
    """Judge the window of a bundle again, and compare.

    Args:
        bundle: What `read_bundle` returned.
        compressor: Must be the one that the bundle names.

    Returns:
        What was recomputed, the identity of detector and compressor first: if those differ, the rest cannot be told.

    Raises:
        InputError: The bundle does not hold what it should.
    """
    settings, verdict = bundle.json("settings.json"), bundle.json("verdict.json")
    try:
        checks = [
            _same("algorithm", settings["algorithm"], ALGORITHM),
            _same("compressor", settings["compressor"], compressor.fingerprint),
        ]
        checks += _check_rank(verdict, bundle.json("calibration.json"))
        if not all(check.is_right for check in checks[:2]):
            return checks
        window, remembered = bundle.json("window.json"), bundle.json("detector.json")
        frames = FrameReader(bundle.members["window.frames"], window["frames"], compressor)
        columns = _columns_of_state(window["columns"], frames)
        frames = FrameReader(bundle.members["detector.frames"], remembered["frames"], compressor)
        detector = StreamDetector(
            DetectorSettings(**settings["detector"]), compressor, new_record_scorers(settings["stream"]["kind"])
        )
        detector.restore(of_plain(remembered["state"], frames))
        score = detector.score_one(columns, window["closed_unix_nano"], window["duration_s"])
    except (KeyError, ValueError, TypeError, IndexError, CompressorError) as error:
        raise InputError(f"the bundle does not hold what a verdict needs: {error!r}") from error
    checks += [
        _near("bits", verdict["bits"], score.bits),
        _near("bits beyond the bar", verdict["margin_bits"], score.margin_bits),
        _near("p-value", verdict["p_value"], score.p_value),
        _same("alarm", verdict["is_alarm"], score.is_alarm),
        _same("flagged", verdict["is_flagged"], score.is_flagged),
    ]
    values = _padded(score.vector, len(score.claims))
    checks.append(_same("claims", len(verdict["claims"]), len(score.claims)))
    for told, claim, value, bits in zip(verdict["claims"], score.claims, values, score.column_bits, strict=False):
        name = f"{claim.column} {claim.name}".strip()
        checks.append(_near(f"evidence of {name}", told["evidence"], value))
        checks.append(_near(f"bits of {name}", told["bits"], float(bits)))
    return checks


def _check_rank(verdict: dict[str, Any], calibration: dict[str, Any]) -> list[Check]:
    """Count the p-value out of the calibration set, as anybody can who has neither detector nor compressor."""
    past = calibration["past_strongest_bits"]
    if not past:
        return []
    least = calibration["strongest_bits"]
    at_least = sum(value >= least for value in past)
    return [_near("p-value by counting", verdict["p_value"], (1 + at_least) / (1 + len(past)))]


def _same(name: str, stored: object, found: object) -> Check:
    return Check(name, str(stored), str(found), stored == found)


def _near(name: str, stored: float | None, found: float | None) -> Check:
    a, b = (math.nan if value is None else float(value) for value in (stored, found))
    is_right = a == b or (math.isnan(a) and math.isnan(b)) or abs(a - b) <= _TOLERANCE * max(abs(a), abs(b), 1.0)
    return Check(name, f"{a:.6g}", f"{b:.6g}", is_right)


def _padded(vector: Any, count: int) -> list[float]:
    values: list[float] = vector.tolist()
    return values + [math.nan] * (count - len(values))


def _columns_state(columns: Columns, rename: Callable[[str], str], frames: Frames) -> dict[str, Any]:
    state = {item.name: getattr(columns, item.name) for item in fields(columns)}
    for kind in ("categories", "numbers", "counts"):
        state[kind] = {
            name: {item.name: getattr(column, item.name) for item in fields(column)}
            for name, column in state[kind].items()
        }
        for column in state[kind].values():
            if "labels" in column:
                column["labels"] = [rename(label) for label in column["labels"]]
    return to_plain(state, _as_it_is, frames)  # type: ignore[no-any-return]


def _columns_of_state(state: dict[str, Any], frames: FrameReader) -> Columns:
    plain = of_plain(state, frames)
    for kind, column_type in (("categories", Category), ("numbers", Number), ("counts", Counts)):
        plain[kind] = {name: column_type(**column) for name, column in plain[kind].items()}
    return Columns(**plain)


def _as_it_is(text: str) -> str:
    return text


def _hasher(keep: frozenset[str]) -> Callable[[str], str]:
    key = secrets.token_bytes(32)

    def rename(text: str) -> str:
        if not text or text in keep:
            return text
        digest = hmac.new(key, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()
        return f"sha256:{digest[:32]}"

    return rename
