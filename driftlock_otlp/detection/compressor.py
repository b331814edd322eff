"""Typed columns as frames, and how large they are; the only module that knows OpenZL.

OpenZL is called with pinned format version and checksums off, since both change sizes, and
with a reference held to every buffer until the call returns, since its `Input` keeps none.
It holds the GIL for the whole call: use it in worker processes only.

Where OpenZL has no wheel, zstd serves through the same interface. The fingerprint tells the
two apart: baselines of one are never compared with windows of the other.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import importlib.util
from collections.abc import Callable
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from driftlock_otlp.errors import CompressorError, ConfigError
from driftlock_otlp.zstandard import zstd

Array = npt.NDArray[np.uint8] | npt.NDArray[np.uint16] | npt.NDArray[np.int16]
Unsigned = npt.NDArray[np.unsignedinteger[Any]]

_OPENZL_FORMAT_VERSION = 27
_CHECKSUM_OFF = 2
_ZSTD_LEVEL = 3
_MOST_SIZES = 8_192
"""Sizes that are remembered: about a megabyte."""


class Compressor(Protocol):
    """Tells how many bytes a typed column costs."""

    @property
    def fingerprint(self) -> str:
        """Name, version and parameters: sizes are comparable only if this is equal."""
        ...

    def compressed_size(self, column: Array) -> int:
        """Return the size in bytes of the compressed column; the same column always costs the same.

        Args:
            column: Contiguous, native byte order, one dimension.

        Raises:
            CompressorError: The library failed.
        """
        ...

    def compress(self, column: Array | Unsigned) -> bytes:
        """Return the frame whose size `compressed_size` tells; empty for an empty column.

        Raises:
            CompressorError: The library failed.
        """
        ...

    def decompress(self, frame: bytes) -> bytes:
        """Return the bytes of the column that a frame was made of.

        Raises:
            CompressorError: It is no frame of this compressor, or a damaged one.
        """
        ...


class _KnownSizes:
    """Sizes of the columns compressed last, by their digest.

    The window of now is the baseline of soon, and a column of one symbol is the same in every window
    and stream; a digest costs a fiftieth of what compressing does.
    """

    def __init__(self) -> None:
        self._sizes: dict[bytes, int] = {}

    def size(self, column: Array, compress: Callable[[Array], bytes]) -> int:
        """Return the size of the compressed column."""
        digest = hashlib.blake2b(np.ascontiguousarray(column).data, digest_size=16, person=column.dtype.str.encode())
        key = digest.digest()
        size = self._sizes.pop(key, None)
        if size is None:
            size = len(compress(column))
            if len(self._sizes) >= _MOST_SIZES:
                del self._sizes[next(iter(self._sizes))]
        self._sizes[key] = size  # anew at the end, as the one used last
        return size


class _Engine:
    """OpenZL's objects, one set in a process.

    Its bindings abort if the garbage collector frees a compressor before the context that refers to it. So nothing else
    holds them, and they go at the end of the process, the context first.
    """

    def __init__(self) -> None:
        from openzl import ext  # noqa: PLC0415 - absent on platforms without a wheel

        self.ext = ext
        self.compressor = ext.Compressor()
        self.compressor.set_parameter(ext.CParam.FormatVersion, _OPENZL_FORMAT_VERSION)
        self.compressor.set_parameter(ext.CParam.CompressedChecksum, _CHECKSUM_OFF)
        self.compressor.set_parameter(ext.CParam.ContentChecksum, _CHECKSUM_OFF)
        self.compressor.select_starting_graph(ext.graphs.Compress()(self.compressor))
        self.context = ext.CCtx()
        # Sticky must come first: without it the context forgets its compressor after one call.
        self.context.set_parameter(ext.CParam.StickyParameters, 1)
        self.context.ref_compressor(self.compressor)

    def close(self) -> None:
        """Let go of them in the right order."""
        del self.context
        del self.compressor


@functools.cache
def _engine() -> _Engine:
    engine = _Engine()
    atexit.register(engine.close)
    return engine


class OpenZLCompressor:
    """OpenZL's generic numeric graph."""

    def __init__(self) -> None:
        ext = _engine().ext
        self._known = _KnownSizes()
        version = f"{ext.LIBRARY_VERSION_MAJOR}.{ext.LIBRARY_VERSION_MINOR}.{ext.LIBRARY_VERSION_PATCH}"
        self._fingerprint = f"openzl-{version}/format-{_OPENZL_FORMAT_VERSION}"

    @property
    def fingerprint(self) -> str:
        """See `Compressor`."""
        return self._fingerprint

    def compressed_size(self, column: Array) -> int:
        """See `Compressor`."""
        return self._known.size(column, self.compress)

    def compress(self, column: Array | Unsigned) -> bytes:
        """See `Compressor`."""
        if column.size == 0:
            return b""
        buffer = np.ascontiguousarray(column)
        try:
            ext = _engine().ext
            frame: bytes = _engine().context.compress([ext.Input(ext.Type.Numeric, buffer)])
        except RuntimeError as error:
            raise CompressorError(
                f"OpenZL could not compress {buffer.size} values of {buffer.dtype}: {error}"
            ) from error
        return frame

    def decompress(self, frame: bytes) -> bytes:
        """See `Compressor`."""
        if not frame:
            return b""
        try:
            (output,) = _engine().ext.DCtx().decompress(frame)
        except (RuntimeError, ValueError) as error:
            raise CompressorError(f"this is no sound OpenZL frame: {error}") from error
        return bytes(output.content.as_bytes())


class ZstdCompressor:
    """Zstandard on the column's bytes, for platforms without OpenZL."""

    def __init__(self) -> None:
        options: dict[int, int] = {zstd.CompressionParameter.compression_level: _ZSTD_LEVEL}
        # The length of a column is no evidence: its window holds it already.
        options[zstd.CompressionParameter.content_size_flag] = 0
        self._context = zstd.ZstdCompressor(options=options)
        self._known = _KnownSizes()
        self._fingerprint = f"zstd-{zstd.zstd_version}/level-{_ZSTD_LEVEL}"

    @property
    def fingerprint(self) -> str:
        """See `Compressor`."""
        return self._fingerprint

    def compressed_size(self, column: Array) -> int:
        """See `Compressor`."""
        return self._known.size(column, self.compress)

    def compress(self, column: Array | Unsigned) -> bytes:
        """See `Compressor`."""
        if column.size == 0:
            return b""
        try:
            data = np.ascontiguousarray(column).tobytes()
            return self._context.compress(data, zstd.ZstdCompressor.FLUSH_FRAME)
        except zstd.ZstdError as error:
            raise CompressorError(f"zstd could not compress {column.size} values: {error}") from error

    def decompress(self, frame: bytes) -> bytes:
        """See `Compressor`."""
        try:
            return zstd.decompress(frame) if frame else b""
        except zstd.ZstdError as error:
            raise CompressorError(f"this is no sound zstd frame: {error}") from error


def new_compressor(choice: Literal["auto", "openzl", "zstd"]) -> Compressor:
    """Return the compressor that the setting `detection.compressor` asks for.

    Raises:
        ConfigError: OpenZL is demanded but not installed.
    """
    has_openzl = importlib.util.find_spec("openzl") is not None
    if choice == "openzl" and not has_openzl:
        raise ConfigError(
            "detection.compressor: openzl has no wheel for this platform; use auto, which falls back to zstd"
        )
    return OpenZLCompressor() if has_openzl and choice != "zstd" else ZstdCompressor()
