"""Disks that are full, read-only, slow or damaged, beneath a sidecar that runs.

Senders are told to come back, `/readyz` says `storage`, and when the disk is good again so is the
sidecar, by itself. What was acknowledged arrives, or is said to be lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import shutil
import sqlite3
import subprocess
import time
import urllib.error
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from driftlock_otlp.model import Signal
from driftlock_otlp.otlp.decode import decode
from driftlock_otlp.storage import segments
from driftlock_otlp.storage.log_reader import LogReader
from tests.doubles.otlp_sink import OtlpSink
from tests.e2e.conftest import NewSidecar
from tests.e2e.sidecar import Sidecar, delivered
from tests.e2e.traffic import Traffic, times

ITEMS = 20
SMALL_DISK_BYTES = 16 << 20


class Shop:
    """Sends logs and keeps the ids of those that were acknowledged."""

    def __init__(self, sidecar: Sidecar) -> None:
        self.acknowledged: list[int] = []
        self._sidecar = sidecar
        self._traffic = Traffic()

    async def send(self, requests: int, items: int = ITEMS) -> None:
        """Send, all at once, and return when all are acknowledged."""
        await asyncio.gather(*(self._send(self._traffic.logs(items)) for _ in range(requests)))

    async def _send(self, payload: bytes) -> None:
        await self._sidecar.send(Signal.LOGS, payload)
        self.acknowledged += times(Signal.LOGS, decode(Signal.LOGS, payload))

    async def assert_refused(self) -> None:
        """Check that both protocols tell a sender to come back, and when."""
        payload = self._traffic.logs(500)
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await self._sidecar.send(Signal.LOGS, payload)
        assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "grpc-status-details-bin" in {key for key, _ in refusal.value.trailing_metadata() or ()}
        with pytest.raises(urllib.error.HTTPError) as failure:
            await self._sidecar.send(Signal.LOGS, payload, "http")
        with failure.value as error:
            assert error.code == 503
            assert 1 <= int(error.headers["Retry-After"]) <= 60

    async def assert_all_arrived(self, sink: OtlpSink) -> None:
        """Check that everything acknowledged is downstream, once, and that the counts balance."""
        await self._sidecar.settle()
        assert sorted(delivered(sink, Signal.LOGS)) == sorted(self.acknowledged)
        await asyncio.to_thread(self._sidecar.assert_balanced)


def is_unready(sidecar: Sidecar) -> bool:
    """Whether `/readyz` says that storage is the matter."""
    try:
        sidecar.get("/readyz")
    except urllib.error.HTTPError as error:
        with error:
            return error.code == 503 and b"storage" in error.read()
    return False


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mounts file systems, where the kernel lets us."""
    mounted: list[Path] = []

    def mount_one(*arguments: str) -> Path:
        place = tmp_path / f"mounted-{len(mounted)}"
        place.mkdir()
        if os.geteuid() != 0 or shutil.which("mount") is None:
            pytest.skip("only root may mount a file system")
        done = subprocess.run(["mount", *arguments, str(place)], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"the kernel does not let us mount a file system: {done.stderr.strip()}")
        mounted.append(place)
        return place

    yield mount_one
    for place in reversed(mounted):
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture
def bad_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that says how the disk behaves beneath sidecars started from now on."""
    control = tmp_path / "bad-disk"
    control.write_text("")
    monkeypatch.setenv("BAD_DISK", str(control))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).with_name("bad_disk")))
    return control


async def test_full_disk_refuses_and_recovers_by_itself(
    new_sidecar: NewSidecar, sink: OtlpSink, mount: Callable[..., Path]
) -> None:
    small = mount("-t", "tmpfs", "-o", f"size={SMALL_DISK_BYTES}", "tmpfs")
    sidecar = new_sidecar(sink, {"queue": {"path": str(small / "data")}})
    sidecar.data = small / "data"
    await sidecar.start()
    shop = Shop(sidecar)
    await shop.send(20)
    await sidecar.settle()
    filler = small / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    await shop.assert_refused()
    await sidecar.wait_until(lambda: is_unready(sidecar), "still ready on a full disk")
    # It stays so for as long as the disk is full: what is left of a block lets no small write through.
    for _ in range(20):
        assert await asyncio.to_thread(is_unready, sidecar)
        await asyncio.sleep(0.1)
    filler.unlink()
    await sidecar.wait_ready()
    await shop.send(20)
    await shop.assert_all_arrived(sink)
    assert await asyncio.to_thread(sidecar.total, "driftlock_worker_restarts_total") == 0


async def test_state_alone_that_cannot_be_written_is_borne_for_a_while_then_refuses_and_recovers(
    new_sidecar: NewSidecar, sink: OtlpSink, mount: Callable[..., Path], tmp_path: Path
) -> None:
    small = mount("-t", "tmpfs", "-o", f"size={SMALL_DISK_BYTES}", "tmpfs")
    sidecar = new_sidecar(sink, {"queue": {"path": str(small)}, "forward": {"policy": "pass"}})
    sidecar.data = small
    (tmp_path / "log").mkdir(mode=0o700)
    (small / "log").symlink_to(tmp_path / "log")  # The log is on another disk.
    await sidecar.start()
    shop = Shop(sidecar)
    await shop.send(20)
    await sidecar.settle()
    with sidecar.state() as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    filler = small / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    await shop.send(5)  # Taken, for the log is well; the state is found to be not.
    await sidecar.wait_until(lambda: is_unready(sidecar), "still ready without its state")
    await shop.send(5)

    async def is_refused() -> bool:
        try:
            await shop.send(1)
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            return True
        return False

    async with asyncio.timeout(30.0):
        while not await is_refused():
            await asyncio.sleep(0.2)
    await shop.assert_refused()
    filler.unlink()
    await sidecar.wait_ready()
    await shop.send(20)
    await shop.assert_all_arrived(sink)


@pytest.mark.parametrize("limit", ["log", "everything"])
async def test_files_that_may_not_grow_refuse_and_recover(new_sidecar: NewSidecar, sink: OtlpSink, limit: str) -> None:
    sidecar = new_sidecar(sink)
    await sidecar.start()
    shop = Shop(sidecar)
    await shop.send(120, 100)
    await sidecar.settle()
    (segment,) = (sidecar.data / "log").glob("*.log")
    size_bytes = segment.stat().st_size if limit == "log" else 0
    assert size_bytes == 0 or size_bytes > 500_000
    old = resource.prlimit(sidecar.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(sidecar.pid, resource.RLIMIT_FSIZE, (size_bytes, old[1]))
    await shop.assert_refused()
    await sidecar.wait_until(lambda: is_unready(sidecar), "still ready")
    resource.prlimit(sidecar.pid, resource.RLIMIT_FSIZE, old)
    await sidecar.wait_ready()
    await shop.send(20)
    await shop.assert_all_arrived(sink)


async def test_disk_that_turns_read_only_refuses_and_recovers(
    new_sidecar: NewSidecar, sink: OtlpSink, bad_disk: Path
) -> None:
    sidecar = new_sidecar(sink)
    await sidecar.start()
    shop = Shop(sidecar)
    await shop.send(5)
    bad_disk.write_text("readonly")
    await shop.assert_refused()
    await sidecar.wait_until(lambda: is_unready(sidecar), "still ready on a read-only disk")
    bad_disk.write_text("")
    await sidecar.wait_ready()
    await shop.send(5)
    await shop.assert_all_arrived(sink)
    # Said once when it began and once when it was over, however many were refused.
    assert len(sidecar.logged("log_append_failed")) == len(sidecar.logged("log_append_works_again")) == 1


async def test_read_only_directory_ends_the_start_with_a_remedy(
    new_sidecar: NewSidecar, mount: Callable[..., Path]
) -> None:
    place = mount("-t", "tmpfs", "-o", "ro,size=1m", "tmpfs")
    sidecar = new_sidecar(None, {"queue": {"path": str(place / "data")}})
    assert await asyncio.to_thread(sidecar.spawn().wait, 40) == 2
    assert "queue.path" in sidecar.output
    assert "choose another" in sidecar.output
    assert "Traceback" not in sidecar.output


async def test_slow_disk_delays_acknowledgements_and_is_shared(
    new_sidecar: NewSidecar, sink: OtlpSink, bad_disk: Path
) -> None:
    sidecar = new_sidecar(sink)
    await sidecar.start()
    shop = Shop(sidecar)
    await shop.send(1)
    bad_disk.write_text("slow 0.4")
    started_s = time.monotonic()
    await shop.send(100)
    elapsed_s = time.monotonic() - started_s
    # Nobody is answered before the disk has it, and a hundred share a few syncs.
    assert 0.4 <= elapsed_s < 10.0
    assert await asyncio.to_thread(sidecar.status, "/readyz") == 200
    bad_disk.write_text("")
    await shop.assert_all_arrived(sink)


async def test_torn_last_write_costs_nothing_that_was_acknowledged(new_sidecar: NewSidecar, sink: OtlpSink) -> None:
    sidecar = new_sidecar(sink)
    await sidecar.start()
    shop = Shop(sidecar)
    for kept_share in (0.0, 0.02, 0.5, 0.999):
        await shop.send(10)
        await sidecar.kill()
        reader = LogReader(sidecar.data / "log")
        *entries, last = reader.read(0, 1 << 30)
        reader.close()
        new = next(entry.entry for entry in entries if entry.entry.signal is not None)
        end, item_count = last.next_position, last.items_before + last.entry.item_count
        torn = b"".join(segments.encode_record(new, end, item_count))
        with next((sidecar.data / "log").glob("*.log")).open("ab") as file:
            file.write(torn[: int(len(torn) * kept_share)] if kept_share else bytes(3000))
        await sidecar.start()
    await shop.send(10)
    await sidecar.settle()
    assert set(delivered(sink, Signal.LOGS)) == set(shop.acknowledged)
    repairs = sidecar.logged("log_repaired")
    assert [(repair["torn_bytes"] > 0, repair["mended_records"]) for repair in repairs] == [(True, 0)] * 4


@pytest.mark.parametrize("is_running", [True, False], ids=["running", "stopped"])
async def test_flipped_bits_in_the_log_cost_their_own_records_and_are_counted(
    new_sidecar: NewSidecar, is_running: bool
) -> None:
    sidecar = new_sidecar(None, {"queue": {"segment_bytes": "64KiB"}})
    async with OtlpSink() as sink:
        # The destination is known, but away, so that nothing has passed when the bits flip.
        sidecar.settings["exporters"] = {"otlp_grpc": _patient_exporter(sink)}
        sidecar.settings["forward"] = {"exporters": ["otlp_grpc"], "policy": "pass"}
        sink.fail_next(times=10_000)
        await sidecar.start()
        shop = Shop(sidecar)
        await shop.send(120)
        if not is_running:
            assert await sidecar.stop() == 0
        reader = LogReader(sidecar.data / "log")
        entries, position = [], 0
        while run := reader.read(position, 1 << 30):
            entries += run
            position = run[-1].next_position
        reader.close()
        requests = [entry for entry in entries if entry.entry.signal is not None]
        bases = segments.list_bases(sidecar.data / "log")
        assert len(bases) > 2
        assert requests[-2].position > bases[-1]
        # Behind what a route has in hand already.
        body, header, active = requests[70], requests[80], requests[-2]
        for victim, offset in ((body, 100), (header, 13), (active, 500)):
            _flip(sidecar.data / "log", victim.position, offset)
        if not is_running:
            await sidecar.start()
        sink.heal()
        # Not by signal, since of one request nobody knows any more which it was.
        await sidecar.wait_until(
            lambda: sidecar.total("driftlock_forward_items_total") == len(shop.acknowledged), "items have no outcome"
        )
        lost = {
            time
            for victim in (body, header, active)
            for time in times(Signal.LOGS, decode(Signal.LOGS, victim.entry.payload))
        }
        assert Counter(delivered(sink, Signal.LOGS)) == Counter(set(shop.acknowledged) - lost)

        def dropped(**labels: str) -> float:
            return sidecar.total("driftlock_forward_items_total", outcome="dropped", reason="damaged", **labels)

        assert await asyncio.to_thread(dropped) == len(lost) == 3 * ITEMS
        assert await asyncio.to_thread(lambda: dropped(signal="logs")) == 2 * ITEMS
        assert await asyncio.to_thread(lambda: dropped(signal="unknown")) == ITEMS
        assert await asyncio.to_thread(sidecar.total, "driftlock_queue_items") == 0
        assert await asyncio.to_thread(sidecar.total, "driftlock_log_damaged_entries_total") == 3
        expected_bytes = sum(victim.next_position - victim.position for victim in (body, header, active))
        assert await asyncio.to_thread(sidecar.total, "driftlock_log_damaged_bytes_total") == expected_bytes
        reports = sorted(sidecar.logged("log_entry_damaged"), key=lambda report: int(report["position"]))
        assert [report["position"] for report in reports] == [v.position for v in (body, header, active)]
        assert [Path(report["file"]).stem for report in reports] == [
            f"{max(base for base in bases if base <= victim.position):020d}" for victim in (body, header, active)
        ]
        await shop.send(5)
        await sink.wait_for_items(Signal.LOGS, len(shop.acknowledged) - len(lost))
        assert set(delivered(sink, Signal.LOGS)) == set(shop.acknowledged) - lost


@pytest.mark.parametrize("is_running", [True, False], ids=["running", "stopped"])
async def test_damaged_state_database_is_made_anew_and_data_flows(
    new_sidecar: NewSidecar, sink: OtlpSink, is_running: bool
) -> None:
    sidecar = new_sidecar(sink)
    await sidecar.start()
    shop = Shop(sidecar)
    await shop.send(20)
    await sidecar.settle()
    with sidecar.state() as connection:
        pages = [
            int(page)
            for (page,) in connection.execute(
                "SELECT rootpage FROM sqlite_schema WHERE name IN ('verdicts', 'windows')"
            )
        ]
        connection.rollback()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        known = dict(connection.execute("SELECT name, position FROM cursors").fetchall())
    if not is_running:
        assert await sidecar.stop() == 0
    with (sidecar.data / "state.db").open("r+b") as file:
        for page in pages:
            file.seek((page - 1) * 4096)
            file.write(b"\xa5" * 4096)
    if not is_running:
        await sidecar.start()
    # Windows are written about once a second; that is when the damage is met.
    await shop.send(20)
    await sidecar.wait_until(lambda: sidecar.total("driftlock_state_repairs_total") == 1, "nothing was repaired")
    await sidecar.wait_ready()
    await shop.send(20)
    await sidecar.settle()
    assert sorted(delivered(sink, Signal.LOGS)) == sorted(shop.acknowledged)
    (report,) = sidecar.logged("state_database_rebuilt")
    assert report["file"] == str(sidecar.data / "state.db")
    assert report["kept_rows"]["cursors"] == len(known)
    assert (sidecar.data / report["damaged_file"]).exists()
    assert await asyncio.to_thread(sidecar.total, "driftlock_worker_restarts_total") == 0


async def test_data_of_a_newer_version_is_refused_at_the_start(new_sidecar: NewSidecar, sink: OtlpSink) -> None:
    sidecar = new_sidecar(sink)
    await sidecar.start()
    assert await sidecar.stop() == 0
    for name in (f"log/{0:020d}.log", "state.db", "detector-0-of-1.db"):
        path = sidecar.data / name
        before = path.read_bytes()
        if path.suffix == ".log":
            header = bytearray(before[: segments.SEGMENT_HEADER_BYTES])
            header[8] = 99
            header[12:16] = segments.crc32(header[16:], segments.crc32(header[:12])).to_bytes(4, "little")
            with path.open("r+b") as file:
                file.write(header)
        else:
            with contextlib.closing(sqlite3.connect(path)) as connection:
                connection.execute("PRAGMA user_version = 99")
        assert await asyncio.to_thread(sidecar.spawn().wait, 40) == 2
        last_line = sidecar.output.splitlines()[-1]
        assert str(path) in last_line
        assert " 99;" in last_line
        assert "run the version that wrote it" in last_line
        path.write_bytes(before)


def _patient_exporter(sink: OtlpSink) -> dict[str, object]:
    retry = {"initial_interval": "50ms", "max_interval": "100ms", "max_elapsed_time": "0s"}
    return {"endpoint": sink.grpc_endpoint, "retry_on_failure": retry}


def _flip(directory: Path, position: int, offset: int) -> None:
    """Flip one bit of the record at a position."""
    base = max(base for base in segments.list_bases(directory) if base <= position)
    with segments.segment_path(directory, base).open("r+b", buffering=0) as file:
        file.seek(position - base + segments.SEGMENT_HEADER_BYTES + offset)
        (byte,) = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 0x10]))
