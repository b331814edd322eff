"""Logging, in a process of its own since it is set up once per process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parents[3]
SETUP = """
import logging, os, sys
import structlog
from driftlock_otlp.config.operation import ServiceConfig
from driftlock_otlp.observability.logging import configure_logging
configure_logging(ServiceConfig(log_level={level!r}, log_format={format!r}))
log = structlog.get_logger("test")
"""


def lines(script: str, level: str = "info", log_format: str = "auto") -> list[str]:
    """Run a script behind the set-up and return the lines it wrote to standard error."""
    done = subprocess.run(
        [sys.executable, "-c", SETUP.format(level=level, format=log_format) + script],
        cwd=SOURCE,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == ""
    return done.stderr.splitlines()


def test_without_a_terminal_each_line_is_json() -> None:
    (line,) = lines("log.info('route_waiting', route='forward:a', count=3)")
    fields = json.loads(line)
    assert {key: fields[key] for key in ("event", "level", "route", "count")} == {
        "event": "route_waiting",
        "level": "info",
        "route": "forward:a",
        "count": 3,
    }
    assert fields["timestamp"].endswith("Z")


def test_console_lines_are_for_people() -> None:
    (line,) = lines("log.warning('route_waiting', count=3)", log_format="console")
    assert "route_waiting" in line
    assert "count=3" in line


def test_less_than_the_level_is_not_logged() -> None:
    written = lines("log.info('a'); log.warning('b'); log.error('c')", level="warning")
    assert [json.loads(line)["event"] for line in written] == ["b", "c"]


def test_an_exception_is_one_line_with_its_traceback() -> None:
    (line,) = lines("try:\n    1 / 0\nexcept ZeroDivisionError:\n    log.exception('failed')")
    assert json.loads(line)["exception"][0]["exc_type"] == "ZeroDivisionError"


def test_libraries_are_heard_from_warnings_on() -> None:
    assert lines("logging.getLogger('aiohttp').info('no'); logging.getLogger('aiohttp').warning('yes')") == [
        "WARNING aiohttp yes"
    ]


def test_a_reader_who_has_gone_does_not_stop_the_process() -> None:
    script = SETUP.format(level="info", format="json") + (
        "r, w = os.pipe()\nos.close(r)\nos.dup2(w, 2)\n"
        "for n in range(3): log.error('nobody reads this')\n"
        "print('alive')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=SOURCE, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "alive\n"
