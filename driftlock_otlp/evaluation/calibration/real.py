"""Parts of real data in which nothing is known to be wrong, as streams of windows.

Data: `nab/data/artificialNoAnomaly/*.csv`, `smd/*.npz` (train) and `ms_cloud/*/*.csv` without their
labelled points, below a data directory; what is not there is left out.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from driftlock_otlp.detection.columns import Category, Columns, Floats, Number
from driftlock_otlp.errors import InputError
from driftlock_otlp.evaluation.calibration.streams import WINDOW_S

_POINTS = 4
"""Ticks of a window."""
_GAUGES = 3
_FEWEST_WINDOWS = 200


class ArrayStream:
    """Gauges that are read from an array, a few ticks a window, as if every 2.5 seconds.

    Args:
        values: float64, (ticks, gauges), finite.
    """

    in_burst = False

    def __init__(self, values: Floats) -> None:
        self._values = values
        self._labels = [f"gauge {i}" for i in range(values.shape[1])]
        self._at = 0

    @property
    def window_count(self) -> int:
        """Whole windows in it."""
        return len(self._values) // _POINTS

    def window(self, fault: str = "", size: float = 0.0) -> tuple[Columns, float]:
        """Return the next window's columns and its duration in seconds; it knows no faults.

        Raises:
            ValueError: A fault is asked for.
        """
        if fault:
            raise ValueError("what was recorded has no faults to be put in")
        ticks = slice(self._at, self._at + _POINTS)
        seconds = np.arange(self._at, self._at + _POINTS) * (WINDOW_S / _POINTS)
        self._at += _POINTS
        gauges = self._values.shape[1]
        columns = Columns(_POINTS * gauges, np.repeat((seconds * 1e9).astype(np.int64), gauges))
        codes = np.tile(np.arange(gauges, dtype=np.int32), _POINTS)
        columns.categories = {"series": Category(codes, self._labels)}
        values = self._values[ticks].reshape(-1)
        columns.numbers = {"value": Number(values, given="series", is_point_series=True)}
        return columns, WINDOW_S


@dataclass(frozen=True, slots=True)
class RealSet:
    """Streams of one set.

    Attributes:
        name: Which part of which set.
        streams: Those long enough to warm up.
    """

    name: str
    streams: list[ArrayStream]


def real_sets(data: Path) -> Iterator[RealSet]:
    """Yield the sets that are there.

    Raises:
        InputError: A file is not as it should be.
    """
    for name, arrays in (
        ("NAB artificialNoAnomaly", map(_values, sorted(data.glob("nab/data/artificialNoAnomaly/*.csv")))),
        ("SMD train", map(_server, sorted(data.glob("smd/*.npz")))),
        ("Microsoft cloud, points without label", map(_unlabelled, sorted(data.glob("ms_cloud/*/*.csv")))),
    ):
        streams = [ArrayStream(values) for values in arrays]
        streams = [stream for stream in streams if stream.window_count >= _FEWEST_WINDOWS]
        if streams:
            yield RealSet(name, streams)


def _values(path: Path) -> Floats:
    try:
        values = np.loadtxt(path, delimiter=",", skiprows=1, usecols=1, ndmin=1)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as timestamp,value: {error}") from None
    return values[np.isfinite(values), None]


def _server(path: Path) -> Floats:
    try:
        with np.load(path) as file:
            train = np.asarray(file["train"], dtype=np.float64)
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as a server's train rows: {error}") from None
    varying = np.flatnonzero(train.std(axis=0) > 0)
    return train[:, varying[:_GAUGES]]


def _unlabelled(path: Path) -> Floats:
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = [
                float(row["Value"]) for row in csv.DictReader(stream) if row["Value"] and not float(row["Label"] or 0)
            ]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: cannot be read as TimeStamp,Value,Label: {error}") from None
    values = np.array(rows)
    return values[np.isfinite(values), None]
