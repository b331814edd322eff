"""The fuzzer's command line: `python -m tests.fuzz.run --seconds 600 [--target json_mapping]`.

Every target gets its share of the time in a process of its own. It starts from the checked-in
corpus and from what earlier runs have left in `.fuzz/`; what it finds goes there too. An input
that breaks a promise is named, and the exit status says so.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.descriptor import Descriptor

from driftlock_otlp.model import Signal
from driftlock_otlp.otlp.decode import request_class
from tests.fuzz.targets import CORPUS, TARGETS

ROOT = Path(__file__).parents[2]
FOUND = ROOT / ".fuzz"

_MAX_INPUT_BYTES = 1 << 14
_SLOWEST_S = 20
_MAX_RSS_MIB = 2048
_STATISTIC = re.compile(r"^stat::(\w+):\s+(\d+)", re.MULTILINE)
_WROTE = re.compile(r"Test unit written to (\S+)")
_ROW = "{:<16} {:>12} {:>9} {:>8} {:>8}"

_HTTP_WORDS = (
    "POST ", "GET ", "OPTIONS ", "CONNECT ", "/v1/logs", "/v1/metrics", "/v1/traces", " HTTP/1.1\r\n",
    " HTTP/1.0\r\n", "\r\n\r\n", "Host: a\r\n", "Content-Length: ", "Content-Type: application/json\r\n",
    "Content-Type: application/x-protobuf\r\n", "Content-Encoding: gzip\r\n", "Content-Encoding: zstd\r\n",
    "Content-Encoding: snappy\r\n", "Content-Encoding: deflate\r\n", "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: ", "Connection: close\r\n", "Connection: upgrade\r\nUpgrade: h2c\r\n",
    "Expect: 100-continue\r\n", "Authorization: Bearer x\r\n", "0\r\n\r\n", "2\r\n{}\r\n", ";ext=1\r\n",
    "ffffffffffffffff\r\n", "\\xff|", "http://a/v1/logs", "%2f",
)  # fmt: skip
_JSON_WORDS = (
    '"', "{", "}", "[", "]", ":", ",", "null", "true", "false", "-1", "0", "1e5", "1.5", '"NaN"', '"Infinity"',
    '"-Infinity"', "18446744073709551615", '"9223372036854775807"', '"-9223372036854775808"', "1e400",
    '"0af7651916cd43dd8448eb211c80319c"', '"00f067aa0ba902b7"', '"AAEC/w=="', "\\\\ud83d\\\\ude00", "\\\\ud800",
    "\\\\u0000", '"resource_logs"',
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What became of one target."""

    executions: int
    per_second: int
    corpus: int
    crash: str


def main(arguments: list[str] | None = None) -> int:
    """Fuzz every target, or one; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.run", description="Fuzz what reads bytes from outside.")
    parser.add_argument("--seconds", type=int, default=30, help="time for all targets together")
    parser.add_argument("--target", choices=sorted(TARGETS), help="only this one")
    chosen = parser.parse_args(arguments)
    if importlib.util.find_spec("atheris") is None:
        print("The fuzzer, atheris, is not installed: it has wheels for CPython 3.11 to 3.13 on Linux x86-64 only.")
        print("Its corpus is run by `make test ARGS=tests/fuzz`.")
        return 2
    names = [chosen.target] if chosen.target else sorted(TARGETS)
    print(_ROW.format("target", "executions", "exec/s", "corpus", "crashes"), flush=True)
    crashes = []
    for name in names:
        outcome = _fuzz(name, max(chosen.seconds // len(names), 1))
        row = (name, outcome.executions, outcome.per_second, outcome.corpus, int(bool(outcome.crash)))
        print(_ROW.format(*row), flush=True)
        if outcome.crash:
            crashes.append(f"{name}: {outcome.crash}")
    if crashes:
        print("\n" + "\n".join(crashes), file=sys.stderr)
    return 1 if crashes else 0


def _fuzz(name: str, seconds: int) -> Outcome:
    """Run one target in its own process: atheris.Fuzz does not return."""
    corpus = FOUND / name / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable, "-m", "tests.fuzz.one", name, str(corpus), str(CORPUS / name),
        f"-max_total_time={seconds}", f"-max_len={_MAX_INPUT_BYTES}", f"-timeout={_SLOWEST_S}",
        f"-rss_limit_mb={_MAX_RSS_MIB}", f"-artifact_prefix={FOUND / name}/", "-print_final_stats=1",
    ]  # fmt: skip
    words = list(_words(TARGETS[name].words))
    if words:
        dictionary = FOUND / name / "words.dict"
        dictionary.write_text("".join(f'"{_escaped(word)}"\n' for word in words))
        command.append(f"-dict={dictionary}")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace", check=False)
    (FOUND / name / "output.txt").write_text(done.stdout + done.stderr)
    statistics = {key: int(value) for key, value in _STATISTIC.findall(done.stderr)}
    crash = ""
    if done.returncode:
        wrote = _WROTE.search(done.stderr)
        place = Path(wrote[1]).relative_to(ROOT) if wrote else f"exit status {done.returncode}"
        crash = f"{place} (see {(FOUND / name / 'output.txt').relative_to(ROOT)})"
    return Outcome(
        statistics.get("number_of_executed_units", 0),
        statistics.get("average_exec_per_sec", 0),
        len(list(corpus.iterdir())) + len(list((CORPUS / name).iterdir())),
        crash,
    )


def _words(kind: str) -> Iterator[str]:
    if kind == "http":
        yield from _HTTP_WORDS
    if kind == "json":
        yield from _JSON_WORDS
        names: dict[str, None] = {}
        for signal in Signal:
            _collect(request_class(signal).DESCRIPTOR, names, set())
        yield from (f'"{name}":' for name in names)


def _collect(descriptor: Descriptor, names: dict[str, None], seen: set[str]) -> None:
    if descriptor.full_name in seen:
        return
    seen.add(descriptor.full_name)
    for field in descriptor.fields:
        names.setdefault(field.json_name)
        if field.message_type is not None:
            _collect(field.message_type, names, seen)


def _escaped(word: str) -> str:
    r"""Return a word as libFuzzer's dictionaries have it; `\x..` in it stays.

    >>> print(_escaped('"a"\r'))
    \"a\"\x0D
    """
    return word.replace('"', '\\"').replace("\r", "\\x0D").replace("\n", "\\x0A")


if __name__ == "__main__":
    sys.exit(main())
