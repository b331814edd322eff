"""The sidecar's state database, as commands use it beside a running sidecar."""

from __future__ import annotations

import argparse
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

from driftlock_otlp.commands.command import load_config
from driftlock_otlp.errors import StorageUnavailableError
from driftlock_otlp.storage.state import STATE_FILE, connect_readonly, connect_shared


@contextmanager
def state_database(arguments: argparse.Namespace, *, may_write: bool = False) -> Iterator[sqlite3.Connection]:
    """Open the state database of the sidecar whose configuration the arguments name.

    Args:
        arguments: With `--config` and `--set`.
        may_write: Whether to write, too; what is written is committed at the end.

    Raises:
        ConfigError: The configuration is wrong, or there is no database.
        StorageFormatError: It is not ours, or of another version.
        StorageUnavailableError: It is locked, or the disk fails.
    """
    path = load_config(arguments).queue.path / STATE_FILE
    with closing(connect_shared(path) if may_write else connect_readonly(path)) as connection:
        try:
            with connection:
                yield connection
        except sqlite3.OperationalError as error:
            raise StorageUnavailableError(f"{path}: {error}; try again") from None
