"""Who may write a log: one process at a time, by a lock that ends with the process."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from driftlock_otlp.errors import ConfigError


def lock_log(directory: Path) -> int:
    """Lock a log's directory; return the descriptor that holds the lock until it is closed.

    Raises:
        ConfigError: Another process holds it.
        OSError: The file cannot be made.
    """
    descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise ConfigError(
            f"queue.path: {directory.parent} is in use by another running sidecar;"
            " stop that one, or give this one a queue.path of its own"
        ) from None
    return descriptor
