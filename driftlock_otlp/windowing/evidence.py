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
import io
import json
import math
import secrets
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import msgspec
import numpy as np

from driftlock_otlp.detection.columns import Category, Columns, Counts, Number
from driftlock_otlp.detection.compressor import Compressor
from driftlock_otlp.detection.detector import StreamDetector
from driftlock_otlp.detection.scores import ALGORITHM, DetectorSettings, WindowScore
from driftlock_otlp.errors import CompressorError, InputError
from driftlock_otlp.model import EvidenceBundle, StreamKey
from driftlock_otlp.windowing.streams import new_record_scorers

BUNDLE_FORMAT = 1
"""The newest bundle format that this version reads, and the one that it writes."""

_MANIFEST = "manifest.json"
_MEMBERS = (
    "settings.json",
    "window.json",
    "window.frames",
    "detector.json",
    "detector.frames",
    "calibration.json",
    "verdict.json",
)
_MOST_BYTES = 1 << 30
"""A member that claims to be larger is not unpacked."""
_MOST_A_MINUTE = 100
_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    OSError,
    EOFError,
    RuntimeError,
    LookupError,
    ValueError,
    TypeError,
)
"""What a damaged archive makes its reader raise."""
_TOLERANCE = 1e-9
_PLACE_OF_DATE = (1980, 1, 1, 0, 0, 0)  # Equal evidence gives equal bytes.
_WORDS = """
above alarm_height bad bar baseline bits calibrated_on calm_windows cases clock count counts deviation edits escapes
fresh given governor_bits has_order history history_total hourly_counts hourly_means ids interval_s is_histogram
is_open is_point_series is_positive_scale is_protected keys kinds known labels last_alarm last_closed_unix_nano last_s
lasting learned learned_total left_out level line lines log2_rate mean members multiplicity novel_total novelties
novelty numbers open_id open_windows order past pending point rare_value rate recent recent_bits recent_count recent_s
record_count record_governor_bits records seasons seen session sessions severities shift significance since_refit
slow_span sparse_to_warm symbols tail_sum unit unknown used values verdicts volume windows
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
class Bundle:
    """The members of a bundle whose chain is sound.

    Attributes:
        members: Bytes by name.
        root: Last link of the chain, 64 hex digits.
    """

    members: dict[str, bytes]
    root: str

    def json(self, name: str) -> Any:
        """Return a JSON member.

        Raises:
            InputError: It is none.
        """
        try:
            return json.loads(self.members[name])
        except ValueError as error:
            raise InputError(f"{name} in the bundle is not JSON: {error}") from error


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
    window_frames, detector_frames = _Frames(compressor), _Frames(compressor)
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
    detector = _plain(detector_state, rename, detector_frames)
    root, data = _pack(
        {
            "settings.json": _to_json(settings),
            "window.json": _to_json(window | {"frames": window_frames.index}),
            "window.frames": window_frames.data,
            "detector.json": _to_json({"state": detector, "frames": detector_frames.index}),
            "detector.frames": detector_frames.data,
            "calibration.json": _to_json(calibration),
            "verdict.json": _to_json(verdict),
        }
    )
    return EvidenceBundle(judged.anomaly_id, judged.stream.tenant, root, data)


def read_bundle(data: bytes) -> Bundle:
    """Return the members of a bundle, once the chain has been followed.

    Raises:
        InputError: It is no bundle, a newer one, or a byte of it was changed; the message says where.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            sizes = {item.filename: item.file_size for item in archive.infolist()}
            if sizes.keys() != {*_MEMBERS, _MANIFEST} or max(sizes.values()) > _MOST_BYTES:
                raise InputError("this is not an evidence bundle: its members are others")
            members = {name: archive.read(name) for name in (*_MEMBERS, _MANIFEST)}
        manifest = json.loads(members.pop(_MANIFEST))
        if manifest["format"] > BUNDLE_FORMAT:
            raise InputError(
                f"the bundle has format {manifest['format']}; this version reads formats up to {BUNDLE_FORMAT}:"
                " verify it with the version that wrote it"
            )
        stored = [(link["member"], link["sha256"], link["chain"]) for link in manifest["chain"]]
    except _UNREADABLE as error:
        raise InputError(f"this is not a sound evidence bundle: {error}") from error
    for link, right in zip(stored, _chain(members), strict=False):
        if link != right:
            raise InputError(f"{right[0]} in the bundle is not what its manifest says: it was changed or damaged")
    if len(stored) != len(_MEMBERS) or manifest.get("root") != stored[-1][2]:
        raise InputError("the manifest of the bundle was changed or damaged")
    return Bundle(members, stored[-1][2])


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
        frames = _FrameReader(bundle.members["window.frames"], window["frames"], compressor)
        columns = _columns_of_state(window["columns"], frames)
        frames = _FrameReader(bundle.members["detector.frames"], remembered["frames"], compressor)
        detector = StreamDetector(
            DetectorSettings(**settings["detector"]), compressor, new_record_scorers(settings["stream"]["kind"])
        )
        detector.restore(_of_plain(remembered["state"], frames))
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


# The archive.


def _pack(members: dict[str, bytes]) -> tuple[str, bytes]:
    """Return the root of the chain, and the archive."""
    links = _chain(members)
    manifest = {
        "format": BUNDLE_FORMAT,
        "chain": [{"member": name, "sha256": digest, "chain": link} for name, digest, link in links],
        "root": links[-1][2],
    }
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in (members | {_MANIFEST: _to_json(manifest)}).items():
            info = zipfile.ZipInfo(name, _PLACE_OF_DATE)
            info.compress_type = zipfile.ZIP_STORED if name.endswith(".frames") else zipfile.ZIP_DEFLATED
            archive.writestr(info, data)
    return links[-1][2], output.getvalue()


def _chain(members: dict[str, bytes]) -> list[tuple[str, str, str]]:
    """Return (member, its SHA-256, link) of each member, in the order of the chain."""
    links, before = [], ""
    for name in _MEMBERS:
        digest = hashlib.sha256(members[name]).hexdigest()
        before = hashlib.sha256(f"{before}\0{name}\0{digest}".encode()).hexdigest()
        links.append((name, digest, before))
    return links


def _to_json(tree: Any) -> bytes:
    # Numbers are written so that they are read back exactly; NaN and Infinity as JSON's common extension has them.
    return json.dumps(tree, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


# Values and arrays.


class _Frames:
    """Arrays on their way into a bundle.

    Args:
        compressor: Writes the frames.
    """

    def __init__(self, compressor: Compressor) -> None:
        self._compressor = compressor
        self.index: list[list[Any]] = []
        self._frames: list[bytes] = []

    @property
    def data(self) -> bytes:
        """All frames, one after the other."""
        return b"".join(self._frames)

    def add(self, array: np.ndarray[Any, Any]) -> int:
        """Return the number of an array, now that it is in."""
        flat = np.ascontiguousarray(array).reshape(-1).view(f"u{array.dtype.itemsize}")
        self._frames.append(self._compressor.compress(flat))
        self.index.append([array.dtype.str, list(array.shape), len(self._frames[-1])])
        return len(self.index) - 1


class _FrameReader:
    """The arrays of a bundle.

    Args:
        data: All frames, one after the other.
        index: Type, shape and bytes of each.
        compressor: Reads them.

    Raises:
        CompressorError: A frame is damaged.
    """

    def __init__(self, data: bytes, index: list[list[Any]], compressor: Compressor) -> None:
        self._arrays = []
        offset = 0
        for dtype, shape, size in index:
            raw = compressor.decompress(data[offset : offset + size])
            self._arrays.append(np.frombuffer(raw, np.dtype(dtype)).reshape(shape).copy())
            offset += size

    def __getitem__(self, number: int) -> np.ndarray[Any, Any]:
        return self._arrays[number]


def _plain(value: Any, rename: Callable[[str], str], frames: _Frames) -> Any:
    """Return a value as JSON has it; `_of_plain` reads it back."""
    if isinstance(value, np.ndarray):
        return {"$array": frames.add(value)}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, str):
        return rename(value)
    if isinstance(value, bytes):
        return {"$bytes": value.hex()}
    if isinstance(value, dict):
        if all(isinstance(key, str) and not key.startswith("$") for key in value):
            return {rename(key): _plain(item, rename, frames) for key, item in value.items()}
        return {"$items": [[_plain(key, rename, frames), _plain(item, rename, frames)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return [_plain(item, rename, frames) for item in value]
    return value


def _of_plain(value: Any, frames: _FrameReader) -> Any:
    if isinstance(value, list):
        return [_of_plain(item, frames) for item in value]
    if not isinstance(value, dict):
        return value
    if "$array" in value:
        return frames[value["$array"]]
    if "$bytes" in value:
        return bytes.fromhex(value["$bytes"])
    if "$items" in value:
        return {_key(_of_plain(key, frames)): _of_plain(item, frames) for key, item in value["$items"]}
    return {key: _of_plain(item, frames) for key, item in value.items()}


def _key(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _columns_state(columns: Columns, rename: Callable[[str], str], frames: _Frames) -> dict[str, Any]:
    state = {item.name: getattr(columns, item.name) for item in fields(columns)}
    for kind in ("categories", "numbers", "counts"):
        state[kind] = {
            name: {item.name: getattr(column, item.name) for item in fields(column)}
            for name, column in state[kind].items()
        }
        for column in state[kind].values():
            if "labels" in column:
                column["labels"] = [rename(label) for label in column["labels"]]
    return _plain(state, _as_it_is, frames)  # type: ignore[no-any-return]


def _columns_of_state(state: dict[str, Any], frames: _FrameReader) -> Columns:
    plain = _of_plain(state, frames)
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
