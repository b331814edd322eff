"""A disk that misbehaves on demand, for a process that has this directory in its PYTHONPATH.

The interpreter loads it before anything else. The file that `BAD_DISK` names says how the log's disk
behaves from now on: `readonly`, `slow 0.3` (seconds for each sync), or nothing for well. Only the
log writes with these calls; SQLite does so in C.
"""

import errno
import os
import time
from pathlib import Path

_control = os.environ.get("BAD_DISK")
_pwritev, _fdatasync = os.pwritev, os.fdatasync


def _behaviour() -> list[str]:
    return Path(_control).read_text().split() if _control else []


def _write(fd, buffers, offset):  # type: ignore[no-untyped-def]
    if _behaviour() == ["readonly"]:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))
    return _pwritev(fd, buffers, offset)


def _sync(fd):  # type: ignore[no-untyped-def]
    if (told := _behaviour())[:1] == ["slow"]:
        time.sleep(float(told[1]))
    _fdatasync(fd)


if _control:
    os.pwritev, os.fdatasync = _write, _sync
