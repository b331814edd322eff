"""`driftlock-otlp evidence`: the bundle of an anomaly, and whether a bundle holds."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console

from driftlock_otlp.commands.command import Command, add_config_arguments
from driftlock_otlp.commands.database import state_database
from driftlock_otlp.commands.terminal import cell, counted, plain_table, standard_output, time_text
from driftlock_otlp.errors import ConfigError, InputError
from driftlock_otlp.storage import anomalies, evidence
from driftlock_otlp.windowing.bundle import Bundle, read_bundle
from driftlock_otlp.windowing.evidence import Check, compressor_of, verify

_DESCRIPTION = """\
Take out and check the evidence of anomalies.

A bundle is one file that holds everything a verdict rests on: settings, the odd window and its baseline
as typed columns, the calibration, code lengths and the verdict, under a chain of hashes. Whoever has it
can recompute the verdict without this sidecar and its data.

examples:
  driftlock-otlp evidence export 3f2a91c0 --out incident.zip
  driftlock-otlp evidence export 3f2a91c0 --pdf --out incident.pdf
  driftlock-otlp evidence verify incident.zip"""

_EXPORT = """\
Write the evidence bundle of an anomaly to a file, or a PDF about it.

examples:
  driftlock-otlp evidence export 3f2a91c0
  driftlock-otlp evidence export 3f2a91c0 --pdf --out incident.pdf"""

_VERIFY = """\
Recompute verdicts from bundles alone, and say whether they hold.

The exit code is 0 if every value agrees, 1 if one does not or a byte was changed.

example:
  driftlock-otlp evidence verify incident.zip"""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    raw = argparse.RawDescriptionHelpFormatter
    export = actions.add_parser(
        "export", help="write the evidence of an anomaly to a file", description=_EXPORT, formatter_class=raw
    )
    export.add_argument("id", metavar="ID", help="the anomaly's id, or the first digits of it")
    export.add_argument("--out", type=Path, metavar="FILE", help="where to (default: evidence-ID.zip, or .pdf)")
    export.add_argument("--pdf", action="store_true", help="a document for people in place of the bundle")
    add_config_arguments(export)
    verifying = actions.add_parser(
        "verify", help="recompute verdicts from bundles", description=_VERIFY, formatter_class=raw
    )
    verifying.add_argument("files", type=Path, nargs="+", metavar="FILE", help="a bundle")
    verifying.add_argument("--all", action="store_true", help="show every value, not only those that differ")


def _run(arguments: argparse.Namespace) -> int:
    return _export(arguments) if arguments.action == "export" else _verify(arguments)


def _export(arguments: argparse.Namespace) -> int:
    with state_database(arguments) as connection:
        try:
            anomaly = anomalies.get(connection, arguments.id)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        data = None if anomaly is None else evidence.get(connection, anomaly.id)
    if anomaly is None:
        print(f"driftlock-otlp: no anomaly {arguments.id!r}; `anomalies list` shows their ids", file=sys.stderr)
        return 1
    if data is None:
        print(
            f"driftlock-otlp: no evidence is kept of {anomaly.id}: anomalies.evidence_max_bytes was used up, or 0",
            file=sys.stderr,
        )
        return 1
    if arguments.pdf:
        # Its library takes a while to load, and nothing else needs it.
        from driftlock_otlp.api.evidence_pdf import evidence_pdf  # noqa: PLC0415

        bundle = read_bundle(data)
        data = evidence_pdf(bundle, verify(bundle, compressor_of(bundle)))
    path = arguments.out or Path(f"evidence-{anomaly.id[:8]}.{'pdf' if arguments.pdf else 'zip'}")
    try:
        path.write_bytes(data)
    except OSError as error:
        raise ConfigError(f"--out: cannot write {path}: {error.strerror}") from None
    print(path)
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    console, is_right = standard_output(), True
    for path in arguments.files:
        try:
            bundle = read_bundle(path.read_bytes())
            checks = verify(bundle, compressor_of(bundle))
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}") from None
        except InputError as error:
            console.print(cell(f"{path}: {error}", style="red"))
            is_right = False
            continue
        is_right &= _print_outcome(console, path, bundle, checks, shows_all=arguments.all)
    return 0 if is_right else 1


def _print_outcome(console: Console, path: Path, bundle: Bundle, checks: list[Check], *, shows_all: bool) -> bool:
    settings, window = bundle.json("settings.json"), bundle.json("window.json")
    stream = settings["stream"]
    wrong = [check for check in checks if not check.is_right]
    names = (stream["tenant"], stream["kind"], stream["service"], stream["name"])
    subject = "/".join(part for part in names if part)
    console.print(
        cell(f"{path}: {'the verdict holds' if not wrong else 'NOT CONFIRMED'}", "bold" if not wrong else "bold red")
    )
    console.print(
        cell(f"  anomaly {settings['anomaly_id']} of {subject}, window closed {time_text(window['closed_unix_nano'])}")
    )
    console.print(f"  root of the hash chain {bundle.root}")
    console.print(f"  {counted(len(checks), 'value')} recomputed, {len(wrong)} different")
    unsuited = {check.name for check in wrong} & {"algorithm", "compressor"}
    if unsuited:
        console.print(f"  the {' and '.join(sorted(unsuited))} differ: verify it with the version that wrote it")
    if shows_all or wrong:
        table = plain_table("VALUE", "STORED", "RECOMPUTED", "")
        for check in checks if shows_all else wrong:
            table.add_row(cell(check.name), cell(check.stored), cell(check.found), "" if check.is_right else "differs")
        console.print(table)
    return not wrong


COMMAND = Command("evidence", "take out and check the evidence of anomalies", _DESCRIPTION, _add_arguments, _run)
