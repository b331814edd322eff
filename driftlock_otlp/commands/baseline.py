"""`driftlock-otlp baseline`: what detectors have learned, taken to another sidecar."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from driftlock_otlp.commands.command import Command, add_config_arguments, load_config
from driftlock_otlp.commands.terminal import counted
from driftlock_otlp.detection.compressor import new_compressor
from driftlock_otlp.errors import ConfigError
from driftlock_otlp.model import StreamKey, StreamKind
from driftlock_otlp.service import LOG_DIRECTORY
from driftlock_otlp.storage.lock import lock_log
from driftlock_otlp.worker.baselines import Outcome, export_baselines, import_baselines

_DESCRIPTION = """\
Carry over what detectors have learned, so that a new sidecar is armed from its first window on.

The file holds baselines, calibrations and what people said of anomalies. Templates and attribute values
are in it: keep it as you keep telemetry. It fits only a sidecar with the same windows.* and detection.*
settings and the same compressor, since baselines of two settings never mix.

examples:
  driftlock-otlp baseline export --config staging.yaml --out staging.baseline
  driftlock-otlp baseline import --config production.yaml staging.baseline"""

_EXPORT = """\
Write the baselines of a data directory to a file; beside a running sidecar they are those of its last
checkpoint, ten seconds old at most.

examples:
  driftlock-otlp baseline export --out all.baseline
  driftlock-otlp baseline export --kind logs --service checkout --out checkout.baseline"""

_IMPORT = """\
Put the baselines of a file into a data directory. The sidecar must be stopped. Streams that the directory
knows already keep what they have, unless --replace is given; those with a running anomaly keep it in any case.

examples:
  driftlock-otlp baseline import all.baseline
  driftlock-otlp baseline import --set queue.path=/var/lib/driftlock --kind traces all.baseline"""

_MOST_NAMED = 5


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    raw = argparse.RawDescriptionHelpFormatter
    export = actions.add_parser("export", help="write baselines to a file", description=_EXPORT, formatter_class=raw)
    export.add_argument("--out", type=Path, metavar="FILE", required=True, help="where to")
    taking = actions.add_parser(
        "import", help="begin with baselines of a file", description=_IMPORT, formatter_class=raw
    )
    taking.add_argument("file", type=Path, metavar="FILE", help="what `baseline export` wrote")
    taking.add_argument("--replace", action="store_true", help="also for streams that the directory knows")
    for action in (export, taking):
        kinds = [kind.value for kind in StreamKind]
        action.add_argument("--kind", choices=kinds, help="streams of this kind alone")
        action.add_argument("--service", metavar="NAME", help="streams of this service alone")
        add_config_arguments(action)


def _run(arguments: argparse.Namespace) -> int:
    return _export(arguments) if arguments.action == "export" else _import(arguments)


def _export(arguments: argparse.Namespace) -> int:
    config = load_config(arguments)
    data, outcome = export_baselines(config, new_compressor(config.detection.compressor), _selection(arguments))
    _tell_passed_over(outcome)
    if not outcome.taken:
        print(f"driftlock-otlp: no baseline to export in {config.queue.path}", file=sys.stderr)
        return 1
    try:
        # Labels of telemetry are in it.
        with os.fdopen(os.open(arguments.out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(data)
    except OSError as error:
        raise ConfigError(f"--out: cannot write {arguments.out}: {error.strerror}") from None
    print(f"{counted(len(outcome.taken), 'baseline')} in {arguments.out}.")
    return 0


def _import(arguments: argparse.Namespace) -> int:
    config = load_config(arguments)
    try:
        data = arguments.file.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {arguments.file}: {error.strerror}") from None
    directory = config.queue.path / LOG_DIRECTORY
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = lock_log(directory)
    except OSError as error:
        raise ConfigError(f"queue.path: cannot use {config.queue.path}: {error.strerror}") from None
    try:
        compressor = new_compressor(config.detection.compressor)
        outcome = import_baselines(data, config, compressor, _selection(arguments), replaces=arguments.replace)
    finally:
        os.close(lock)
    if outcome.known:
        print(f"Kept as they are: {_named(outcome.known)}.", file=sys.stderr)
    print(f"{counted(len(outcome.taken), 'baseline')} taken over into {config.queue.path}.")
    return 0


def _selection(arguments: argparse.Namespace) -> Callable[[StreamKey], bool]:
    kind, service = arguments.kind, arguments.service
    return lambda key: (kind is None or key.kind == kind) and (service is None or key.service == service)


def _tell_passed_over(outcome: Outcome) -> None:
    if outcome.anew:
        print(
            f"Passed over, since they were learned with other settings than the configuration has:"
            f" {_named(outcome.anew)}.",
            file=sys.stderr,
        )


def _named(keys: list[StreamKey]) -> str:
    more = f" and {len(keys) - _MOST_NAMED} more" if len(keys) > _MOST_NAMED else ""
    return ", ".join(str(key) for key in keys[:_MOST_NAMED]) + more


COMMAND = Command(
    name="baseline",
    summary="carry over what detectors have learned",
    description=_DESCRIPTION,
    add_arguments=_add_arguments,
    run=_run,
)
