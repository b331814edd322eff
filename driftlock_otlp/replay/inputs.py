"""Opening files to replay: compression, standard input, progress by bytes, lines with numbers.

Everything is streamed; nothing here knows what the bytes mean.
"""

from __future__ import annotations

import gzip
import io
import lzma
import stat
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from driftlock_otlp.errors import InputError
from driftlock_otlp.zstandard import zstd

STANDARD_INPUT = "-"

MAX_LINE_BYTES = 256 << 20
"""Longest line that is read; more is no line but another format."""

_HEAD_BYTES = 64 << 10
_FRAME_PREFIX_BYTES = 4
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_COMPRESSIONS = (".gz", ".zst", ".xz")


class InputFile:
    """One file of the input, or standard input (`-`).

    Args:
        name: Path as it was given.
        on_bytes: Called with the number of bytes just read from the disk.

    Raises:
        InputError: There is no such file, or it is a directory.
    """

    def __init__(self, name: str, on_bytes: Callable[[int], None] | None = None) -> None:
        self.name = name
        self._path = Path(name)
        self._on_bytes = on_bytes or (lambda _: None)
        self.size_bytes = 0
        if name == STANDARD_INPUT:
            return
        try:
            status = self._path.stat()
        except OSError as error:
            raise InputError(f"{name}: {error.strerror}") from None
        if stat.S_ISDIR(status.st_mode):
            raise InputError(f"{name} is a directory: name the files in it, for example {self._path}/*.csv")
        self.size_bytes = status.st_size if stat.S_ISREG(status.st_mode) else 0

    @property
    def shown(self) -> str:
        """The name in messages."""
        return "standard input" if self.name == STANDARD_INPUT else self.name

    @property
    def stem(self) -> str:
        """The file's name without folders and suffixes of format and compression."""
        if self.name == STANDARD_INPUT:
            return "stdin"
        return self._plain_path.stem or self._path.name

    @property
    def suffix(self) -> str:
        """The suffix that tells the format, in lower case, as `.csv` of `cpu.csv.gz`."""
        return self._plain_path.suffix.lower()

    @property
    def _plain_path(self) -> Path:
        return self._path.with_suffix("") if self._path.suffix.lower() in _COMPRESSIONS else self._path

    def head(self) -> bytes:
        """Return up to 64 KiB from the beginning, decompressed; not for standard input."""
        with self.open() as stream:
            return stream.read(_HEAD_BYTES)

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Open the file, decompressed by its suffix.

        Raises:
            InputError: It cannot be read, or is not compressed as its suffix says.
        """
        try:
            with self._open() as stream:
                yield stream
        except (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error, zstd.ZstdError) as error:
            raise InputError(f"{self.shown}: cannot be decompressed: {error}") from None
        except OSError as error:
            raise InputError(f"{self.shown}: cannot be read: {error.strerror or error}") from None

    @contextmanager
    def _open(self) -> Iterator[BinaryIO]:
        if self.name == STANDARD_INPUT:
            yield cast(BinaryIO, io.BufferedReader(_Counted(sys.stdin.buffer, self._on_bytes), _HEAD_BYTES))
            return
        with self._path.open("rb") as file:
            counted = io.BufferedReader(_Counted(file, self._on_bytes), _HEAD_BYTES)
            yield cast(BinaryIO, _decompressed(cast(BinaryIO, counted), self._path.suffix.lower()))


class _Counted(io.RawIOBase):
    """Passes reads on and says how many bytes they gave."""

    def __init__(self, stream: IO[bytes], on_bytes: Callable[[int], None]) -> None:
        self._stream = stream
        self._on_bytes = on_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        data = self._stream.read(len(view))
        view[: len(data)] = data
        self._on_bytes(len(data))
        return len(data)


def _decompressed(stream: BinaryIO, suffix: str) -> IO[bytes]:
    if suffix == ".gz":
        return cast(IO[bytes], gzip.open(stream))
    if suffix == ".xz":
        return lzma.open(stream)
    if suffix == ".zst" and not is_framed(peek(stream)):
        return cast(IO[bytes], zstd.open(stream))
    return stream


def peek(stream: BinaryIO) -> bytes:
    """Return the next bytes, at least 8 where there are as many, without taking them."""
    return cast(io.BufferedReader, stream).peek(_FRAME_PREFIX_BYTES + len(_ZSTD_MAGIC))


def is_framed(head: bytes) -> bool:
    """Return whether the bytes begin as the Collector's length-delimited form does.

    A 4-byte big-endian length goes before each message. Neither OTLP in protobuf (which begins
    with its first tag, 0x0A) nor text begins with a byte that small.
    """
    return len(head) > _FRAME_PREFIX_BYTES and head[0] < 0x09


def frames(file: InputFile, stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield the offset and content of each length-delimited message, decompressed if it is zstd.

    Raises:
        InputError: The file ends within a message.
    """
    offset = 0
    while prefix := stream.read(_FRAME_PREFIX_BYTES):
        size = int.from_bytes(prefix, "big")
        if len(prefix) < _FRAME_PREFIX_BYTES or size > MAX_LINE_BYTES:
            raise InputError(f"{file.shown}: no message length at byte {offset}: the file is damaged")
        message = stream.read(size)
        if len(message) < size:
            raise InputError(
                f"{file.shown}: the message at byte {offset} should have {size} bytes, the file ends after"
                f" {len(message)}: it was cut off"
            )
        if message.startswith(_ZSTD_MAGIC):
            message = zstd.decompress(message)
        yield offset, message
        offset += _FRAME_PREFIX_BYTES + size


def lines(file: InputFile, stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield number, from 1, and content of each line, without its end.

    Raises:
        InputError: A line is longer than 256 MiB.
    """
    number = 0
    while line := stream.readline(MAX_LINE_BYTES):
        number += 1
        if len(line) == MAX_LINE_BYTES:
            raise InputError(
                f"{file.shown}:{number}: longer than {MAX_LINE_BYTES >> 20} MiB; is this the right format?"
            )
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        yield number, line.rstrip(b"\r\n")
