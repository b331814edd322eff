"""What detectors have learned, as a file that another sidecar can begin with.

The file is msgpack, compressed with zstd:

    {"format": 1, "settings": {kind: what makes the fingerprint}, "streams": [one state each]}

A state is what a checkpoint keeps, less what belongs to the log it came from: open windows, a running
anomaly, and when the last window was.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from driftlock_otlp.config.root import Config
from driftlock_otlp.detection.compressor import Compressor
from driftlock_otlp.detection.scores import ALGORITHM
from driftlock_otlp.errors import InputError
from driftlock_otlp.model import StreamKey
from driftlock_otlp.windowing.scoring import detector_settings, stream_fingerprints
from driftlock_otlp.windowing.stream_table import StreamState, partition_of
from driftlock_otlp.worker.checkpoint import (
    Checkpoint,
    SavedStream,
    checkpoint_path,
    decode_state,
    encode_state,
    saved_states,
)
from driftlock_otlp.zstandard import zstd

FORMAT = 1
"""The newest format of the file that this version reads, and the one that it writes."""


@dataclass(slots=True)
class Outcome:
    """What became of the streams of a file, or of a data directory.

    Attributes:
        taken: Those carried over.
        anew: Those whose detector has other settings than the configuration, so that they learn anew in any case.
        known: Those that the data directory knew already, and kept.
    """

    taken: list[StreamKey] = field(default_factory=list)
    anew: list[StreamKey] = field(default_factory=list)
    known: list[StreamKey] = field(default_factory=list)


def export_baselines(
    config: Config, compressor: Compressor, selects: Callable[[StreamKey], bool]
) -> tuple[bytes, Outcome]:
    """Return the file of a data directory's baselines, and what is in it.

    Args:
        config: Names the data directory.
        compressor: The configured one.
        selects: Which streams to take.

    Raises:
        StorageFormatError: Another version wrote the data.
        StorageUnavailableError: It cannot be read.
    """
    fingerprints, outcome, streams = stream_fingerprints(config, compressor), Outcome(), []
    for path in _checkpoints(config):
        for state in saved_states(path) if path.is_file() else ():
            key = StreamKey(*state["key"])
            if not selects(key):
                continue
            if state["fingerprint"] == fingerprints[key.kind]:
                outcome.taken.append(key)
                streams.append(_without_its_log(state))
            else:
                outcome.anew.append(key)
    settings = {kind: _facts(config, compressor, kind) for kind in sorted({key.kind for key in outcome.taken})}
    file = {"format": FORMAT, "settings": settings, "streams": streams}
    return zstd.compress(encode_state(file)), outcome


def import_baselines(
    data: bytes, config: Config, compressor: Compressor, selects: Callable[[StreamKey], bool], *, replaces: bool
) -> Outcome:
    """Put the baselines of a file into a data directory that no sidecar uses; durable on return.

    Args:
        data: The file.
        config: Names the data directory, which is made if absent.
        compressor: The configured one.
        selects: Which streams to take.
        replaces: Whether also those that the directory knows.

    Raises:
        InputError: It is no such file, or its baselines were learned with other settings.
        StorageFormatError: A newer version wrote the data.
    """
    file = _read(data)
    states = [state for state in file["streams"] if selects(StreamKey(*state["key"]))]
    for kind in sorted({state["key"][0] for state in states}):
        _check_settings(kind, file["settings"][kind], _facts(config, compressor, kind))
    fingerprints, outcome = stream_fingerprints(config, compressor), Outcome()
    paths = _checkpoints(config)
    shares: list[list[StreamState]] = [[] for _ in paths]
    for state in states:
        key = StreamKey(*state["key"])
        # Of equal settings an equal fingerprint; else the file was tampered with.
        if state["fingerprint"] != fingerprints[key.kind]:
            raise InputError(f"the baseline of {key} does not fit the settings that the file tells of it")
        shares[partition_of(key, len(paths))].append(state)
    config.queue.path.mkdir(parents=True, exist_ok=True, mode=0o700)
    for path, share in zip(paths, shares, strict=True):
        if share:
            with closing(Checkpoint(path)) as checkpoint:
                checkpoint.add([*_to_add(checkpoint, share, outcome, replaces=replaces)])
    return outcome


def _to_add(
    checkpoint: Checkpoint, states: Iterable[StreamState], outcome: Outcome, *, replaces: bool
) -> Iterable[SavedStream]:
    for state in states:
        key = StreamKey(*state["key"])
        present = checkpoint.state(repr(key))
        # An anomaly that goes on would never end.
        if present is not None and (not replaces or present["detector"].get("is_open")):
            outcome.known.append(key)
            continue
        outcome.taken.append(key)
        merged = state if present is None else state | {"windows": present["windows"]}
        yield SavedStream(repr(key), encode_state(merged), 0, is_resident=True)


def _without_its_log(state: StreamState) -> StreamState:
    detector = state["detector"] | {"is_open": False, "open_windows": 0, "calm_windows": 0, "last_closed_unix_nano": 0}
    return state | {"windows": [], "anomaly_id": "", "last_event": 0, "detector": detector}


def _checkpoints(config: Config) -> list[Path]:
    count = config.detection.workers
    return [checkpoint_path(config.queue.path, index, count) for index in range(count)]


def _facts(config: Config, compressor: Compressor, kind: str) -> dict[str, Any]:
    """Return all that the fingerprint of a kind is made of, by the name of its setting."""
    facts = {"algorithm": ALGORITHM, "compressor": compressor.fingerprint}
    facts |= {f"detector {name}": value for name, value in asdict(detector_settings(config, kind)).items()}
    window = json.loads(config.window(kind).model_dump_json())
    return facts | {f"windows.{kind}.{name}": value for name, value in window.items()}


def _check_settings(kind: str, theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    different = [
        f"{name} is {theirs.get(name)} there and {ours.get(name)} here"
        for name in dict.fromkeys([*ours, *theirs])
        if theirs.get(name) != ours.get(name)
    ]
    if different:
        raise InputError(
            f"the baselines of {kind} were learned with other settings ({'; '.join(different)}): baselines of two"
            f" settings never mix. Give this sidecar the same ones, leave {kind} out with --kind, or let it learn anew"
        )


def _read(data: bytes) -> dict[str, Any]:
    try:
        file = decode_state(zstd.decompress(data))
        if file["format"] > FORMAT:
            raise InputError(
                f"the file has format {file['format']}; this version reads formats up to {FORMAT}: use the version that"
                " wrote it"
            )
        assert isinstance(file["streams"], list)  # noqa: S101 - what follows reads it
        assert isinstance(file["settings"], dict)  # noqa: S101
    except (zstd.ZstdError, msgspec.DecodeError, KeyError, TypeError, AssertionError) as error:
        raise InputError("this is no file that `baseline export` wrote") from error
    result: dict[str, Any] = file
    return result
