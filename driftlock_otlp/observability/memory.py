"""How much memory processes use and may use, as the kernel says; nothing where it does not say it as Linux does."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

_LIMIT_FILES = (
    Path("/sys/fs/cgroup/memory.max"),  # cgroup v2, as a container sees its own
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),  # v1
)
_NO_LIMIT = 1 << 60
"""What v1 says where there is none is a number like this."""


def resident_bytes(pids: Iterable[int]) -> int:
    """Return the resident memory of processes in bytes; those that have ended count 0."""
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    return sum(_resident_pages(pid) for pid in pids) * page_bytes


def _resident_pages(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0


def container_limit_bytes(files: Iterable[Path] = _LIMIT_FILES) -> int | None:
    """Return the memory limit of the container that this process is in; None if there is none."""
    for path in files:
        try:
            text = path.read_text().strip()
        except OSError:
            continue
        return int(text) if text.isdecimal() and int(text) < _NO_LIMIT else None
    return None
