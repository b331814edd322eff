"""What every command is made of, and the options that several share."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from driftlock_otlp.config import file as config_file
from driftlock_otlp.config.root import Config


@dataclass(frozen=True, slots=True)
class Command:
    """One subcommand.

    Attributes:
        name: As typed.
        summary: One line for the list of commands.
        description: What `--help` says above the options; kept as it is written.
        add_arguments: Declares its arguments.
        run: Does it and returns the exit code.
    """

    name: str
    summary: str
    description: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def add_config_arguments(parser: argparse.ArgumentParser, *, with_file: bool = True) -> None:
    """Declare `--config` and `--set`.

    Args:
        parser: Takes the arguments.
        with_file: False if the command names its file otherwise.
    """
    if with_file:
        parser.add_argument(
            "--config", type=Path, metavar="FILE", help="configuration in YAML; without it, the defaults"
        )
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting that wins over the file, as windows.logs.size=100; may be repeated",
    )


def load_config(arguments: argparse.Namespace, extra: list[str] | None = None) -> Config:
    """Return the configuration that the arguments ask for.

    Args:
        arguments: With what `add_config_arguments` declares.
        extra: Further `KEY=VALUE` settings, which win.

    Raises:
        ConfigError: It is wrong.
    """
    return config_file.load(arguments.config, [*arguments.overrides, *(extra or [])])
