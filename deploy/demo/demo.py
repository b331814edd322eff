"""The demo: a sidecar, a shop that sends to it, a downstream, and three faults to be found."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for tests.doubles

from downstream import AnomalyEvent, Downstream
from processes import (
    DemoError,
    Samples,
    Shop,
    Sidecar,
    release_command,
    run_command,
    running_shop,
    running_sidecar,
)
from screen import Screen

_HELP = """\
Starts the real sidecar between a made-up shop, which reports logs, metrics and traces with the
OpenTelemetry SDK (one service over gRPC, one over HTTP), and a downstream that counts what it gets.
Once the sidecar has learned what is normal, about a minute, one fault after the other is put into
the logs, the metrics and the traces, and every anomaly event that arrives downstream is shown.

Takes a little over two minutes. Ports are free ones, data goes into a temporary directory."""

_EPILOG = """\
exit code: 0 when each fault was found and nothing else was called an anomaly, else 1.

The sidecar's settings, and how they differ from the defaults, stand in deploy/demo/demo.yaml.
"""

_WARM_UP_LIMIT_S = 120.0
_NORMAL_S = 15.0
"""Normal traffic after warm-up, before the first fault: there must be no alarm."""
_FAULT_S = 9.0
_PAUSE_S = 8.0
_FOUND_WITHIN_S = 20.0
_TRAILING_S = 3.0
"""How long after its end a fault may still show: batches in flight, open windows."""
_DRAIN_S = 15.0


@dataclass(slots=True)
class Fault:
    """Something that goes wrong in the shop.

    Attributes:
        signal: What the senders are told to break.
        stream: Where it must be found.
        touched: Further streams in which it truly shows.
        story: For people.
        began_unix_nano: When; 0 before.
        ended_unix_nano: When it was over; 0 before.
        found_after_s: Seconds from its begin to the event's arrival; None if it was not found.
    """

    signal: str
    stream: str
    touched: frozenset[str]
    story: str
    began_unix_nano: int = 0
    ended_unix_nano: int = 0
    found_after_s: float | None = None

    def explains(self, event: AnomalyEvent) -> bool:
        """Return whether the event's window lies in the time of the fault, in a stream it touches."""
        first, last = event.window_unix_nano
        ended = self.ended_unix_nano or time.time_ns()
        return (
            bool(self.began_unix_nano)
            and event.stream in {self.stream, *self.touched}
            and last >= self.began_unix_nano
            and first <= ended + int(_TRAILING_S * 1e9)
        )


def all_faults() -> list[Fault]:
    """Return the faults in the order in which they happen."""
    return [
        Fault(
            "logs",
            "logs/checkout",
            frozenset(),
            "The coupon service is down: 28 % of checkout's log records become a new error.",
        ),
        Fault(
            "metrics",
            "metrics/warehouse/queue.depth",
            frozenset(),
            "Packing is stuck: its queue, one of six, grows to six times its usual length.",
        ),
        Fault(
            "traces",
            "traces/checkout",
            # Requests that charge a card become slower as a whole.
            frozenset({"metrics/checkout/http.server.request.duration"}),
            "The payment provider is slow: “charge card” takes eight times as long, and 40 % time out.",
        ),
    ]


class Demo:
    """One run.

    Args:
        screen: Where it is shown.
        seed: Of all chance in the shop.
        data: Directory for the sidecar's data and the processes' logs.
    """

    def __init__(self, screen: Screen, seed: int, data: Path) -> None:
        self._screen = screen
        self._seed = seed
        self._data = data
        self._faults = all_faults()
        self._unexpected: list[AnomalyEvent] = []
        self._phase = "starting"

    async def run(self) -> list[str]:
        """Play the demo and return what went wrong, one sentence each.

        Raises:
            DemoError: It could not be played to its end.
        """
        screen = self._screen
        async with Downstream(self._on_event) as downstream:
            progress = asyncio.create_task(self._show_progress(downstream))
            try:
                async with running_sidecar(self._data, downstream.endpoint) as sidecar:
                    screen.say(f"sidecar: OTLP/gRPC {sidecar.grpc}, OTLP/HTTP {sidecar.http}, {sidecar.api}/metrics")
                    screen.say(f"downstream: {downstream.endpoint}; data: {self._data}")
                    async with running_shop(sidecar, self._seed, self._data / "senders.log") as shop:
                        await self._play(sidecar, shop)
                        await shop.close()
                    samples = await self._drained(sidecar)
                    failures = self._sum_up(samples, downstream.items.total())
                    failures += await self._release(sidecar, downstream, samples)
            finally:
                progress.cancel()
                await asyncio.gather(progress, return_exceptions=True)
        return failures

    async def _play(self, sidecar: Sidecar, shop: Shop) -> None:
        self._screen.headline(
            "Normal traffic", "The sidecar learns what each stream looks like; until it is calibrated it stays silent."
        )
        await self._warm_up(sidecar)
        self._screen.say(f"Every kind of stream is warm. {_NORMAL_S:g} s more without a fault: silence is expected.")
        self._phase = "normal"
        await asyncio.sleep(_NORMAL_S)
        for fault in self._faults:
            self._screen.headline(f"Fault in the {fault.signal}", fault.story)
            self._phase = f"fault in {fault.stream}"
            fault.began_unix_nano = time.time_ns()
            await shop.order(f"break {fault.signal}")
            await asyncio.sleep(_FAULT_S)
            await shop.order(f"mend {fault.signal}")
            fault.ended_unix_nano = time.time_ns()
            self._screen.say("The fault is over.")
            self._phase = "back to normal"
            await asyncio.sleep(_PAUSE_S)
            while fault.found_after_s is None and time.time_ns() < fault.began_unix_nano + _FOUND_WITHIN_S * 1e9:
                await asyncio.sleep(0.1)

    async def _warm_up(self, sidecar: Sidecar) -> None:
        deadline_s = time.monotonic() + _WARM_UP_LIMIT_S
        while time.monotonic() < deadline_s:
            samples = await sidecar.metrics()
            counts = {
                fault.signal: samples.total("driftlock_detection_windows_total", kind=fault.signal, outcome="clean")
                for fault in self._faults
            }
            warming_up = samples.total("driftlock_detection_windows_total", outcome="warming_up")
            self._phase = f"warming up: {warming_up} windows"
            if all(counts.values()):
                return
            await asyncio.sleep(1.0)
        missing = ", ".join(kind for kind, count in counts.items() if not count)
        raise DemoError(f"not warm after {_WARM_UP_LIMIT_S:g} s: {missing}")

    async def _drained(self, sidecar: Sidecar) -> Samples:
        """Return the metrics once everything has had its outcome."""
        self._phase = "draining"
        deadline_s = time.monotonic() + _DRAIN_S
        while True:
            samples = await sidecar.metrics()
            received, outcomes = _balance(samples)
            held = samples.total("driftlock_quarantine_items")
            is_settled = received == sum(outcomes.values()) and held == outcomes["diverted"] and not _queued(samples)
            if is_settled or time.monotonic() > deadline_s:
                return samples
            await asyncio.sleep(0.5)

    async def _release(self, sidecar: Sidecar, downstream: Downstream, before: Samples) -> list[str]:
        """Let the quarantine go, and return what went wrong: in the end the downstream must have everything."""
        received, _ = _balance(before)
        command = release_command(self._data)
        self._screen.headline("Withheld, not lost", "Somebody has looked at the quarantine, and lets it go downstream:")
        self._screen.say(f"$ driftlock-otlp {' '.join(command)}", "bold")
        self._screen.say(await run_command(command))
        self._phase = "releasing"
        deadline_s = time.monotonic() + _DRAIN_S
        while time.monotonic() < deadline_s:
            held = (await sidecar.metrics()).total("driftlock_quarantine_items")
            if not held and downstream.items.total() >= received:
                break
            await asyncio.sleep(0.5)
        arrived = downstream.items.total()
        self._screen.say(f"Of {received:,} items received by the sidecar, {arrived:,} have now arrived downstream.")
        return [] if arrived == received else [f"{received:,} items were received, but {arrived:,} have arrived"]

    async def _show_progress(self, downstream: Downstream) -> None:
        while True:
            self._screen.progress(downstream.items, self._phase)
            await asyncio.sleep(1.0)

    def _on_event(self, event: AnomalyEvent) -> None:
        if event.fact("state") != "open":
            self._screen.say(f"{event.stream}: {event.id[:8]} is {event.fact('state')}.", "green")
            return
        fault = next((fault for fault in self._faults if fault.explains(event)), None)
        self._screen.anomaly(event)
        if fault is None:
            self._unexpected.append(event)
            self._screen.say("No fault explains this: a false alarm.", "bold red")
            return
        after_s = (time.time_ns() - fault.began_unix_nano) / 1e9
        if event.stream != fault.stream:
            self._screen.say(f"The same fault, seen in another stream after {after_s:.1f} s.")
        elif fault.found_after_s is None:
            fault.found_after_s = after_s
            self._screen.say(f"Found {after_s:.1f} s after the fault began.", "bold green")

    def _sum_up(self, samples: Samples, arrived: int) -> list[str]:
        """Show the counters and return what went wrong."""
        received, outcomes = _balance(samples)
        forwarded, diverted, dropped = outcomes.values()
        queued = _queued(samples)
        held = samples.total("driftlock_quarantine_items")
        self._screen.table(
            "Where everything went: received = forwarded + diverted + dropped + queued",
            [
                ("received by the sidecar", f"{received:,}"),
                ("forwarded downstream, clean", f"{forwarded:,}"),
                ("diverted, of anomalous windows", f"{diverted:,}"),
                ("dropped", f"{dropped:,}"),
                ("still queued", f"{queued:,}"),
                ("counted by the downstream", f"{arrived:,}"),
                ("held in the quarantine", f"{held:,}"),
            ],
        )
        for fault in self._faults:
            found = "not found" if fault.found_after_s is None else f"found after {fault.found_after_s:.1f} s"
            self._screen.say(f"  {fault.signal:8} {fault.stream:30} {found}")
        failures = [
            f"the fault in {fault.stream} was not found within {_FOUND_WITHIN_S:g} s"
            for fault in self._faults
            if fault.found_after_s is None or fault.found_after_s > _FOUND_WITHIN_S
        ]
        failures += [f"false alarm in {event.stream}: {event.explanation}" for event in self._unexpected]
        if received != forwarded + diverted + dropped + queued:
            failures.append("the counters do not add up")
        if arrived != forwarded:
            failures.append(f"the downstream counted {arrived:,} items, the sidecar says it forwarded {forwarded:,}")
        if dropped or queued:
            failures.append(f"{dropped:,} items were dropped and {queued:,} are still queued")
        return failures


def _balance(samples: Samples) -> tuple[int, dict[str, int]]:
    """Return how many items were received, and how many were forwarded, diverted and dropped."""
    received = samples.total("driftlock_receiver_items_total", outcome="accepted")
    outcomes = ("forwarded", "diverted", "dropped")
    return received, {outcome: samples.total("driftlock_forward_items_total", outcome=outcome) for outcome in outcomes}


def _queued(samples: Samples) -> int:
    return samples.total("driftlock_queue_items", cursor="forward:otlp_grpc")


async def _run(arguments: argparse.Namespace, data: Path) -> int:
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with Screen() as screen:
        try:
            failures = await Demo(screen, arguments.seed, data).run()
        except DemoError as error:
            failures = [str(error)]
        for failure in failures:
            screen.say(f"FAILED: {failure}", "bold red")
        if not failures:
            screen.say("All three faults were found, and nothing else was called an anomaly.", "bold green")
        if failures or arguments.keep:
            screen.say(f"Data and logs are kept in {data}")
    return 1 if failures else 0


def main() -> int:
    """Run the demo and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="make demo", description=_HELP, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=1, help="of the shop's chance (default: 1)")
    parser.add_argument("--keep", action="store_true", help="keep the data directory, to look into it afterwards")
    arguments = parser.parse_args()
    data = Path(tempfile.mkdtemp(prefix="driftlock-demo-"))
    exit_code = 130
    try:
        exit_code = asyncio.run(_run(arguments, data))
    except asyncio.CancelledError:
        print("\nstopped", file=sys.stderr)
    finally:
        if exit_code != 1 and not arguments.keep:
            shutil.rmtree(data, ignore_errors=True)
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
