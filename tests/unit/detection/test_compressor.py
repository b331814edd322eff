"""Compressed sizes: the same column always costs the same, and less when it has structure."""

from __future__ import annotations

import gc
import subprocess
import sys

import numpy as np
import pytest

from driftlock_otlp.detection.compressor import Compressor, OpenZLCompressor, ZstdCompressor, new_compressor

ALL = [OpenZLCompressor, ZstdCompressor]


@pytest.fixture(params=ALL, ids=["openzl", "zstd"])
def compressor(request: pytest.FixtureRequest) -> Compressor:
    made: Compressor = request.param()
    return made


def noise(seed: int, size: int = 600) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 200, size).astype(np.uint8)


def test_an_empty_column_costs_nothing(compressor: Compressor) -> None:
    assert compressor.compressed_size(np.zeros(0, dtype=np.uint8)) == 0
    assert compressor.compressed_size(np.zeros(0, dtype=np.int16)) == 0


def test_the_same_column_always_costs_the_same(compressor: Compressor) -> None:
    columns = [noise(1), np.arange(500, dtype=np.uint16), (noise(2).astype(np.int16) - 100) * 300]
    first = [compressor.compressed_size(column) for column in columns]
    assert [compressor.compressed_size(column) for column in reversed(columns)] == first[::-1]
    assert [type(compressor)().compressed_size(column) for column in columns] == first


def test_a_remembered_size_is_that_of_the_same_bytes_and_type(compressor: Compressor) -> None:
    bytes_ = noise(5, 400)
    pairs = bytes_.view(np.int16)
    assert compressor.compressed_size(bytes_) == len(compressor.compress(bytes_))
    assert compressor.compressed_size(pairs) == len(compressor.compress(pairs))
    assert compressor.compressed_size(bytes_[:-1]) == len(compressor.compress(bytes_[:-1]))


def test_more_columns_than_are_remembered_still_cost_what_they_cost() -> None:
    compressor = ZstdCompressor()
    columns = [np.arange(n % 90, dtype=np.uint8) * (1 + n // 90) for n in range(9_000)]
    assert [compressor.compressed_size(column) for column in columns] == [len(compressor.compress(c)) for c in columns]


def test_structure_makes_a_column_cheaper(compressor: Compressor) -> None:
    flat, periodic = np.full(600, 7, dtype=np.uint8), np.tile(np.arange(6, dtype=np.uint8), 100)
    cost = [compressor.compressed_size(column) for column in (flat, periodic, noise(3))]
    assert cost == sorted(cost)
    assert cost[1] < 0.2 * cost[2]


def test_a_temporary_buffer_is_kept_alive_until_the_call_returns(compressor: Compressor) -> None:
    expected = [compressor.compressed_size(noise(seed)) for seed in range(200)]
    found = []
    for seed in range(200):
        found.append(compressor.compressed_size(noise(seed).copy()))
        np.full(600, 255, dtype=np.uint8)  # takes the place of a buffer that was let go
        if seed % 50 == 0:
            gc.collect()
    assert found == expected


def test_a_strided_view_costs_what_its_values_cost(compressor: Compressor) -> None:
    whole = noise(4, 1200)
    assert compressor.compressed_size(whole[::2]) == compressor.compressed_size(whole[::2].copy())


def test_every_compressor_has_a_fingerprint_of_its_own() -> None:
    fingerprints = [kind().fingerprint for kind in ALL]
    assert len(set(fingerprints)) == len(ALL)
    assert [kind().fingerprint for kind in ALL] == fingerprints
    assert fingerprints[0].startswith("openzl-")
    assert fingerprints[1].startswith("zstd-")


def test_the_setting_chooses_the_compressor() -> None:
    assert isinstance(new_compressor("zstd"), ZstdCompressor)
    assert isinstance(new_compressor("openzl"), OpenZLCompressor)
    assert isinstance(new_compressor("auto"), OpenZLCompressor)


def test_compressors_in_cycles_are_collected_without_harm_to_the_process() -> None:
    # The bindings abort the process if their objects are freed in the wrong order.
    program = (
        "import gc; from types import SimpleNamespace as N; from driftlock_otlp.detection.compressor import *\n"
        "for _ in range(3):\n"
        "    one = N(compressor=new_compressor('auto')); one.itself = one\n"
        "    one.compressor.compress(np.arange(9)); del one\n"
        "    gc.collect()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
