"""Runs the conformance tests and writes docs/conformance.md: `python -m tests.conformance.report`.

Ends with 1 if an item that applies failed or has no test. Where a Collector has been built
(`make interop`), the page also shows what it answers to the bytes of the known differences;
elsewhere that part of the page stays as it is.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import pytest

from tests.conformance.items import ITEMS, SECTIONS, Item, numbers_of

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(__file__).resolve().parent
PAGE = ROOT / "docs" / "conformance.md"
_TEST = re.compile(r"^(?:async )?def (test_\d\w*)", re.MULTILINE)
_BESIDE = "## Beside the Collector"

_INTRODUCTION = """\
<!-- Written by `make conformance` from tests/conformance/items.py: change the text there. -->

# Conformance

Every clause of the OTLP specification 1.11.0, of its exporter specification 1.60.0 and of the data models that concerns
this sidecar, with the number of its tests in `tests/conformance`. They run over real sockets, with every test run;
`make conformance` runs them alone and writes this page. ¹ marks where the OpenTelemetry Collector does otherwise.

"""


class Outcomes:
    """A pytest plugin that gathers which tests passed, by item."""

    def __init__(self) -> None:
        self.passed: set[int] = set()
        self.failed: dict[int, list[str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note the outcome of one phase of one test."""
        name = report.location[2].partition("[")[0]
        for number in numbers_of(name):
            if report.failed or report.skipped:
                self.failed.setdefault(number, []).append(report.location[2])
            elif report.when == "call":
                self.passed.add(number)


def tested_items() -> set[int]:
    """Return the items that have a test, as the files name them."""
    texts = (path.read_text(encoding="utf-8") for path in FOLDER.glob("test_*.py"))
    return {number for text in texts for name in _TEST.findall(text) for number in numbers_of(name)}


def verdict(item: Item, passed: Collection[int], failed: Mapping[int, Sequence[str]]) -> str:
    """Return what the table says of an item."""
    if not item.applies:
        return "not applicable"
    if item.number in failed:
        return "FAIL"
    if item.number not in passed:
        return "NO TEST"
    return "in part" if item.is_partial else "pass"


def table(passed: Collection[int], failed: Mapping[int, Sequence[str]]) -> str:
    """Return the page up to what it says of the Collector."""
    lines = [_INTRODUCTION]
    verdicts = {item.number: verdict(item, passed, failed) for item in ITEMS}
    held = sum(text == "pass" for text in verdicts.values())
    absent = sum(not item.applies for item in ITEMS)
    partial = sum(text == "in part" for text in verdicts.values())
    lines.append(f"**{held} of {len(ITEMS)} items hold, {partial} in part, {absent} do not apply.**\n")
    for title, first, last in SECTIONS:
        lines.append(f"\n## {title}\n\n| | level | item | | remark |\n| --- | --- | --- | --- | --- |\n")
        for item in ITEMS[first - 1 : last]:
            mark = " ¹" if item.collector_differs else ""
            lines.append(
                f"| {item.number} | {item.level} | {item.text}{mark} | {verdicts[item.number]} | {item.remark} |\n"
            )
    return "".join(lines)


def write_page(first_part: str, beside: str) -> None:
    """Write the page; an empty `beside` leaves what the page says of the Collector."""
    if not beside and PAGE.exists():
        _, heading, rest = PAGE.read_text(encoding="utf-8").partition(_BESIDE)
        beside = heading + rest
    PAGE.write_text(first_part + "\n" + beside, encoding="utf-8")


def main() -> int:
    """Run, print and write; return the exit code."""
    outcomes = Outcomes()
    code = pytest.main([str(FOLDER), "-q", "-p", "no:cacheprovider"], [outcomes])
    for item in ITEMS:
        print(f"{item.number:>3}  {item.level:<6}  {verdict(item, outcomes.passed, outcomes.failed):<15} {item.text}")
        for name in outcomes.failed.get(item.number, ()):
            print(f"{'':>13}{name}")
    from tests.conformance.beside_collector import compare  # noqa: PLC0415 - after pytest has rewritten its asserts

    beside = asyncio.run(compare())
    print(f"\n{beside or 'No Collector is built here, so its answers are not asked for again: run `make interop`.'}")
    write_page(table(outcomes.passed, outcomes.failed), beside and f"{_BESIDE}\n\n{beside}")
    print(f"\nWrote {PAGE.relative_to(ROOT)}")
    held = all(verdict(item, outcomes.passed, outcomes.failed) not in {"FAIL", "NO TEST"} for item in ITEMS)
    return int(code) if code or held else 1


if __name__ == "__main__":
    sys.exit(main())
