"""The scanner and protobuf agree on any bytes: on what is valid, on its items, and on every field of each."""

from __future__ import annotations

import importlib.util
import random
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftlock_otlp.errors import DecodeError
from driftlock_otlp.model import Signal
from driftlock_otlp.otlp import decode, scanning
from driftlock_otlp.otlp.identifiers import malformed_items
from driftlock_otlp.windowing import logs, metrics, templates, traces
from driftlock_otlp.windowing.batch import StreamBatch
from tests.benchmark.telemetry import REQUESTS
from tests.fuzz.mutation import mutate

CORPUS = Path(__file__).parents[1] / "fuzz" / "corpus"
EXTRACT = {Signal.LOGS: logs, Signal.METRICS: metrics, Signal.TRACES: traces}


@cache
def interpreted() -> Any:
    """Return the scanner's source, run by the interpreter."""
    path = Path(scanning.__file__).with_name("scan.py")
    spec = importlib.util.spec_from_file_location("tests.interpreted_scan", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _scanner(way: str) -> Any:
    if way == "interpreted":
        return interpreted()
    if scanning.scan is None:
        pytest.skip("the scanner is not compiled here: there was no C compiler when the package was installed")
    return scanning.scan


@cache
def _tables(way: str) -> dict[Signal, scanning.Tables]:
    return scanning.tables_of(_scanner(way))


@cache
def _seeds(signal: Signal) -> list[bytes]:
    """Return requests to start from, each behind the letter of its signal."""
    letter = signal.plural[:1].encode()
    found = [path.read_bytes() for path in sorted(CORPUS.rglob("*")) if path.is_file()]
    seeds = [data for data in found if data[:1] == letter and len(data) < 4_000]
    made = [letter + payload for payload in REQUESTS[signal](2, 6)]
    assert made
    return made * 4 + seeds


def _change_bytes(data: bytes, max_size: int, chance: random.Random) -> bytes:
    """Return other bytes: some changed, left out, doubled, or cut off."""
    changed = bytearray(data[1:])
    for _ in range(chance.choice((1, 1, 2, 5))):
        if not changed:
            break
        at = chance.randrange(len(changed))
        way = chance.randrange(6)
        if way == 0:
            changed[at] ^= 1 << chance.randrange(8)
        elif way == 1:
            changed[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, 0xC0, 0xED))
        elif way == 2:
            del changed[at : at + chance.randrange(1, 5)]
        elif way == 3:
            changed[at:at] = changed[at : at + chance.randrange(1, 9)]
        elif way == 4:
            changed[at:at] = chance.randbytes(chance.randrange(1, 4))
        else:
            del changed[at:]
    return data[:1] + bytes(changed[: max_size - 1])


def _request(signal: Signal, seed: int) -> bytes:
    """Return a request that is like real ones, changed as a message, as bytes, or in both ways."""
    chance = random.Random(seed)
    data = chance.choice(_seeds(signal))
    for _ in range(chance.randrange(4)):
        data = mutate(data, 20_000, chance.randrange(1 << 30), lambda d, n: _change_bytes(d, n, chance))
    if chance.random() < 0.4:
        data = _change_bytes(data, 20_000, chance)
    return data[1:]


def _plain(batches: list[StreamBatch]) -> list[Any]:
    """Return all that is to be the same; as text, since NaN equals nothing."""
    return [
        (
            batch.key,
            batch.items,
            batch.times_unix_nano,
            batch.resource,
            batch.resource_schema_url,
            [(name, repr(batch.column(name))) for name in batch.fields],
        )
        for batch in batches
    ]


@pytest.mark.parametrize("way", ["compiled", "interpreted"])
@pytest.mark.parametrize("signal", Signal, ids=lambda signal: signal.plural)
def test_an_everyday_request_is_scanned_without_protobuf(way: str, signal: Signal) -> None:
    for payload in REQUESTS[signal](3, 30):
        expected = decode.count_items(signal, decode.decode(signal, payload))
        assert _tables(way)[signal].check(payload) == expected


@pytest.mark.parametrize("way", ["compiled", "interpreted"])
@pytest.mark.parametrize("signal", Signal, ids=lambda signal: signal.plural)
@given(seed=st.integers(0, 1 << 32))
def test_what_the_scanner_is_sure_of_protobuf_reads_in_the_same_way(way: str, signal: Signal, seed: int) -> None:
    payload = _request(signal, seed)
    found = _tables(way)[signal].check(payload)
    if found is None:
        return
    message = decode.decode(signal, payload)
    assert found == decode.count_items(signal, message)
    assert malformed_items(signal, message) == []
    expected = EXTRACT[signal].extract(message, "acme")
    assert _plain(EXTRACT[signal].extract_scanned(payload, "acme", _scanner(way))) == _plain(expected)


@pytest.mark.parametrize("way", ["compiled", "interpreted"])
def test_most_changed_requests_that_are_valid_are_scanned(way: str) -> None:
    """Without this the test above could pass by never being sure."""
    valid = sure = 0
    for seed in range(400):
        signal = list(Signal)[seed % 3]
        payload = _request(signal, seed)
        try:
            decode.decode(signal, payload)
        except DecodeError:
            continue
        valid += 1
        sure += _tables(way)[signal].check(payload) is not None
    assert valid > 150
    assert sure > 0.6 * valid


def _field(number: int, wire: int, value: bytes) -> bytes:
    return bytes([number << 3 | wire]) + value


def _message(number: int, content: bytes) -> bytes:
    assert len(content) < 128
    return _field(number, 2, bytes([len(content)]) + content)


BODY = _message(5, _message(1, b"paid"))


@pytest.mark.parametrize("way", ["compiled", "interpreted"])
@pytest.mark.parametrize(
    "record",
    [
        pytest.param(BODY + BODY, id="a part that comes twice"),
        pytest.param(_field(1, 0, b"\x05"), id="a known field of another wire type"),
        pytest.param(_field(40 - 32, 3, b"") + _field(40 - 32, 4, b""), id="a group"),
        pytest.param(_field(2, 0, b"\x89\x80\x00"), id="a varint longer than need be"),
        pytest.param(_message(3, b"\xed\xa0\x80"), id="a surrogate"),
        pytest.param(_message(3, b"\xc0\x80"), id="a zero in two bytes"),
        pytest.param(_message(3, b"\xf4\x90\x80\x80"), id="a character beyond the last"),
        pytest.param(_message(9, b"short"), id="a trace id of five bytes"),
        pytest.param(_message(5, _message(1, b"a") + _message(5, b"") + _message(6, b"")), id="alternatives"),
        pytest.param(b"\x52\x09123", id="a length beyond the end"),
        pytest.param(b"\x00\x00", id="field number zero"),
    ],
)
def test_what_is_rare_or_wrong_is_left_to_protobuf(way: str, record: bytes) -> None:
    payload = _message(1, _message(2, _message(2, record)))
    assert _tables(way)[Signal.LOGS].check(payload) is None


@pytest.mark.parametrize("way", ["compiled", "interpreted"])
def test_deep_nesting_is_left_to_protobuf(way: str) -> None:
    payload = b""
    for tag in (b"\x0a", b"\x2a") * 30 + (b"\x2a", b"\x12", b"\x12", b"\x0a"):  # arrays of arrays, in a body
        size = len(payload)
        payload = tag + (bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])) + payload
    assert decode.count_items(Signal.LOGS, decode.decode(Signal.LOGS, payload)) == 1
    assert _tables(way)[Signal.LOGS].check(payload) is None


def test_too_many_envelopes_are_left_to_protobuf() -> None:
    payload = b"\x0a\x00" * (decode.MOST_ENVELOPES + 1)
    for tables in (_tables("interpreted"),) + ((_tables("compiled"),) if scanning.scan is not None else ()):
        assert tables[Signal.LOGS].check(payload) is None
        assert tables[Signal.LOGS].check(payload[: 2 * decode.MOST_ENVELOPES]) == 0


@pytest.mark.parametrize("way", ["compiled", "interpreted"])
@pytest.mark.parametrize("signal", Signal, ids=lambda signal: signal.plural)
def test_senders_of_ever_new_attributes_are_bounded_as_by_protobuf(way: str, signal: Signal) -> None:
    """The scanner's own rule near the bound on fields must end in the same fields."""
    request: Any = decode.request_class(signal)()
    resource = getattr(request, f"resource_{'spans' if signal is Signal.TRACES else signal.plural}").add()
    scope = getattr(resource, f"scope_{'spans' if signal is Signal.TRACES else signal.plural}").add()
    if signal is Signal.METRICS:
        items = [scope.metrics.add(name="m").gauge.data_points, scope.metrics.add(name="m").histogram.data_points]
    else:
        items = [scope.log_records if signal is Signal.LOGS else scope.spans]
    for number in range(90):
        record = items[number % len(items)].add()
        for place in range(number % 4):
            record.attributes.add(key=f"a{number}.{place}").value.int_value = place
        record.attributes.add(key=f"b{number % 7}").value.string_value = "x"
    payload = request.SerializeToString()
    assert _tables(way)[signal].check(payload) == 90
    found = EXTRACT[signal].extract_scanned(payload, "", _scanner(way))
    assert _plain(found) == _plain(EXTRACT[signal].extract(request, ""))
    assert len(found[0].fields) == 128


@given(text=st.text(st.sampled_from("0019aé.-\0 "), max_size=200))
def test_runs_of_digits_become_one_zero_in_either_way(text: str) -> None:
    expected = re.sub(r"[0-9]+", "0", text).encode()
    assert templates._collapse_by_passes(text.encode()) == expected
    assert interpreted().collapse_digits(text.encode()) == expected
    if scanning.scan is not None:
        assert scanning.scan.collapse_digits(text.encode()) == expected
