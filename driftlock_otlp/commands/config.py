"""`validate` and `print-config`: is the configuration right, and what is in force?"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from driftlock_otlp.commands.command import Command, add_config_arguments, load_config
from driftlock_otlp.config.file import dump_yaml
from driftlock_otlp.errors import ConfigError

_VALIDATE = """\
Check a configuration file and say everything that is wrong with it.

Exit code, as the Collector's validate: 0 valid, 1 not. (2: the command line itself is wrong.)

example:
  driftlock-otlp validate sidecar.yaml"""

_PRINT_CONFIG = """\
Print every setting in force, defaults included, as YAML; secrets are shown as ***.

examples:
  driftlock-otlp print-config
  driftlock-otlp print-config sidecar.yaml --set windows.logs.size=100"""


def _add_validate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, metavar="FILE", help="configuration in YAML")
    add_config_arguments(parser, with_file=False)


def _add_print_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "config", type=Path, metavar="FILE", nargs="?", help="configuration in YAML; without it, the defaults"
    )
    add_config_arguments(parser, with_file=False)


def _validate(arguments: argparse.Namespace) -> int:
    try:
        load_config(arguments)
    except ConfigError as error:
        # Here that is the answer, not a failure to start: scripts written for a Collector expect 1.
        print(f"driftlock-otlp: {error}", file=sys.stderr)
        return 1
    print(f"{arguments.config} is valid")
    return 0


def _print(arguments: argparse.Namespace) -> int:
    sys.stdout.write(dump_yaml(load_config(arguments)))
    return 0


VALIDATE = Command("validate", "check a configuration file", _VALIDATE, _add_validate_arguments, _validate)
PRINT_CONFIG = Command("print-config", "print every setting in force", _PRINT_CONFIG, _add_print_arguments, _print)
