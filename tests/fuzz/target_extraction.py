"""From any request that decodes to typed columns of windows, and through what a checkpoint keeps."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from driftlock_otlp.config.detection import WindowConfig, WindowsConfig
from driftlock_otlp.detection.columns import Columns
from driftlock_otlp.errors import DecodeError
from driftlock_otlp.model import StreamKey
from driftlock_otlp.otlp import decode
from driftlock_otlp.windowing.assembler import WindowAssembler
from driftlock_otlp.windowing.batch import Shaper
from driftlock_otlp.windowing.streams import new_shaper, split_request
from driftlock_otlp.worker.checkpoint import decode_state, encode_state
from tests.fuzz.inputs import signal_and_rest

_WINDOW = WindowConfig(size=3, max_age=10.0)
_WINDOWS = WindowsConfig(
    logs=_WINDOW, metrics=_WINDOW, traces=WindowConfig(size=3, max_age=10.0, session_key="trace_id"), gen_ai=_WINDOW
)


def check(data: bytes) -> None:
    """Take a request, whose signal the first byte tells, twice in a row."""
    signal, payload = signal_and_rest(data)
    try:
        message = decode.decode(signal, payload)
    except DecodeError:
        return
    n_items = decode.count_items(signal, message)
    assembler = WindowAssembler(_WINDOWS)
    shapers: dict[StreamKey, Shaper] = {}
    n_records = 0
    for position in range(2):
        batches = split_request(signal, message, "")
        items = sorted(item for batch in batches for item in batch.items)
        assert items == sorted(set(items))
        assert all(0 <= item < n_items for item in items)
        n_records += len(items)
        for batch in batches:
            assert all(len(column) <= len(batch.items) for column in batch.fields.values())
            for window in assembler.add(batch, position):
                n_records -= _shape(shapers, window)
            open_windows = decode_state(encode_state(assembler.open_windows(batch.key)))
            restored = WindowAssembler(_WINDOWS)
            restored.restore(batch.key, open_windows)
            assert encode_state(restored.open_windows(batch.key)) == encode_state(assembler.open_windows(batch.key))
    n_records -= sum(_shape(shapers, window) for window in itertools.chain(assembler.advance(20 * 10**9)))
    n_records -= sum(_shape(shapers, window) for window in assembler.flush())
    assert n_records == 0, "every record is in one window"


def _shape(shapers: dict[StreamKey, Shaper], window: Any) -> int:
    """Shape a window, here and in a shaper restored from a checkpoint; return its number of records."""
    key = window.key
    shaper = shapers.setdefault(key, new_shaper(key.kind))
    restored = new_shaper(key.kind)
    restored.restore(decode_state(encode_state(shaper.state())))
    columns = shaper.shape(window.batch)
    _check_columns(columns, len(window.batch.items))
    assert _plain(columns) == _plain(restored.shape(window.batch))
    return len(window.batch.items)


def _check_columns(columns: Columns, n: int) -> None:
    assert columns.record_count == n
    assert len(columns.time_unix_nano) == n
    for category in columns.categories.values():
        assert len(category.codes) == n
        assert len(set(category.labels)) == len(category.labels)
        assert all(-1 <= code < len(category.labels) for code in category.codes.tolist())
        for label in category.labels:
            label.encode("utf-8")
    for number in columns.numbers.values():
        assert number.values.dtype == np.float64
        assert len(number.values) == n
        assert not np.isinf(number.values).any()
        if number.is_positive_scale:
            assert not (number.values < 0).any()
    for counts in columns.counts.values():
        assert counts.counts.shape == (n, len(counts.labels))
        assert np.isfinite(counts.counts).all()
        assert (counts.counts >= 0).all()


def _plain(columns: Columns) -> bytes:
    return encode_state(
        [
            [[name, column.codes, column.labels] for name, column in columns.categories.items()],
            [[name, column.values] for name, column in columns.numbers.items()],
            [[name, column.counts, column.labels] for name, column in columns.counts.items()],
        ]
    )
