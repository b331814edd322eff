"""Evidence bundles: they give the verdict again, they show every change, and they quote nothing that must not be."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftlock_otlp.errors import InputError
from driftlock_otlp.evaluation.calibration.streams import WINDOW_S
from driftlock_otlp.evaluation.calibration.watch import Watch
from driftlock_otlp.model import StreamKey
from driftlock_otlp.windowing.bundle import BUNDLE_FORMAT, pack_bundle, read_bundle
from driftlock_otlp.windowing.evidence import EvidencePace, Judged, make_bundle, verify
from tests.unit.detection.examples import COMPRESSOR, ZSTD

GROSS = {"logs": ("new_template", 0.6), "metrics": ("level", 40.0), "traces": ("new_operation", 0.6)}


@cache
def judged(kind: str, armed_windows: int = 40) -> tuple[Watch, Judged]:
    """A warm stream that meets a gross fault, not yet learned."""
    watch = Watch(kind, 1).warm_up(armed_windows)
    while watch.detector.has_open_anomaly:
        watch.step()
    watch.clock_unix_nano += int(WINDOW_S * 1e9)
    columns, duration_s = watch.stream.window(*GROSS[kind])
    score = watch.detector.score_one(columns, watch.clock_unix_nano, duration_s)
    assert score.is_alarm
    key = StreamKey(kind, "checkout")
    return watch, Judged("ab" * 16, key, "f" * 16, watch.settings, watch.clock_unix_nano, duration_s, score)


@cache
def bundle_of(kind: str, quotes_labels: bool = True) -> bytes:
    watch, window = judged(kind)
    told = {"explanation": "odd"}
    return make_bundle(window, watch.detector.state(), told, COMPRESSOR, quotes_labels=quotes_labels).data


def members(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def repacked(data: bytes, change: Callable[[dict[str, Any]], None], member: str = "verdict.json") -> bytes:
    """A bundle in which one member was changed and the chain made anew, as a forger would."""
    parts = members(data)
    del parts["manifest.json"]
    tree = json.loads(parts[member])
    change(tree)
    parts[member] = json.dumps(tree).encode()
    return pack_bundle(parts)[1]


@pytest.mark.parametrize("quotes_labels", [True, False])
@pytest.mark.parametrize("kind", GROSS)
def test_the_verdict_is_recomputed_from_the_bundle_alone(kind: str, quotes_labels: bool) -> None:
    checks = verify(read_bundle(bundle_of(kind, quotes_labels)), COMPRESSOR)
    assert [check for check in checks if not check.is_right] == []
    names = {check.name for check in checks}
    assert {"bits", "p-value", "p-value by counting", "alarm"} <= names
    assert sum(name.startswith("bits of ") for name in names) >= 5


@pytest.mark.parametrize("kind", GROSS)
def test_without_quoting_no_label_is_in_the_bundle(kind: str) -> None:
    _, window = judged(kind)
    labels = {label for c in window.score.columns.categories.values() for label in c.labels if len(label) > 4}
    everything = b"\n".join(members(bundle_of(kind, False)).values())
    words = set(json.dumps(everything.decode("latin-1")).split('\\"'))
    known = window.score.columns.categories.keys() | window.score.columns.numbers.keys()
    assert not {label for label in labels - known if label in words}
    if kind == "logs":
        assert b"template 3 <*>" in b"\n".join(members(bundle_of(kind)).values())
        assert b"template 3 <*>" not in everything


@pytest.mark.parametrize("member", sorted(members(bundle_of("metrics"))))
def test_a_changed_byte_is_found_and_the_member_named(member: str) -> None:
    parts = members(bundle_of("metrics"))
    data = bytearray(parts[member])
    data[len(data) // 2] ^= 1
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w") as archive:
        for name, content in (parts | {member: bytes(data)}).items():
            archive.writestr(name, content)
    with pytest.raises(InputError, match="manifest" if member == "manifest.json" else member):
        read_bundle(output.getvalue())


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda tree: tree.update(bits=tree["bits"] + 1.0), "bits"),
        (lambda tree: tree.update(p_value=0.5), "p-value"),
        (lambda tree: tree.update(is_alarm=False), "alarm"),
        (lambda tree: tree["claims"][0].update(bits=99.0), "bits of "),
        (lambda tree: tree["claims"].pop(), "claims"),
    ],
)
def test_a_verdict_that_was_changed_with_its_chain_is_refuted_by_the_recomputed_one(
    change: Callable[[dict[str, Any]], None], found: str
) -> None:
    forged = read_bundle(repacked(bundle_of("logs"), change))
    assert forged.root != read_bundle(bundle_of("logs")).root
    wrong = [check.name for check in verify(forged, COMPRESSOR) if not check.is_right]
    assert any(name.startswith(found) for name in wrong)


def test_a_p_value_can_be_counted_without_detector_and_compressor() -> None:
    checks = verify(read_bundle(bundle_of("logs")), ZSTD)
    assert [check.name for check in checks] == ["algorithm", "compressor", "p-value by counting"]
    assert [check.is_right for check in checks] == [True, False, True]


def test_both_compressors_write_bundles_that_they_read() -> None:
    watch = Watch("metrics", 2, compressor=ZSTD).warm_up(20)
    watch.clock_unix_nano += int(WINDOW_S * 1e9)
    columns, duration_s = watch.stream.window("level", 40.0)
    score = watch.detector.score_one(columns, watch.clock_unix_nano, duration_s)
    window = Judged("id", StreamKey("metrics", "a"), "f", watch.settings, watch.clock_unix_nano, duration_s, score)
    data = make_bundle(window, watch.detector.state(), {}, ZSTD, quotes_labels=True).data
    assert all(check.is_right for check in verify(read_bundle(data), ZSTD))


def test_a_newer_bundle_is_refused_with_the_remedy() -> None:
    parts = members(bundle_of("metrics"))
    manifest = json.loads(parts.pop("manifest.json")) | {"format": BUNDLE_FORMAT + 1}
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w") as archive:
        for name, content in (parts | {"manifest.json": json.dumps(manifest).encode()}).items():
            archive.writestr(name, content)
    with pytest.raises(InputError, match="verify it with the version that wrote it"):
        read_bundle(output.getvalue())


@settings(max_examples=60)
@given(st.data())
def test_whatever_is_done_to_a_bundle_ends_in_a_clear_error_or_the_same_bundle(data: st.DataObject) -> None:
    original = bundle_of("metrics")
    changed = bytearray(original)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(changed) - 1))
        if data.draw(st.booleans()):
            changed[at] ^= data.draw(st.integers(1, 255))
        else:
            del changed[at : at + data.draw(st.integers(1, 2000))]
    try:
        found = read_bundle(bytes(changed))
    except InputError as error:
        assert "bundle" in str(error)
    else:
        assert found == read_bundle(original)


def test_a_forged_structure_ends_in_a_clear_error() -> None:
    forged = repacked(bundle_of("metrics"), lambda tree: tree["state"].pop("history"), "detector.json")
    with pytest.raises(InputError, match="does not hold what a verdict needs"):
        verify(read_bundle(forged), COMPRESSOR)


def test_bundles_of_one_minute_are_bounded() -> None:
    pace = EvidencePace()
    assert sum(pace.admits(10**18 + i) for i in range(500)) == 100
    assert pace.admits(10**18 + 60 * 10**9)


def test_equal_evidence_gives_equal_bytes() -> None:
    watch, window = judged("metrics")
    made = [make_bundle(window, watch.detector.state(), {}, COMPRESSOR, quotes_labels=True) for _ in range(2)]
    assert made[0] == made[1]
    assert read_bundle(made[0].data).root == made[0].root
