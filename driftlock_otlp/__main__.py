"""The command line; the only place that ends the process."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

# Before anything imports gRPC, which reads it then: it must not react to the fork that starts a detection
# worker. Its handlers stop and start threads that are in use, and every few starts that was a segfault.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

from driftlock_otlp.commands import registry
from driftlock_otlp.errors import ConfigError, DriftlockError
from driftlock_otlp.observability.version import version

_EPILOG = """examples:
  driftlock-otlp run                                   listen on 4317 and 4318, score, keep anomalies
  OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4318 driftlock-otlp run
  driftlock-otlp run --config sidecar.yaml --set windows.logs.size=100
  driftlock-otlp replay --value-column value cpu.csv   score a file instead of live data
  driftlock-otlp anomalies list                        what was found
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="driftlock-otlp",
        description="An OTLP sidecar that tells when telemetry stops looking like itself, and why.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"driftlock-otlp {version()}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in registry.COMMANDS:
        sub = subparsers.add_parser(
            command.name,
            help=command.summary,
            description=command.description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_arguments(sub)
        sub.set_defaults(run=command.run)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 wrong usage or configuration."""
    arguments = build_parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except ConfigError as error:
        print(f"driftlock-otlp: {error}", file=sys.stderr)
        return 2
    except DriftlockError as error:
        print(f"driftlock-otlp: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output (head, less) has seen enough.
        sys.stdout = open(Path("/dev/null"), "w")  # noqa: SIM115
        return 0


if __name__ == "__main__":
    sys.exit(main())
