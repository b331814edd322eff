"""The baseline of a stream: typed models of its columns, learned from unflagged windows.

A window is prepared once, evaluated against the models as they are, and learned later, if at
all. The models keep running counts; the windows themselves are kept here, oldest first, so
that the oldest can be taken out again.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from driftlock_otlp.detection.claims import Change, Claim, Sizes
from driftlock_otlp.detection.columns import Columns, Floats
from driftlock_otlp.detection.compressor import Compressor
from driftlock_otlp.detection.numbers import NumberModel, NumberWindow
from driftlock_otlp.detection.symbols import SymbolModel, SymbolWindow
from driftlock_otlp.detection.volume import VolumeModel

_MOST_WINDOWS = 2_000


@dataclass(slots=True)
class PreparedWindow:
    """A window in the form the models take.

    Attributes:
        record_count: Records in it.
        log2_rate: log2 of records per second; NaN if unknown.
        symbols: By column name.
        numbers: By column name.
    """

    record_count: int
    log2_rate: float
    symbols: dict[str, SymbolWindow] = field(default_factory=dict)
    numbers: dict[str, NumberWindow] = field(default_factory=dict)


@dataclass(slots=True)
class Evaluation:
    """What the models say of a window.

    Attributes:
        values: float64, (d,), in the order of `Baseline.claims`; NaN where not applicable.
        sizes: Compressed sizes over all columns.
        entropy_bits: Entropy of the window's symbols, bits a record, summed over columns.
        baseline_entropy_bits: The same of the baseline.
    """

    values: Floats
    sizes: Sizes
    entropy_bits: float
    baseline_entropy_bits: float


class Baseline:
    """Models of a stream's columns over its last unflagged windows.

    Args:
        least_windows: Windows to hold, at least.
        least_records: Records to hold, at least, so that small windows add up.
        compressor: Judges order and structure.
    """

    def __init__(self, least_windows: int, least_records: int, compressor: Compressor) -> None:
        self._least_windows, self._least_records = least_windows, least_records
        self._compressor = compressor
        self._windows: deque[PreparedWindow] = deque()
        self._record_count = 0
        self._volume = VolumeModel()
        self._symbols: dict[str, SymbolModel] = {}
        self._numbers: dict[str, NumberModel] = {}
        self._order: list[tuple[str, str]] = [("volume", "rate")]
        self.claims: list[Claim] = list(self._volume.claims)

    @property
    def window_count(self) -> int:
        """Windows in the baseline."""
        return len(self._windows)

    @property
    def record_count(self) -> int:
        """Records in the baseline."""
        return self._record_count

    @property
    def is_ready(self) -> bool:
        """Whether it holds enough windows to compare with."""
        return len(self._windows) >= self._least_windows

    def prepare(self, columns: Columns, log2_rate: float) -> PreparedWindow:
        """Return the window in the form the models take; creates models of new columns, empty."""
        for name, category in columns.categories.items():
            if name not in self._symbols:
                self._add("symbols", name, SymbolModel(name, has_order="." not in name and len(category.labels) > 0))
        for name in columns.counts:
            if name not in self._symbols:
                self._add("symbols", name, SymbolModel(name, has_order=False, is_histogram=True))
        for name, number in columns.numbers.items():
            if name not in self._numbers:
                self._add("numbers", name, NumberModel(name, number))
        prepared = PreparedWindow(columns.record_count, log2_rate)
        for name, symbol_model in self._symbols.items():
            prepared.symbols[name] = symbol_model.prepare(columns.categories.get(name) or columns.counts.get(name))
        for name, number_model in self._numbers.items():
            given = columns.categories.get(number_model.given) if number_model.given else None
            prepared.numbers[name] = number_model.prepare(columns.numbers.get(name), given)
        return prepared

    def usual_rate(self, rates: Sequence[float]) -> float:
        """Return that of several log2 rates which is nearest to the usual one."""
        return min(rates, key=lambda rate: float(np.nan_to_num(self._volume.evaluate(rate).values[0])))

    def evaluate(self, window: PreparedWindow) -> Evaluation:
        """Return the window's evidence; changes nothing that later results rest on."""
        values, sizes = [], Sizes()
        for kind, name in self._order:
            if kind == "volume":
                evidence = self._volume.evaluate(window.log2_rate)
            elif kind == "symbols":
                evidence = self._symbols[name].evaluate(window.symbols[name], self._compressor)
            else:
                evidence = self._numbers[name].evaluate(window.numbers[name], self._compressor)
            values.append(evidence.values)
            sizes.add(evidence.sizes)
        return Evaluation(
            np.concatenate(values),
            sizes,
            sum(model.window_entropy_bits(window.symbols[name]) for name, model in self._symbols.items()),
            sum(model.baseline_entropy_bits() for model in self._symbols.values()),
        )

    def learn(self, window: PreparedWindow) -> None:
        """Add a window, and let go of the oldest ones that are not needed any more."""
        self._volume.learn(window.log2_rate)
        for name, symbol_model in self._symbols.items():
            if name not in window.symbols:  # the column came up after the window was prepared
                window.symbols[name] = symbol_model.prepare(None)
            symbol_model.learn(window.symbols[name])
        for name, number_model in self._numbers.items():
            if name not in window.numbers:
                window.numbers[name] = number_model.prepare(None, None)
            number_model.learn(window.numbers[name])
        self._windows.append(window)
        self._record_count += window.record_count
        while len(self._windows) > self._least_windows and (
            self._record_count - self._windows[0].record_count >= self._least_records
            or len(self._windows) > _MOST_WINDOWS
        ):
            self._forget_oldest()

    def clear(self) -> None:
        """Forget all windows; what has ever been seen stays known."""
        while self._windows:
            self._forget_oldest()

    @property
    def windows(self) -> list[PreparedWindow]:
        """Its windows, oldest first; not to be changed."""
        return [*self._windows]

    def replace(self, windows: Sequence[PreparedWindow]) -> None:
        """Hold these windows, which it has held before, and no others; what has ever been seen stays known."""
        self._hold(windows)
        for name, symbol_model in self._symbols.items():
            symbol_model.restore(symbol_model.state(), [w.symbols[name] for w in windows if name in w.symbols])
        for name, number_model in self._numbers.items():
            number_model.hold([w.numbers[name] for w in windows if name in w.numbers])

    def record_bits(self, window: PreparedWindow, weights: dict[str, float]) -> Floats:
        """Return what each record saves under the window's own model, over all columns.

        Args:
            window: The window.
            weights: Weight of each column; columns left out weigh nothing.

        Returns:
            float64, (n,), bits, >= 0.
        """
        total = np.zeros(window.record_count)
        for name, weight in weights.items():
            if name in self._symbols:
                total += weight * self._symbols[name].record_bits(window.symbols[name], window.record_count)
            elif name in self._numbers:
                total += weight * self._numbers[name].record_bits(window.numbers[name], window.record_count)
        return total

    def model_of(self, claim: Claim) -> VolumeModel | SymbolModel | NumberModel:
        """Return the model that made a claim."""
        if claim.name == "rate":
            return self._volume
        return self._symbols.get(claim.column) or self._numbers[claim.column]

    def symbol_of(self, window: PreparedWindow, claim: Claim) -> str:
        """Return the symbol that says most for a claim, empty if it has none."""
        return "" if claim.name == "rate" else self.change(window, claim, "").label

    def change(self, window: PreparedWindow, claim: Claim, noun: str) -> Change:
        """Return the most telling difference for a claim, in words."""
        model = self.model_of(claim)
        if isinstance(model, SymbolModel):
            return model.change(window.symbols[claim.column], claim, noun)
        if isinstance(model, NumberModel):
            return model.change(window.numbers[claim.column], claim, noun)
        return model.change(window.log2_rate, noun)

    def empty_without_order(self, least_windows: int) -> Baseline:
        """Return a baseline of the same columns that holds nothing yet and does not judge order."""
        made = Baseline(least_windows, 1, self._compressor)
        for kind, name in self._order:
            if kind == "symbols":
                is_histogram = self._symbols[name].is_histogram
                made._add(kind, name, SymbolModel(name, has_order=False, is_histogram=is_histogram))
            elif kind == "numbers":
                made._add(kind, name, NumberModel.of_state(name, self._numbers[name].state() | {"has_order": False}))
        return made

    def fitted(self, window: PreparedWindow) -> PreparedWindow:
        """Return a window of another baseline in the form that this one's models take."""
        made = copy_unlearned(window)
        for name, symbol_model in self._symbols.items():
            made.symbols.setdefault(name, symbol_model.prepare(None))
        for name, number_model in self._numbers.items():
            made.numbers.setdefault(name, number_model.prepare(None, None))
        return made

    def direction(self, window: PreparedWindow, column: str, label: str) -> int:
        """Return 1 if a column's values of a symbol are larger than usual, -1 if smaller, 0 if it has none."""
        model, numbers = self._numbers.get(column), window.numbers.get(column)
        return 0 if model is None or numbers is None else model.direction(numbers, label)

    def state(self) -> dict[str, Any]:
        """Return everything remembered, as plain values and arrays."""
        return {
            "windows": [prepared_state(window) for window in self._windows],
            "order": [list(item) for item in self._order],
            "symbols": {name: model.state() for name, model in self._symbols.items()},
            "numbers": {name: model.state() for name, model in self._numbers.items()},
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Become the baseline that gave this state."""
        self._hold([prepared_of_state(item) for item in state["windows"]])
        for kind, name in state["order"]:
            if kind == "symbols":
                saved = state["symbols"][name]
                symbol_model = SymbolModel(name, has_order=saved["has_order"], is_histogram=saved["is_histogram"])
                symbol_model.restore(saved, [w.symbols[name] for w in self._windows if name in w.symbols])
                self._add("symbols", name, symbol_model)
            elif kind == "numbers":
                saved = state["numbers"][name]
                number_model = NumberModel.of_state(name, saved)
                number_model.restore(saved, [w.numbers[name] for w in self._windows if name in w.numbers])
                self._add("numbers", name, number_model)

    def _hold(self, windows: Sequence[PreparedWindow]) -> None:
        self._windows = deque(windows)
        self._record_count = sum(window.record_count for window in windows)
        self._volume.restore([window.log2_rate for window in windows])

    def _add(self, kind: str, name: str, model: SymbolModel | NumberModel) -> None:
        if isinstance(model, SymbolModel):
            self._symbols[name] = model
        else:
            self._numbers[name] = model
        self._order.append((kind, name))
        self.claims.extend(model.claims)

    def _forget_oldest(self) -> None:
        window = self._windows.popleft()
        self._record_count -= window.record_count
        self._volume.forget()
        for name, symbols in window.symbols.items():
            self._symbols[name].forget(symbols)
        for name, numbers in window.numbers.items():
            self._numbers[name].forget(numbers)


def log2_rate(record_count: int, seconds: float) -> float:
    """Return log2 of records per second, NaN when the duration is unknown."""
    return math.log2(record_count / seconds) if seconds > 0 and record_count else math.nan


def prepared_state(window: PreparedWindow) -> dict[str, Any]:
    """Return a prepared window as plain values and arrays."""
    return {
        "record_count": window.record_count,
        "log2_rate": window.log2_rate,
        "symbols": {name: [w.labels, w.counts, w.codes, w.ids] for name, w in window.symbols.items()},
        "numbers": {name: [w.rows, w.values, w.labels, w.codes, w.ids] for name, w in window.numbers.items()},
    }


def prepared_of_state(state: dict[str, Any]) -> PreparedWindow:
    """Return the prepared window that gave this state."""
    return PreparedWindow(
        state["record_count"],
        state["log2_rate"],
        {name: SymbolWindow(*item) for name, item in state["symbols"].items()},
        {name: NumberWindow(*item) for name, item in state["numbers"].items()},
    )


def copy_unlearned(window: PreparedWindow) -> PreparedWindow:
    """Return the window as if no model had numbered its labels; arrays are shared."""
    return PreparedWindow(
        window.record_count,
        window.log2_rate,
        {name: replace(symbols, ids=None) for name, symbols in window.symbols.items()},
        {name: replace(numbers, ids=None, value_ids=None) for name, numbers in window.numbers.items()},
    )
