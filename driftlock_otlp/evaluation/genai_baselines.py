"""What LLM traffic is usually watched with, on the same windows: averages, a forest, new names."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from driftlock_otlp.evaluation.baselines import fitted_forest

Floats = npt.NDArray[np.float64]

_RATE = 0.1
_FEWEST_WINDOWS = 10
_MOST_WINDOWS = 400
_NUMBERS = (
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.output_tokens",
    "gen_ai.response.time_to_first_chunk",
)
_NAMES = ("gen_ai.operation.name", "gen_ai.tool.name", "gen_ai.response.model", "error.type")


@dataclass(frozen=True, slots=True)
class RecordFacts:
    """What dashboards show of an operation.

    Attributes:
        numbers: Input tokens, output tokens, first chunk in s, duration in s, characters of the answer; NaN if absent.
        names: Operation, tool, model, error and finish reasons.
        failed: Whether it ended in an error.
    """

    numbers: tuple[float, ...]
    names: tuple[str, ...]
    failed: bool


def facts_of(span: Span) -> RecordFacts:
    """Return what dashboards show of a span."""
    values = {attribute.key: attribute.value for attribute in span.attributes}
    numbers = [
        float(values[key].int_value or values[key].double_value) if key in values else float("nan") for key in _NUMBERS
    ]
    numbers.append((span.end_time_unix_nano - span.start_time_unix_nano) / 1e9)
    output = values.get("gen_ai.output.messages")
    numbers.append(float(len(output.string_value)) if output is not None else float("nan"))
    reasons = values.get("gen_ai.response.finish_reasons")
    finished = reasons.array_value.values[0].string_value if reasons is not None else ""
    names = [values[key].string_value if key in values else "" for key in _NAMES]
    return RecordFacts(tuple(numbers), (*names, finished), span.status.code == Status.STATUS_CODE_ERROR)


class WindowPast:
    """The windows of one stream so far, as aggregates."""

    def __init__(self) -> None:
        self._windows: deque[Floats] = deque(maxlen=_MOST_WINDOWS)
        self._mean: Floats | None = None
        self._variance: Floats = np.zeros(0)
        self._seen: set[tuple[int, str]] = set()
        self._forest: Any = None

    def learn(self, records: list[RecordFacts]) -> None:
        """Take in a window."""
        vector = _aggregates(records)
        self._windows.append(vector)
        self._seen |= {pair for record in records for pair in enumerate(record.names)}
        if self._mean is None:
            self._mean, self._variance = vector.copy(), np.zeros(len(vector))
            return
        deviation = vector - self._mean
        self._mean = self._mean + _RATE * deviation
        self._variance = (1 - _RATE) * (self._variance + _RATE * deviation**2)

    def largest_z(self, records: list[RecordFacts]) -> float:
        """Return how far the oddest aggregate lies from its exponential average, in its own spread."""
        if self._mean is None or len(self._windows) < _FEWEST_WINDOWS:
            return 0.0
        z = np.abs(_aggregates(records) - self._mean) / (np.sqrt(self._variance) + 1e-3)
        return float(z.max())

    def grow(self) -> None:
        """Grow the trees on what was learned so far; later windows do not change them."""
        if len(self._windows) >= _FEWEST_WINDOWS:
            self._forest = fitted_forest(np.array(self._windows))

    def isolation(self, records: list[RecordFacts]) -> float:
        """Return how quickly the trees isolate the window; 0 before there are any."""
        return -float(self._forest.score_samples(_aggregates(records)[None])[0]) if self._forest is not None else 0.0

    def new_names(self, records: list[RecordFacts]) -> float:
        """Return how many names of the window were never seen before."""
        return float(sum(pair not in self._seen for record in records for pair in enumerate(record.names)))


def _aggregates(records: list[RecordFacts]) -> Floats:
    """Return mean and maximum of each number on a log scale, and the share of errors; float64, (11,)."""
    if not records:
        return np.zeros(11)
    numbers = np.log1p(np.nan_to_num(np.array([record.numbers for record in records]), nan=0.0))
    failed = float(np.mean([record.failed for record in records]))
    result: Floats = np.concatenate((numbers.mean(axis=0), numbers.max(axis=0), [failed]))
    return result


DETECTORS: dict[str, Callable[[WindowPast, list[RecordFacts]], float]] = {
    "EWMA z-score": WindowPast.largest_z,
    "isolation forest": WindowPast.isolation,
    "new names": WindowPast.new_names,
}
"""Baselines by name; each scores a window before it is learned."""
