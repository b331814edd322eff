# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Scanner of OTLP in protobuf: checks a request and reads its records without building messages.

Written in Cython's pure Python mode: compiled where there is a C compiler, and the very same file
can be interpreted, as tests do. Nothing else imports it but `scanning`, which knows whether it is
compiled.

    payload ─▶ check: every tag, length, UTF-8 text and id, once, by tables made from the descriptors
            ─▶ sure?  ─no─▶ None: protobuf decides
            ─▶ the readers below walk what has been checked, and check nothing again

Invariants:
1. `check` is sure only of what protobuf accepts and reads in one way. Whatever is rare (groups, a
   known field with another wire type, a part of a message that comes in pieces to be merged, varints
   longer than need be, deep nesting) is left to protobuf, which is also the oracle of the tests.
2. Readers are given only what `check` was sure of. They do not test lengths, so this is what keeps
   them within the payload.
3. A reader leaves a record as it was to its `slow` callback when it meets what it does not know how to
   read. It then has changed nothing.

References:
    Protocol Buffers documentation, "Encoding"; opentelemetry-proto 1.11.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import cython

FIELDS = 64
"""Field numbers that a table knows of each message: 0 to 63."""

# What a field holds. Also the place of its wire type in the table below.
UNKNOWN = 0
VARINT = 1
FIXED64 = 2
FIXED32 = 3
BYTES = 4
STRING = 5
MESSAGE = 6
VARINTS = 7  # repeated, packed or not
FIXED64S = 8

# What is special about a field, added up.
IS_ITEM = 1
IS_ENVELOPE = 2
IS_TRACE_ID = 4
IS_SPAN_ID = 8
IS_SINGLE = 16  # a message that would have to be merged if it came twice
IS_ONE_OF = 32  # a message that excludes others, which it would have to replace

_UNSURE = cython.declare(cython.longlong, -1)
_MAX_DEPTH = cython.declare(cython.int, 40)
_ENVELOPE = cython.declare(cython.longlong, 1 << 32)
_MAX_TEXT = cython.declare(cython.Py_ssize_t, 256)
_MAX_FIELDS = cython.declare(cython.Py_ssize_t, 128)
_MAX_NAMED = cython.declare(cython.Py_ssize_t, 118)  # leaves room for those that each record has
_MAX_TIME = cython.declare(cython.ulonglong, (1 << 63) - 1)

_LOG_FIELDS = ("body", "body_length", "severity", "trace_id", "span_id", "scope", "event_name")
_SPAN_FIELDS = (
    "operation",
    "status",
    "duration_ms",
    "trace_id",
    "span_id",
    "parent_span_id",
    "exceptions",
    "scope",
)
_SHARED_FIELDS = ("type", "source", "unit", "temporality", "monotonic")
_POINT_FIELDS = (*_SHARED_FIELDS, "series", "start_time_unix_nano", "no_recorded_value")
_NUMBER_FIELDS = (*_POINT_FIELDS, "value")
_HISTOGRAM_FIELDS = (*_POINT_FIELDS, "count", "sum", "bucket_counts", "explicit_bounds")

is_compiled = cython.compiled
"""Whether this module runs as machine code."""


def check(payload: bytes, kinds: bytes, marks: bytes, messages: bytes, most_envelopes: int) -> int:
    """Return the number of items of a request; -1 where protobuf has to decide.

    The lock of the interpreter is not held meanwhile.

    Args:
        payload: Protobuf of message 0 of the tables.
        kinds: What each field holds; `FIELDS` entries for each message.
        marks: What is special about each field, likewise.
        messages: Which message a field of kind `MESSAGE` holds, likewise.
        most_envelopes: Resources, scopes and metrics that are allowed in all.
    """
    data: cython.p_uchar = payload
    kind_of: cython.p_uchar = kinds
    mark_of: cython.p_uchar = marks
    message_of: cython.p_uchar = messages
    size: cython.Py_ssize_t = len(payload)
    found: cython.longlong
    with cython.nogil:
        found = _walk(data, 0, size, kind_of, mark_of, message_of, 0, 0)
    if found < 0 or found // _ENVELOPE > most_envelopes:
        return -1
    return found % _ENVELOPE


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
@cython.returns(cython.longlong)
@cython.locals(
    data=cython.p_uchar,
    at=cython.Py_ssize_t,
    end=cython.Py_ssize_t,
    kind_of=cython.p_uchar,
    mark_of=cython.p_uchar,
    message_of=cython.p_uchar,
    message=cython.int,
    depth=cython.int,
    tag=cython.ulonglong,
    size=cython.ulonglong,
    number=cython.ulonglong,
    place=cython.Py_ssize_t,
    stop=cython.Py_ssize_t,
    kind=cython.int,
    mark=cython.int,
    wire=cython.int,
    seen=cython.ulonglong,
    bit=cython.ulonglong,
    total=cython.longlong,
    inner=cython.longlong,
)
def _walk(data: Any, at: Any, end: Any, kind_of: Any, mark_of: Any, message_of: Any, message: Any, depth: Any) -> Any:
    """Return items plus envelopes times 2**32 of one message between `at` and `end`; -1 if unsure."""
    if depth > _MAX_DEPTH:
        return _UNSURE
    seen = 0
    total = 0
    while at < end:
        tag = data[at]
        at += 1
        if tag >= 128:
            # Field numbers from 16 on; those of three bytes and more are left to protobuf.
            if at >= end or data[at] >= 128 or data[at] == 0:
                return _UNSURE
            tag = (tag & 127) | (cython.cast(cython.ulonglong, data[at]) << 7)
            at += 1
        number = tag >> 3
        wire = tag & 7
        if number == 0:
            return _UNSURE
        kind = 0
        mark = 0
        place = 0
        if number < 64:
            place = message * 64 + cython.cast(cython.Py_ssize_t, number)
            kind = kind_of[place]
            mark = mark_of[place]
        if wire == 2:
            if at >= end:
                return _UNSURE
            size = data[at]
            at += 1
            if size >= 128:
                at, size = _long_varint(data, at, end, size)
                if at < 0:
                    return _UNSURE
            if size > cython.cast(cython.ulonglong, end - at):
                return _UNSURE
            stop = at + cython.cast(cython.Py_ssize_t, size)
            if kind == 6:
                if mark:
                    if mark & 1:
                        total += 1
                    if mark & 2:
                        total += _ENVELOPE
                    if mark & 48:
                        # All that exclude one another share one bit.
                        bit = 1 if mark & 32 else cython.cast(cython.ulonglong, 1) << number
                        if seen & bit:
                            return _UNSURE
                        seen |= bit
                inner = _walk(data, at, stop, kind_of, mark_of, message_of, message_of[place], depth + 1)
                if inner < 0:
                    return _UNSURE
                total += inner
            elif kind == 5:
                if not _is_utf8(data, at, stop):
                    return _UNSURE
            elif kind == 4:
                if mark and size and size != (16 if mark & 4 else 8):
                    return _UNSURE
            elif kind == 7:
                if not _are_varints(data, at, stop):
                    return _UNSURE
            elif kind == 8:
                if size & 7:
                    return _UNSURE
            elif kind:
                return _UNSURE
            at = stop
        elif wire == 0:
            if kind != 1 and kind != 7 and kind != 0:
                return _UNSURE
            if at >= end:
                return _UNSURE
            size = data[at]
            at += 1
            if size >= 128:
                at, size = _long_varint(data, at, end, size)
                if at < 0:
                    return _UNSURE
        elif wire == 1:
            if (kind != 2 and kind != 8 and kind != 0) or end - at < 8:
                return _UNSURE
            at += 8
        elif wire == 5:
            if (kind != 3 and kind != 0) or end - at < 4:
                return _UNSURE
            at += 4
        else:
            return _UNSURE
    return total


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
@cython.returns((cython.Py_ssize_t, cython.ulonglong))
@cython.locals(
    data=cython.p_uchar,
    at=cython.Py_ssize_t,
    end=cython.Py_ssize_t,
    value=cython.ulonglong,
    byte=cython.ulonglong,
    shift=cython.int,
)
def _long_varint(data: Any, at: Any, end: Any, value: Any) -> Any:
    """Return where a varint ends, and its value; -1 if it is longer than need be or cut off.

    Args:
        data: The payload.
        at: Its second byte.
        end: Where it must have ended.
        value: Its first byte, which says that more follow.
    """
    value = value & 127
    shift = 7
    while at < end:
        byte = data[at]
        at += 1
        if shift == 63 and byte > 1:
            return -1, 0
        value |= (byte & 127) << shift
        if byte < 128:
            # Zeros at the end say nothing; protobuf takes them in some places.
            if byte == 0:
                return -1, 0
            return at, value
        shift += 7
    return -1, 0


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
@cython.returns(cython.bint)
@cython.locals(
    data=cython.p_uchar, at=cython.Py_ssize_t, end=cython.Py_ssize_t, value=cython.ulonglong, size=cython.ulonglong
)
def _are_varints(data: Any, at: Any, end: Any) -> Any:
    """Return whether varints, one after the other, fill the range exactly."""
    while at < end:
        value = data[at]
        at += 1
        if value >= 128:
            at, size = _long_varint(data, at, end, value)
            if at < 0:
                return False
    return True


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
@cython.returns(cython.bint)
@cython.locals(
    data=cython.p_uchar,
    at=cython.Py_ssize_t,
    end=cython.Py_ssize_t,
    place=cython.Py_ssize_t,
    every=cython.uchar,
    first=cython.uint,
    second=cython.uint,
    more=cython.int,
)
def _is_utf8(data: Any, at: Any, end: Any) -> Any:
    """Return whether the range is UTF-8 (RFC 3629: shortest forms, no surrogates, up to U+10FFFF)."""
    every = 0
    for place in range(at, end):  # without a way out in between, so that it is vectorised
        every |= data[place]
    if every < 128:
        return True
    while at < end:
        first = data[at]
        at += 1
        if first < 0x80:
            continue
        if first < 0xC2 or first > 0xF4:
            return False
        more = 1 if first < 0xE0 else 2 if first < 0xF0 else 3
        if end - at < more:
            return False
        second = data[at]
        if (
            (second & 0xC0) != 0x80
            or (first == 0xE0 and second < 0xA0)
            or (first == 0xED and second > 0x9F)
            or (first == 0xF0 and second < 0x90)
            or (first == 0xF4 and second > 0x8F)
        ):
            return False
        if more > 1 and (data[at + 1] & 0xC0) != 0x80:
            return False
        if more > 2 and (data[at + 2] & 0xC0) != 0x80:
            return False
        at += more
    return True


# ---- What follows reads what has been checked.


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
@cython.returns((cython.Py_ssize_t, cython.ulonglong))
@cython.locals(data=cython.p_uchar, at=cython.Py_ssize_t, value=cython.ulonglong)
def _varint(data: Any, at: Any) -> Any:
    """Return where a varint ends, and its value."""
    value = data[at]
    if value < 128:
        return at + 1, value
    return _long_varint(data, at + 1, at + 10, value)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
@cython.returns(cython.Py_ssize_t)
@cython.locals(data=cython.p_uchar, at=cython.Py_ssize_t, wire=cython.int, size=cython.ulonglong)
def _skip(data: Any, at: Any, wire: Any) -> Any:
    """Return where the value of a field ends."""
    if wire == 1:
        return at + 8
    if wire == 5:
        return at + 4
    at, size = _varint(data, at)
    return at + cython.cast(cython.Py_ssize_t, size) if wire == 2 else at


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
@cython.returns(cython.ulonglong)
@cython.locals(data=cython.p_uchar, at=cython.Py_ssize_t)
def _fixed64(data: Any, at: Any) -> Any:
    if cython.compiled:
        return cython.cast(cython.pointer(cython.ulonglong), data + at)[0]
    return int.from_bytes(data[at : at + 8], "little")


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
@cython.returns(cython.double)
@cython.locals(data=cython.p_uchar, at=cython.Py_ssize_t)
def _double(data: Any, at: Any) -> Any:
    if cython.compiled:
        return cython.cast(cython.pointer(cython.double), data + at)[0]
    return struct.unpack_from("<d", data, at)[0]


@cython.cfunc
@cython.locals(value=cython.ulonglong)
def _signed(value: Any) -> Any:
    """Return what 64 bits mean as a number with a sign."""
    if value <= _MAX_TIME:
        return value
    return -1 - cython.cast(object, 0xFFFFFFFFFFFFFFFF - value)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
@cython.returns(cython.bint)
@cython.locals(
    one=cython.p_uchar,
    at=cython.Py_ssize_t,
    other=cython.p_uchar,
    there=cython.Py_ssize_t,
    size=cython.Py_ssize_t,
    place=cython.Py_ssize_t,
)
def _same(one: Any, at: Any, other: Any, there: Any, size: Any) -> Any:
    """Return whether two stretches of `size` bytes are the same."""
    for place in range(size):
        if one[at + place] != other[there + place]:
            return False
    return True


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
@cython.returns(cython.Py_ssize_t)
@cython.locals(data=cython.p_uchar, at=cython.Py_ssize_t, tag=cython.int)
def _skip_tagged(data: Any, at: Any, tag: Any) -> Any:
    """Return where a field ends, `at` being behind the first byte of its tag."""
    if tag >= 128:
        at += 1
    return _skip(data, at, tag & 7)


def envelopes(payload: bytes) -> list[tuple[bytes, str, list[tuple[str, int, int]]]]:
    """Return the resources of a request, in order, each with its schema URL and its scopes.

    All three signals have the same envelopes.

    Returns:
        Resource as protobuf, schema URL, and of each scope its name, and where its message begins and ends.
    """
    data: cython.p_uchar = payload
    at: cython.Py_ssize_t = 0
    end: cython.Py_ssize_t = len(payload)
    tag: cython.int
    size: cython.ulonglong
    found: list[Any] = []
    while at < end:
        tag = data[at]
        at += 1
        if tag != 10:
            at = _skip_tagged(data, at, tag)
            continue
        at, size = _varint(data, at)
        found.append(_resource(payload, at, at + cython.cast(cython.Py_ssize_t, size)))
        at += cython.cast(cython.Py_ssize_t, size)
    return found


def count_items(payload: bytes, start: int, stop: int) -> int:
    """Return the number of records of a `Scope<Signal>`, whose field 2 they are."""
    data: cython.p_uchar = payload
    at: cython.Py_ssize_t = start
    end: cython.Py_ssize_t = stop
    tag: cython.int
    found: cython.Py_ssize_t = 0
    while at < end:
        tag = data[at]
        if tag == 18:
            found += 1
        at = _skip_tagged(data, at + 1, tag)
    return found


@cython.cfunc
@cython.locals(
    payload=bytes,
    at=cython.Py_ssize_t,
    end=cython.Py_ssize_t,
    data=cython.p_uchar,
    tag=cython.int,
    size=cython.ulonglong,
    stop=cython.Py_ssize_t,
    resource=bytes,
    scopes=list,
)
def _resource(payload: Any, at: Any, end: Any) -> Any:
    data = payload
    resource = b""
    schema_url = ""
    scopes = []
    while at < end:
        tag = data[at]
        at += 1
        if tag != 10 and tag != 18 and tag != 26:
            at = _skip_tagged(data, at, tag)
            continue
        at, size = _varint(data, at)
        stop = at + cython.cast(cython.Py_ssize_t, size)
        if tag == 10:
            resource = data[at:stop]
        elif tag == 26:
            schema_url = payload[at:stop].decode("utf-8")
        else:
            scopes.append((_scope_name(payload, at, stop), at, stop))
        at = stop
    return resource, schema_url, scopes


@cython.cfunc
@cython.locals(
    payload=bytes,
    at=cython.Py_ssize_t,
    end=cython.Py_ssize_t,
    data=cython.p_uchar,
    tag=cython.int,
    size=cython.ulonglong,
    stop=cython.Py_ssize_t,
)
def _scope_name(payload: Any, at: Any, end: Any) -> Any:
    """Return the name of the scope of a `Scope<Signal>`: its field 1 is the scope, and the scope's is its name."""
    data = payload
    name = ""
    while at < end:
        tag = data[at]
        at += 1
        if tag != 10:
            at = _skip_tagged(data, at, tag)
            continue
        at, size = _varint(data, at)
        stop = at + cython.cast(cython.Py_ssize_t, size)
        while at < stop:
            tag = data[at]
            at += 1
            if tag != 10:
                at = _skip_tagged(data, at, tag)
                continue
            at, size = _varint(data, at)
            name = payload[at : at + cython.cast(cython.Py_ssize_t, size)].decode("utf-8")
            at += cython.cast(cython.Py_ssize_t, size)
    return name


@cython.cclass
class _Reader:
    """What reading records of all kinds shares: columns by attribute, repeated texts.

    Args:
        payload: A request that `check` is sure of.
        fields: Columns by name, of which each has at most one entry for each of `items`.
        items: Index of each record so far.
        times_unix_nano: Time of each record so far.
        field_of: Returns the name of an attribute's column; empty if it has none, None if
            records that have it are to be left to `slow`.
        slow: Reads the record with an index between two places of the payload, of a scope.
    """

    payload = cython.declare(bytes)
    fields = cython.declare(dict)
    items = cython.declare(list)
    times = cython.declare(list)
    field_of = cython.declare(object)
    slow = cython.declare(object)
    scope = cython.declare(object)
    keys = cython.declare(list)  # bytes of the attribute key last met at each place of a record
    columns = cython.declare(list)  # and its column; None where it has none
    column_of = cython.declare(dict)  # the same by bytes of the key
    fixed = cython.declare(list)  # columns that each record has
    texts = cython.declare(list)
    text_at = cython.declare(cython.Py_ssize_t[512])
    text_size = cython.declare(cython.Py_ssize_t[512])

    def __init__(
        self,
        payload: bytes,
        fields: dict[str, list[Any]],
        items: list[int],
        times_unix_nano: list[int],
        field_of: Callable[[str], str | None],
        slow: Callable[[int, int, int, str | None], None],
    ) -> None:
        self.payload = payload
        self.fields = fields
        self.items = items
        self.times = times_unix_nano
        self.field_of = field_of
        self.slow = slow
        self.scope = None
        self.texts = [None] * 512
        if not cython.compiled:
            self.text_at = [0] * 512
            self.text_size = [0] * 512
        self._forget_columns()

    @cython.cfunc
    @cython.locals(at=cython.Py_ssize_t, end=cython.Py_ssize_t, item=cython.Py_ssize_t)
    @cython.locals(data=cython.p_uchar, tag=cython.int, size=cython.ulonglong, stop=cython.Py_ssize_t)
    @cython.locals(known=cython.Py_ssize_t, row=cython.Py_ssize_t)
    def _read_all(self, at: Any, end: Any, item: Any) -> Any:
        """Read the records of a `Scope<Signal>`, whose field 2 they are; return the index of the last."""
        data = self.payload
        while at < end:
            tag = data[at]
            at += 1
            if tag != 18:
                at = _skip_tagged(data, at, tag)
                continue
            at, size = _varint(data, at)
            stop = at + cython.cast(cython.Py_ssize_t, size)
            item += 1
            row = len(self.items)
            known = len(self.fields)
            if self._record(at, stop, row):
                self.items.append(item)
            else:
                self._undo(row, known)
                self.slow(item, at, stop, self.scope)
            at = stop
        return item

    @cython.cfunc
    @cython.returns(cython.bint)
    @cython.exceptval(-1)
    @cython.locals(at=cython.Py_ssize_t, end=cython.Py_ssize_t, row=cython.Py_ssize_t)
    def _record(self, at: Any, end: Any, row: Any) -> Any:
        """Read one record into columns; False if that is left to `slow`."""
        return False

    @cython.cfunc
    @cython.locals(row=cython.Py_ssize_t, known=cython.Py_ssize_t, column=list)
    def _undo(self, row: Any, known: Any) -> Any:
        """Take back what was read of a record."""
        while len(self.fields) > known:
            self.fields.popitem()
        for column in self.fields.values():
            if len(column) > row:
                del column[row:]
        self._forget_columns()

    @cython.cfunc
    def _forget_columns(self) -> Any:
        self.keys = []
        self.columns = []
        self.column_of = {}
        self.fixed = []

    @cython.cfunc
    @cython.returns(cython.bint)
    @cython.exceptval(-1)
    @cython.locals(row=cython.Py_ssize_t, column=list)
    def _fixed_columns(self, names: Any, row: Any) -> Any:
        """Find or make the columns that each record has; False if there is no room for them."""
        for name in names:
            column = self.fields.get(name)
            if column is None:
                if len(self.fields) >= _MAX_FIELDS:
                    return False
                column = self.fields[name] = [None] * row
            elif len(column) < row:
                column.extend([None] * (row - len(column)))
            self.fixed.append(column)
        return True

    @cython.cfunc
    @cython.locals(at=cython.Py_ssize_t, size=cython.Py_ssize_t, data=cython.p_uchar, slot=cython.Py_ssize_t)
    def _text(self, at: Any, size: Any) -> Any:
        """Return a text; the same object again for most that come again, which makes them cheap to compare."""
        if size == 0:
            return ""
        data = self.payload
        slot = (
            size
            + 31 * data[at]
            + 7 * data[at + (size >> 2)]
            + 131 * data[at + (size >> 1)]
            + 17 * data[at + size - 1 - (size > 1)]
            + 67 * data[at + size - 1]
        ) & 511
        text = self.texts[slot]
        if text is not None and self.text_size[slot] == size and _same(data, self.text_at[slot], data, at, size):
            return text
        text = self.payload[at : at + size].decode("utf-8")
        self.texts[slot] = text
        self.text_at[slot] = at
        self.text_size[slot] = size
        return text

    @cython.cfunc
    @cython.returns(cython.bint)
    @cython.exceptval(-1)
    @cython.locals(at=cython.Py_ssize_t, end=cython.Py_ssize_t, place=cython.Py_ssize_t, row=cython.Py_ssize_t)
    @cython.locals(data=cython.p_uchar, tag=cython.int, size=cython.ulonglong, inner=cython.Py_ssize_t)
    @cython.locals(stop=cython.Py_ssize_t, key_at=cython.Py_ssize_t, key_size=cython.Py_ssize_t, kind=cython.int)
    @cython.locals(text_at=cython.Py_ssize_t, text_size=cython.Py_ssize_t, number=cython.ulonglong)
    @cython.locals(column=list, key=bytes, filled=cython.Py_ssize_t)
    def _attribute(self, at: Any, end: Any, place: Any, row: Any) -> Any:
        """Read one `KeyValue`; False if its record is to be left to `slow`.

        Args:
            at: Where it begins.
            end: Where it ends.
            place: How many come before it in its record.
            row: Records before this one.
        """
        data = self.payload
        key_at = key_size = text_at = text_size = 0
        number = 0
        kind = 0
        while at < end:
            tag = data[at]
            at += 1
            if tag != 10 and tag != 18:
                return False
            at, size = _varint(data, at)
            stop = at + cython.cast(cython.Py_ssize_t, size)
            if tag == 10:
                key_at = at
                key_size = cython.cast(cython.Py_ssize_t, size)
            else:
                inner = at
                while inner < stop:
                    kind = data[inner]
                    inner += 1
                    if kind == 10:
                        inner, size = _varint(data, inner)
                        text_at = inner
                        text_size = cython.cast(cython.Py_ssize_t, size)
                        inner += text_size
                    elif kind == 16 or kind == 24:
                        inner, number = _varint(data, inner)
                    elif kind == 33:
                        text_at = inner
                        inner += 8
                    else:
                        return False
            at = stop
        if place < len(self.keys):
            key = self.keys[place]
            if len(key) == key_size and _same(key, 0, data, key_at, key_size):
                column = self.columns[place]
            else:
                key = data[key_at : key_at + key_size]
                if key not in self.column_of and not self._new_column(key, row):
                    return False
                column = self.column_of[key]
                self.keys[place] = key
                self.columns[place] = column
        else:
            key = data[key_at : key_at + key_size]
            if key not in self.column_of and not self._new_column(key, row):
                return False
            column = self.column_of[key]
            self.keys.append(key)
            self.columns.append(column)
        if column is None:
            return True
        if kind == 10:
            value = self._text(text_at, text_size)
            if text_size > _MAX_TEXT and len(value) > _MAX_TEXT:
                value = value[:_MAX_TEXT]
        elif kind == 24:
            value = _signed(number)
        elif kind == 33:
            value = _double(data, text_at)
        elif kind == 16:
            value = number != 0
        else:
            value = None
        filled = len(column)
        if filled < row:
            column.extend([None] * (row - filled))
            filled = row
        if filled == row:
            column.append(value)
        else:
            column[row] = value  # of two attributes with one key the last counts
        return True

    @cython.cfunc
    @cython.returns(cython.bint)
    @cython.exceptval(-1)
    @cython.locals(key=bytes, row=cython.Py_ssize_t, column=list)
    def _new_column(self, key: Any, row: Any) -> Any:
        """Find or make the column of an attribute; False if its record is to be left to `slow`."""
        if len(key) > _MAX_TEXT:
            return False
        name = self.field_of(key.decode("utf-8"))
        if name is None:
            return False
        if not name:
            self.column_of[key] = None
            return True
        column = self.fields.get(name)
        if column is None:
            if len(self.fields) >= _MAX_NAMED:
                return False
            column = self.fields[name] = [None] * row
        self.column_of[key] = column
        return True


@cython.cclass
class LogReader(_Reader):
    """Reads log records into the fields that `windowing.logs` names."""

    severity_of = cython.declare(object)
    structured = cython.declare(object)
    most_chars = cython.declare(cython.Py_ssize_t)
    severities = cython.declare(dict)

    def prepare(
        self, severity_of: Callable[[str, int], str | None], structured: Callable[[str], str], most_chars: int
    ) -> None:
        """Say how values are made; before the first record.

        Args:
            severity_of: Returns what a severity's text and number come to.
            structured: Returns the text of a body that begins with a brace.
            most_chars: Characters kept of a body.
        """
        self.severity_of = severity_of
        self.structured = structured
        self.most_chars = most_chars
        self.severities = {}

    def read(self, start: int, stop: int, item: int, scope: str | None) -> int:
        """Read the records of one scope.

        Args:
            start: Where its `ScopeLogs` begins.
            stop: Where it ends.
            item: Index of the item before its first.
            scope: What the field of that name is to hold.

        Returns:
            The index of its last item.
        """
        self.scope = scope
        return self._read_all(start, stop, item)

    @cython.cfunc
    @cython.returns(cython.bint)
    @cython.exceptval(-1)
    @cython.locals(at=cython.Py_ssize_t, end=cython.Py_ssize_t, row=cython.Py_ssize_t)
    @cython.locals(data=cython.p_uchar, tag=cython.int, size=cython.ulonglong, stop=cython.Py_ssize_t)
    @cython.locals(time=cython.ulonglong, observed=cython.ulonglong, severity_number=cython.ulonglong)
    @cython.locals(severity_at=cython.Py_ssize_t, severity_size=cython.Py_ssize_t, body_kind=cython.int)
    @cython.locals(body_at=cython.Py_ssize_t, body_size=cython.Py_ssize_t, body_chars=cython.Py_ssize_t)
    @cython.locals(trace_at=cython.Py_ssize_t, trace_size=cython.Py_ssize_t, span_at=cython.Py_ssize_t)
    @cython.locals(span_size=cython.Py_ssize_t, event_at=cython.Py_ssize_t, event_size=cython.Py_ssize_t)
    @cython.locals(place=cython.Py_ssize_t, fixed=list)
    def _record(self, at: Any, end: Any, row: Any) -> Any:
        data = self.payload
        time = observed = severity_number = 0
        severity_at = severity_size = body_at = body_size = trace_at = trace_size = 0
        span_at = span_size = event_at = event_size = place = 0
        body_kind = 0
        while at < end:
            tag = data[at]
            at += 1
            if tag == 9:
                time = _fixed64(data, at)
                at += 8
            elif tag == 89:
                observed = _fixed64(data, at)
                at += 8
            elif tag == 16:
                at, severity_number = _varint(data, at)
            elif tag >= 128 or (tag & 7) != 2:
                at = _skip_tagged(data, at, tag)
            else:
                at, size = _varint(data, at)
                stop = at + cython.cast(cython.Py_ssize_t, size)
                if tag == 50:
                    if not self._attribute(at, stop, place, row):
                        return False
                    place += 1
                elif tag == 26:
                    severity_at = at
                    severity_size = stop - at
                elif tag == 42:
                    while at < stop:
                        body_kind = data[at]
                        at += 1
                        if body_kind != 10:
                            return False
                        at, size = _varint(data, at)
                        body_at = at
                        body_size = cython.cast(cython.Py_ssize_t, size)
                        at += body_size
                elif tag == 74:
                    trace_at = at
                    trace_size = stop - at
                elif tag == 82:
                    span_at = at
                    span_size = stop - at
                elif tag == 98:
                    event_at = at
                    event_size = stop - at
                at = stop
        if event_size and (data[event_at] == 0x64 or data[event_at] == 0x67):
            return False  # may be an event of our own (`driftlock.`) or of gen_ai
        body = None
        body_length = None
        if body_kind:
            body = self.payload[body_at : body_at + body_size].decode("utf-8")
            if body_size and data[body_at] == 0x7B:
                body = self.structured(body)
            body_chars = len(body)
            body_length = body_chars
            if body_chars > self.most_chars:
                body = body[: self.most_chars]
        if severity_size:
            key = self._text(severity_at, severity_size)
        else:
            key = severity_number & 0xFFFFFFFF
        severity = self.severities.get(key, self)
        if severity is self:
            severity = self.severity_of(key if severity_size else "", severity_number & 0xFFFFFFFF)
            self.severities[key] = severity
        if not self.fixed and not self._fixed_columns(_LOG_FIELDS, row):
            return False
        fixed = self.fixed
        cython.cast(list, fixed[0]).append(body)
        cython.cast(list, fixed[1]).append(body_length)
        cython.cast(list, fixed[2]).append(severity)
        cython.cast(list, fixed[3]).append(data[trace_at : trace_at + trace_size] if trace_size else None)
        cython.cast(list, fixed[4]).append(data[span_at : span_at + span_size] if span_size else None)
        cython.cast(list, fixed[5]).append(self.scope)
        cython.cast(list, fixed[6]).append(self._text(event_at, event_size)[:64] if event_size else None)
        if time == 0:
            time = observed
        self.times.append(time if time < _MAX_TIME else _MAX_TIME)
        return True


@cython.cclass
class SpanReader(_Reader):
    """Reads spans into the fields that `windowing.traces` names."""

    operation_of = cython.declare(object)
    statuses = cython.declare(tuple)
    operations = cython.declare(dict)

    def prepare(self, operation_of: Callable[[str, int], str], statuses: tuple[str, str, str]) -> None:
        """Say how values are made; before the first record.

        Args:
            operation_of: Returns what a span's name and kind come to.
            statuses: Names of the status codes 0 to 2.
        """
        self.operation_of = operation_of
        self.statuses = statuses
        self.operations = {}

    def read(self, start: int, stop: int, item: int, scope: str | None) -> int:
        """Read the spans of one scope; arguments and return value are those of `LogReader.read`."""
        self.scope = scope
        return self._read_all(start, stop, item)

    @cython.cfunc
    @cython.returns(cython.bint)
    @cython.exceptval(-1)
    @cython.locals(at=cython.Py_ssize_t, end=cython.Py_ssize_t, row=cython.Py_ssize_t)
    @cython.locals(data=cython.p_uchar, tag=cython.int, size=cython.ulonglong, stop=cython.Py_ssize_t)
    @cython.locals(begun=cython.ulonglong, ended=cython.ulonglong, kind=cython.ulonglong, status=cython.ulonglong)
    @cython.locals(trace_at=cython.Py_ssize_t, trace_size=cython.Py_ssize_t, span_at=cython.Py_ssize_t)
    @cython.locals(span_size=cython.Py_ssize_t, parent_at=cython.Py_ssize_t, parent_size=cython.Py_ssize_t)
    @cython.locals(name_at=cython.Py_ssize_t, name_size=cython.Py_ssize_t, exceptions=cython.Py_ssize_t)
    @cython.locals(place=cython.Py_ssize_t, fixed=list)
    def _record(self, at: Any, end: Any, row: Any) -> Any:
        data = self.payload
        begun = ended = kind = status = 0
        trace_at = trace_size = span_at = span_size = parent_at = parent_size = 0
        name_at = name_size = exceptions = place = 0
        while at < end:
            tag = data[at]
            at += 1
            if tag == 57:
                begun = _fixed64(data, at)
                at += 8
            elif tag == 65:
                ended = _fixed64(data, at)
                at += 8
            elif tag == 48:
                at, kind = _varint(data, at)
            elif tag >= 128 or (tag & 7) != 2:
                at = _skip_tagged(data, at, tag)
            else:
                at, size = _varint(data, at)
                stop = at + cython.cast(cython.Py_ssize_t, size)
                if tag == 74:
                    if not self._attribute(at, stop, place, row):
                        return False
                    place += 1
                elif tag == 10:
                    trace_at = at
                    trace_size = stop - at
                elif tag == 18:
                    span_at = at
                    span_size = stop - at
                elif tag == 34:
                    parent_at = at
                    parent_size = stop - at
                elif tag == 42:
                    name_at = at
                    name_size = stop - at
                elif tag == 90:
                    exceptions += _is_exception(data, at, stop)
                elif tag == 122:
                    while at < stop:
                        tag = data[at]
                        at += 1
                        if tag == 24:
                            at, status = _varint(data, at)
                        else:
                            at = _skip_tagged(data, at, tag)
                at = stop
        kind = kind & 0xFFFFFFFF
        status = status & 0xFFFFFFFF
        name = self._text(name_at, name_size)
        if name_size > _MAX_TEXT:
            name = name[:_MAX_TEXT]
        key = (name, kind)
        operation = self.operations.get(key)
        if operation is None:
            operation = self.operations[key] = self.operation_of(name, kind)
        if not self.fixed and not self._fixed_columns(_SPAN_FIELDS, row):
            return False
        fixed = self.fixed
        cython.cast(list, fixed[0]).append(operation)
        cython.cast(list, fixed[1]).append(self.statuses[status if status < 3 else 0])
        cython.cast(list, fixed[2]).append(
            cython.cast(cython.double, ended - begun) / 1e6 if begun != 0 and ended >= begun else None
        )
        cython.cast(list, fixed[3]).append(data[trace_at : trace_at + trace_size] if trace_size else None)
        cython.cast(list, fixed[4]).append(data[span_at : span_at + span_size] if span_size else None)
        cython.cast(list, fixed[5]).append(data[parent_at : parent_at + parent_size] if parent_size else None)
        cython.cast(list, fixed[6]).append(exceptions)
        cython.cast(list, fixed[7]).append(self.scope)
        if ended == 0:
            ended = begun
        self.times.append(ended if ended < _MAX_TIME else _MAX_TIME)
        return True


@cython.cfunc
@cython.exceptval(check=False)
@cython.returns(cython.bint)
@cython.locals(data=cython.p_uchar, at=cython.Py_ssize_t, end=cython.Py_ssize_t, tag=cython.int)
@cython.locals(size=cython.ulonglong, name_at=cython.Py_ssize_t, name_size=cython.ulonglong, word=cython.p_uchar)
def _is_exception(data: Any, at: Any, end: Any) -> Any:
    """Return whether a span's event is of that name."""
    word = b"exception"
    name_at = 0
    name_size = 0
    while at < end:
        tag = data[at]
        at += 1
        if tag == 18:
            at, name_size = _varint(data, at)
            name_at = at
            at += cython.cast(cython.Py_ssize_t, name_size)
        else:
            at = _skip_tagged(data, at, tag)
    return name_size == 9 and _same(word, 0, data, name_at, 9)


# Of each kind of metric data that is read here, its field's tag in a `Metric`.
GAUGE = 42
SUM = 58
HISTOGRAM = 74
EXPONENTIAL_HISTOGRAM = 82
SUMMARY = 90


def metrics(payload: bytes, start: int, stop: int) -> list[tuple[str, str, int, int, bool, int, int]]:
    """Return the metrics of a `ScopeMetrics` that have data.

    Returns:
        Of each its name, unit, kind, aggregation temporality, whether it is monotonic, and where the message of its
        data begins and ends.
    """
    data: cython.p_uchar = payload
    at: cython.Py_ssize_t = start
    end: cython.Py_ssize_t = stop
    tag: cython.int
    size: cython.ulonglong
    found: list[Any] = []
    while at < end:
        tag = data[at]
        at += 1
        if tag != 18:
            at = _skip_tagged(data, at, tag)
            continue
        at, size = _varint(data, at)
        metric = _metric(payload, at, at + cython.cast(cython.Py_ssize_t, size))
        if metric is not None:
            found.append(metric)
        at += cython.cast(cython.Py_ssize_t, size)
    return found


@cython.cfunc
@cython.locals(payload=bytes, at=cython.Py_ssize_t, end=cython.Py_ssize_t, data=cython.p_uchar, tag=cython.int)
@cython.locals(size=cython.ulonglong, stop=cython.Py_ssize_t, kind=cython.int, data_at=cython.Py_ssize_t)
@cython.locals(data_end=cython.Py_ssize_t, temporality=cython.ulonglong, monotonic=cython.ulonglong)
def _metric(payload: Any, at: Any, end: Any) -> Any:
    data = payload
    name = unit = ""
    kind = 0
    data_at = data_end = 0
    temporality = monotonic = 0
    while at < end:
        tag = data[at]
        at += 1
        if tag >= 128 or (tag & 7) != 2:
            at = _skip_tagged(data, at, tag)
            continue
        at, size = _varint(data, at)
        stop = at + cython.cast(cython.Py_ssize_t, size)
        if tag == 10:
            name = payload[at:stop].decode("utf-8")
        elif tag == 26:
            unit = payload[at:stop].decode("utf-8")
        elif tag == 42 or tag == 58 or tag == 74 or tag == 82 or tag == 90:
            kind = tag
            data_at = at
            data_end = stop
        at = stop
    if kind == 0:
        return None
    at = data_at
    while at < data_end and kind != 90:
        tag = data[at]
        at += 1
        if tag == 16:
            at, temporality = _varint(data, at)
        elif tag == 24:
            at, monotonic = _varint(data, at)
        else:
            at = _skip_tagged(data, at, tag)
    return name, unit, kind, temporality & 0xFFFFFFFF, monotonic != 0, data_at, data_end


@cython.cclass
class PointReader:
    """Reads data points of gauges, sums and histograms into the fields that `windowing.metrics` names.

    Args:
        payload: A request that `check` is sure of.
        attributes_of: Returns of the attributes of a point, as they are on the wire, the names of their fields, the
            values and the text of the series.
        slow: Reads the data point with an index between two places of the payload.
    """

    payload = cython.declare(bytes)
    attributes_of = cython.declare(object)
    slow = cython.declare(object)

    def __init__(
        self,
        payload: bytes,
        attributes_of: Callable[[bytes], tuple[tuple[str, ...], tuple[Any, ...], str]],
        slow: Callable[[int, int, int], None],
    ) -> None:
        self.payload = payload
        self.attributes_of = attributes_of
        self.slow = slow

    @cython.locals(data=cython.p_uchar, at=cython.Py_ssize_t, end=cython.Py_ssize_t, tag=cython.int)
    @cython.locals(size=cython.ulonglong, beyond=cython.Py_ssize_t)
    def read(
        self,
        start: int,
        stop: int,
        item: int,
        kind: int,
        shared: tuple[Any, ...],
        fields: dict[str, list[Any]],
        items: list[int],
        times_unix_nano: list[int],
    ) -> int:
        """Read the data points of one metric.

        Args:
            start: Where the message of its data begins.
            stop: Where it ends.
            item: Index of the item before its first.
            kind: `GAUGE`, `SUM` or `HISTOGRAM`; data points of others are all left to `slow`.
            shared: What the fields `type`, `source`, `unit`, `temporality` and `monotonic` are to hold.
            fields: Columns by name.
            items: Index of each record so far.
            times_unix_nano: Time of each record so far.

        Returns:
            The index of its last item.
        """
        data = self.payload
        at = start
        end = stop
        while at < end:
            tag = data[at]
            at += 1
            if tag != 10:
                at = _skip_tagged(data, at, tag)
                continue
            at, size = _varint(data, at)
            beyond = at + cython.cast(cython.Py_ssize_t, size)
            item += 1
            if not self._point(at, beyond, kind, shared, fields, len(items), times_unix_nano):
                self.slow(item, at, beyond)
            else:
                items.append(item)
            at = beyond
        return item

    @cython.cfunc
    @cython.returns(cython.bint)
    @cython.exceptval(-1)
    @cython.locals(at=cython.Py_ssize_t, end=cython.Py_ssize_t, kind=cython.int, shared=tuple, fields=dict)
    @cython.locals(row=cython.Py_ssize_t, times=list, data=cython.p_uchar, tag=cython.int, size=cython.ulonglong)
    @cython.locals(time=cython.ulonglong, begun=cython.ulonglong, flags=cython.ulonglong, count=cython.ulonglong)
    @cython.locals(first=cython.Py_ssize_t, last=cython.Py_ssize_t, number_at=cython.Py_ssize_t, value_kind=cython.int)
    @cython.locals(begins=cython.Py_ssize_t, stop=cython.Py_ssize_t, attribute_tag=cython.int, names=tuple)
    @cython.locals(values=tuple, place=cython.Py_ssize_t, counts=list, bounds=list)
    def _point(self, at: Any, end: Any, kind: Any, shared: Any, fields: Any, row: Any, times: Any) -> Any:
        """Read one data point; False if that is left to `slow`, and nothing has changed."""
        if kind != 42 and kind != 58 and kind != 74:
            return False
        data = self.payload
        attribute_tag = 74 if kind == 74 else 58
        time = begun = flags = count = 0
        first = last = 0
        value_kind = 0
        number_at = 0
        counts = []
        bounds = []
        while at < end:
            begins = at
            tag = data[at]
            at += 1
            if tag == 17:
                begun = _fixed64(data, at)
                at += 8
            elif tag == 25:
                time = _fixed64(data, at)
                at += 8
            elif tag == attribute_tag:
                at, size = _varint(data, at)
                at += cython.cast(cython.Py_ssize_t, size)
                if last == 0:
                    first = begins
                elif last != begins:
                    return False  # attributes that do not stand together
                last = at
            elif kind == 74:
                if tag == 33:
                    count = _fixed64(data, at)
                    at += 8
                elif tag == 41:
                    value_kind = 41
                    number_at = at
                    at += 8
                elif tag == 50 or tag == 58:
                    at, size = _varint(data, at)
                    stop = at + cython.cast(cython.Py_ssize_t, size)
                    while at < stop:
                        if tag == 50:
                            counts.append(_fixed64(data, at))
                        else:
                            bounds.append(_double(data, at))
                        at += 8
                elif tag == 80:
                    at, flags = _varint(data, at)
                elif tag == 66 or tag == 49 or tag == 57:
                    return False  # exemplars, or lists that are not packed
                else:
                    at = _skip_tagged(data, at, tag)
            elif tag == 33 or tag == 49:
                value_kind = tag
                number_at = at
                at += 8
            elif tag == 64:
                at, flags = _varint(data, at)
            elif tag == 42:
                return False  # exemplars
            else:
                at = _skip_tagged(data, at, tag)
        names, values, series = self.attributes_of(data[first:last])
        if len(fields) + len(names) > _MAX_NAMED - 10 or len(names) > 64:
            # Near the bound on fields only what makes no new one is read here.
            for name in (*names, *(_HISTOGRAM_FIELDS if kind == 74 else _NUMBER_FIELDS)):
                if name not in fields:
                    return False
        for place in range(5):
            _put(fields, _SHARED_FIELDS[place], row, shared[place])
        for place in range(len(names)):
            _put(fields, names[place], row, values[place])
        _put(fields, "series", row, series)
        _put(fields, "start_time_unix_nano", row, begun)
        _put(fields, "no_recorded_value", row, flags & 1 != 0)
        if kind == 74:
            _put(fields, "count", row, count)
            _put(fields, "sum", row, _double(data, number_at) if value_kind else None)
            _put(fields, "bucket_counts", row, counts)
            _put(fields, "explicit_bounds", row, bounds)
        elif value_kind == 33:
            _put(fields, "value", row, _double(data, number_at))
        elif value_kind == 49:
            _put(fields, "value", row, _signed(_fixed64(data, number_at)))
        else:
            _put(fields, "value", row, None)
        times.append(time if time < _MAX_TIME else _MAX_TIME)
        return True


@cython.cfunc
@cython.locals(fields=dict, row=cython.Py_ssize_t, column=list)
def _put(fields: Any, name: Any, row: Any, value: Any) -> Any:
    """Append the value of a field, whose column is made or filled up as is needed."""
    column = fields.get(name)
    if column is None:
        column = fields[name] = [None] * row
    elif len(column) < row:
        column.extend([None] * (row - len(column)))
    column.append(value)


def collapse_digits(text: bytes) -> bytes:
    """Return a text with every run of ASCII digits as a single 0.

    >>> collapse_digits(b"took 1250 ms on 10.0.0.17")
    b'took 0 ms on 0.0.0.0'
    """
    data: cython.p_uchar = text
    size: cython.Py_ssize_t = len(text)
    kept = bytearray(size)
    into: cython.p_uchar = kept
    at: cython.Py_ssize_t
    end: cython.Py_ssize_t = 0
    byte: cython.uchar
    is_digit: cython.bint = False
    was_digit: cython.bint
    for at in range(size):
        byte = data[at]
        was_digit = is_digit
        is_digit = byte >= 0x30 and byte <= 0x39
        if is_digit:
            if was_digit:
                continue
            byte = 0x30
        into[end] = byte
        end += 1
    return bytes(kept[:end])
