"""The files that a replay writes: scores as CSV, anomaly events as OTLP/JSON lines."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from driftlock_otlp.errors import InputError
from driftlock_otlp.model import Anomaly, Signal
from driftlock_otlp.otlp.anomaly_event import anomaly_event
from driftlock_otlp.otlp.decode import decode
from driftlock_otlp.otlp.json_mapping import request_to_json
from driftlock_otlp.replay.run import NO_STREAM, Replay
from driftlock_otlp.replay.times import format_time

SCORES_HEADER = "index,timestamp,stream,score,p_value,anomalous"
"""Columns of a score file."""

_QUOTED = ',"\r\n'


@contextmanager
def replaced(path: Path) -> Iterator[TextIO]:
    """Open a file that takes the place of `path` when all has gone well, and leaves no trace otherwise.

    Raises:
        InputError: It cannot be written.
    """
    try:
        if path.exists() and not path.is_file():
            # A pipe or a device: nothing to put in its place.
            with path.open("w", encoding="utf-8", newline="") as stream:
                yield stream
            return
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with open(descriptor, "w", encoding="utf-8", newline="") as stream:
                yield stream
            _take_usual_permissions(name)
            Path(name).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(name).unlink()
            raise
    except BrokenPipeError:
        raise
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from None


def write_scores(stream: TextIO, replay: Replay) -> None:
    """Write one line per record in the order of the input, over all files.

    The columns: index from 0, time in ISO 8601 UTC (empty if it has none), stream (empty if no
    window took the record), score in [0, 1] with six digits, conformal p-value of its window,
    and 1 where that belongs to an anomaly.
    """
    names = [_cell(str(key)) for key in replay.streams]
    stream.write(f"{SCORES_HEADER}\n")
    index = 0
    for scores in replay.files:
        columns = zip(
            scores.times_unix_nano, scores.streams, scores.scores, scores.p_values, scores.anomalous, strict=True
        )
        for time, number, score, p_value, anomalous in columns:
            name = "" if number == NO_STREAM else names[number]
            stream.write(f"{index},{format_time(time)},{name},{score:.6g},{p_value:.6g},{anomalous}\n")
            index += 1


def event_line(anomaly: Anomaly, version: str) -> str:
    """Return an anomaly event as one line of OTLP/JSON, observed when it happened."""
    observed_unix_nano = anomaly.resolved_unix_nano or anomaly.detected_unix_nano
    payload = anomaly_event(anomaly, observed_unix_nano, version)
    return request_to_json(Signal.LOGS, decode(Signal.LOGS, payload)).decode() + "\n"


def _cell(text: str) -> str:
    if any(character in text for character in _QUOTED):
        return '"' + text.replace('"', '""') + '"'
    return text


def _take_usual_permissions(name: str) -> None:
    """Give a temporary file, made for its owner alone, the permissions of any new file."""
    umask = os.umask(0)
    os.umask(umask)
    Path(name).chmod(0o666 & ~umask)
