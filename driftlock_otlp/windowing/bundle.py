"""Bundles: plain values and arrays in one archive, under a chain of hashes.

`windowing.evidence` says what is in them.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from driftlock_otlp.detection.compressor import Compressor
from driftlock_otlp.errors import InputError

BUNDLE_FORMAT = 1
"""The newest bundle format that this version reads, and the one that it writes."""

_MANIFEST = "manifest.json"
_MEMBERS = (
    "settings.json",
    "window.json",
    "window.frames",
    "detector.json",
    "detector.frames",
    "calibration.json",
    "verdict.json",
)
_MOST_BYTES = 1 << 30
"""A member that claims to be larger is not unpacked."""
_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    OSError,
    EOFError,
    RuntimeError,
    LookupError,
    ValueError,
    TypeError,
)
"""What a damaged archive makes its reader raise."""
_PLACE_OF_DATE = (1980, 1, 1, 0, 0, 0)  # Equal evidence gives equal bytes.


@dataclass(frozen=True, slots=True)
class Bundle:
    """The members of a bundle whose chain is sound.

    Attributes:
        members: Bytes by name.
        root: Last link of the chain, 64 hex digits.
    """

    members: dict[str, bytes]
    root: str

    def json(self, name: str) -> Any:
        """Return a JSON member.

        Raises:
            InputError: It is none.
        """
        try:
            return json.loads(self.members[name])
        except ValueError as error:
            raise InputError(f"{name} in the bundle is not JSON: {error}") from error


def read_bundle(data: bytes) -> Bundle:
    """Return the members of a bundle, once the chain has been followed.

    Raises:
        InputError: It is no bundle, a newer one, or a byte of it was changed; the message says where.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            sizes = {item.filename: item.file_size for item in archive.infolist()}
            if sizes.keys() != {*_MEMBERS, _MANIFEST} or max(sizes.values()) > _MOST_BYTES:
                raise InputError("this is not an evidence bundle: its members are others")
            members = {name: archive.read(name) for name in (*_MEMBERS, _MANIFEST)}
        manifest = json.loads(members.pop(_MANIFEST))
        if manifest["format"] > BUNDLE_FORMAT:
            raise InputError(
                f"the bundle has format {manifest['format']}; this version reads formats up to {BUNDLE_FORMAT}:"
                " verify it with the version that wrote it"
            )
        stored = [(link["member"], link["sha256"], link["chain"]) for link in manifest["chain"]]
    except _UNREADABLE as error:
        raise InputError(f"this is not a sound evidence bundle: {error}") from error
    for link, right in zip(stored, _chain(members), strict=False):
        if link != right:
            raise InputError(f"{right[0]} in the bundle is not what its manifest says: it was changed or damaged")
    if len(stored) != len(_MEMBERS) or manifest.get("root") != stored[-1][2]:
        raise InputError("the manifest of the bundle was changed or damaged")
    return Bundle(members, stored[-1][2])


def pack_bundle(members: dict[str, bytes]) -> tuple[str, bytes]:
    """Return the root of the chain, and the archive."""
    links = _chain(members)
    manifest = {
        "format": BUNDLE_FORMAT,
        "chain": [{"member": name, "sha256": digest, "chain": link} for name, digest, link in links],
        "root": links[-1][2],
    }
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in (members | {_MANIFEST: to_json(manifest)}).items():
            info = zipfile.ZipInfo(name, _PLACE_OF_DATE)
            info.compress_type = zipfile.ZIP_STORED if name.endswith(".frames") else zipfile.ZIP_DEFLATED
            archive.writestr(info, data)
    return links[-1][2], output.getvalue()


def _chain(members: dict[str, bytes]) -> list[tuple[str, str, str]]:
    """Return (member, its SHA-256, link) of each member, in the order of the chain."""
    links, before = [], ""
    for name in _MEMBERS:
        digest = hashlib.sha256(members[name]).hexdigest()
        before = hashlib.sha256(f"{before}\0{name}\0{digest}".encode()).hexdigest()
        links.append((name, digest, before))
    return links


def to_json(tree: Any) -> bytes:
    """Return a JSON member."""
    # Numbers are written so that they are read back exactly; NaN and Infinity as JSON's common extension has them.
    return json.dumps(tree, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


class Frames:
    """Arrays on their way into a bundle.

    Args:
        compressor: Writes the frames.
    """

    def __init__(self, compressor: Compressor) -> None:
        self._compressor = compressor
        self.index: list[list[Any]] = []
        self._frames: list[bytes] = []

    @property
    def data(self) -> bytes:
        """All frames, one after the other."""
        return b"".join(self._frames)

    def add(self, array: np.ndarray[Any, Any]) -> int:
        """Return the number of an array, now that it is in."""
        flat = np.ascontiguousarray(array).reshape(-1).view(f"u{array.dtype.itemsize}")
        self._frames.append(self._compressor.compress(flat))
        self.index.append([array.dtype.str, list(array.shape), len(self._frames[-1])])
        return len(self.index) - 1


class FrameReader:
    """The arrays of a bundle.

    Args:
        data: All frames, one after the other.
        index: Type, shape and bytes of each.
        compressor: Reads them.

    Raises:
        CompressorError: A frame is damaged.
    """

    def __init__(self, data: bytes, index: list[list[Any]], compressor: Compressor) -> None:
        self._arrays = []
        offset = 0
        for dtype, shape, size in index:
            raw = compressor.decompress(data[offset : offset + size])
            self._arrays.append(np.frombuffer(raw, np.dtype(dtype)).reshape(shape).copy())
            offset += size

    def __getitem__(self, number: int) -> np.ndarray[Any, Any]:
        return self._arrays[number]


def to_plain(value: Any, rename: Callable[[str], str], frames: Frames) -> Any:
    """Return a value as JSON has it; `of_plain` reads it back."""
    if isinstance(value, np.ndarray):
        return {"$array": frames.add(value)}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, str):
        return rename(value)
    if isinstance(value, bytes):
        return {"$bytes": value.hex()}
    if isinstance(value, dict):
        if all(isinstance(key, str) and not key.startswith("$") for key in value):
            return {rename(key): to_plain(item, rename, frames) for key, item in value.items()}
        return {
            "$items": [[to_plain(key, rename, frames), to_plain(item, rename, frames)] for key, item in value.items()]
        }
    if isinstance(value, list | tuple):
        return [to_plain(item, rename, frames) for item in value]
    return value


def of_plain(value: Any, frames: FrameReader) -> Any:
    """Return the value that `to_plain` was given."""
    if isinstance(value, list):
        return [of_plain(item, frames) for item in value]
    if not isinstance(value, dict):
        return value
    if "$array" in value:
        return frames[value["$array"]]
    if "$bytes" in value:
        return bytes.fromhex(value["$bytes"])
    if "$items" in value:
        return {_key(of_plain(key, frames)): of_plain(item, frames) for key, item in value["$items"]}
    return {key: of_plain(item, frames) for key, item in value.items()}


def _key(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
