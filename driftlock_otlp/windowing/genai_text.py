"""What the text of a prompt or an answer looks like: structure, never the text itself.

Everything returned is a length, a share, a count, a class from a short list, or a number from a
small range into which texts are hashed. Of a long text only the beginning and the end are looked at.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

MAX_TEXT_CHARS = 4_096
"""Characters of a text that are looked at: half from its beginning, half from its end."""

OPENING_BUCKETS = 256
"""Openings are told apart by a number below this: too few to say which words they were."""

SHAPE_CLASSES = 13
"""Classes of characters between which transitions are counted."""

_LETTERS_FOR_LANGUAGE = 1_000
_OPENING_WORDS = 2
_DECLINING_WORDS = 16
_OPENING_CHARS = 200
_FEWEST_FUNCTION_WORDS = 2
_SHORT_CHARS = 40
_MOST_PER_TEXT = 255

# Words of high frequency that hardly any other of these languages has.
_FUNCTION_WORDS = {
    "en": "the and of to is that it with for was are this have from not be by which you would will been their has",
    "de": "der die und das ist nicht ein eine zu den mit sich auf für von dem wird werden auch ich sie wir kann",
    "fr": "le les des et une est dans pour qui sur pas ne vous nous avec ce au du cette sont être mais",
    "es": "el los las y una es en por con para como del está pero más su al lo usted esta puede",
    "it": "il gli di che è per non della sono con anche più questo alla nel dei si ma ho può",
    "pt": "os uma não em com você ao pelo mais são foi ele isso seu sua ou às também até",
    "nl": "het een van niet zijn voor met aan ook maar naar wordt deze heeft door kan dat wij ik",
    "pl": "nie się jest na że do jak ale przez tego czy dla był może tym są od już",
    "tr": "bir ve bu için ile çok daha değil olarak gibi ama olan var ne kadar sonra",
    "sv": "och att det som är på inte jag av för till den med om vi har ett kan",
}
_LANGUAGE_OF_WORD: dict[str, str] = {}
for _language, _words in _FUNCTION_WORDS.items():
    for _word in _words.split():
        # A word of two of the languages tells neither.
        _LANGUAGE_OF_WORD[_word] = "" if _word in _LANGUAGE_OF_WORD else _language

_SCRIPTS = {
    "cyrillic": "\u0400-\u052f",
    "greek": "\u0370-\u03ff",
    "arabic": "\u0600-\u06ff\u0750-\u077f",
    "hebrew": "\u0590-\u05ff",
    "devanagari": "\u0900-\u097f",
    "kana": "\u3040-\u30ff",
    "han": "\u4e00-\u9fff\u3400-\u4dbf",
    "hangul": "\uac00-\ud7af",
    "thai": "\u0e00-\u0e7f",
}
_SCRIPT_PATTERNS = {name: re.compile(f"[{ranges}]") for name, ranges in _SCRIPTS.items()}
_LATIN = re.compile(r"[A-Za-z\u00c0-\u024f]")
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")

# What people do not type: controls, invisible and direction-changing characters, private use, tags.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff"
    "\ue000-\uf8ff\U000e0000-\U000e007f]"
)
_LONG_TOKEN = re.compile(r"[A-Za-z0-9+/_-]{32,}={0,2}")
_ESCAPES = re.compile(r"(?:\\x[0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|%[0-9a-fA-F]{2}|&#x?[0-9a-fA-F]{1,6};){8,}")
_ESCAPING = re.compile(r"[\\%&]")
_HEXADECIMAL = re.compile(r"[0-9a-fA-F]+")

# Text that plays another role than its own: turns of a conversation, delimiters of chat templates. This
# pattern and the next are for text in lower case, which is twice as fast as to ignore it.
_MARKERS = re.compile(
    r"^[ \t>*#-]*(?:system|assistant|developer|user|human|tool)(?:[ \t]+(?:prompt|message|instructions?|note))?"
    r"[ \t*]*:"
    r"|<\|[^|<>\n]{1,40}\|>"
    r"|\[/?(?:inst|sys|system)\]|<</?sys>>"
    r"|</?(?:system|assistant|developer|instructions?|prompt|tool_calls?|function_calls?)\b[^>\n]{0,40}>"
    r"|^[ \t]*(?:-{3,}|={3,}|#{2,})[ \t]*(?:begin|end|new|start)\b[^\n]{0,40}(?:instruction|prompt|system|message)"
    r"|\"role\"\s*:\s*\"(?:system|assistant|developer)\"",
    re.MULTILINE,
)
# Text about the conversation itself, addressed to whoever answers. One indicator beside structural ones.
_ORDERS = re.compile(
    r"\b(?:ignor|disregard|forget|overrid|bypass|overrul|neglect|vergiss|oublie|olvid)\w*\b"
    r"(?:\W+\w+){0,6}?\W+(?:instruct|instrucc|anweisung|rule|prompt|guideline|polic|direct|restrict|constraint"
    r"|safet|message|context)\w*"
    r"|\b(?:reveal|print|repeat|disclos|leak|output|show|send|forward|exfiltrat|post|upload)\w*\b"
    r"(?:\W+\w+){0,6}?\W+(?:system\W+prompt|instructions|secret|password|credential|api\W?key|token|confidential"
    r"|private\W+key|conversation)\w*"
    r"|\byou\W+are\W+(?:now|no\W+longer)\b|\bfrom\W+now\W+on\b|\bnew\W+instructions?\b|\bdeveloper\W+mode\b"
    r"|\bdo\W+not\W+(?:tell|mention|inform|reveal)\b(?:\W+\w+){0,4}?\W+(?:user|anyone|this)\b",
)
_DECLINES = re.compile(
    r"\b(?:sorry|apologi[sz]e|unfortunately|unable|cannot|can['’]?t|won['’]?t"
    r"|not (?:able|allowed|permitted|comfortable)|decline|against my|as an ai"
    r"|leider|désolé|no puedo|lo siento|mi dispiace|não posso|nie mogę)\b"
)
_FIRST_PERSON = re.compile(r"\b(?:i|i['’]m|i['’]ll|we|my|ich|je|yo|mi|eu)\b")
_LIST_LINE = re.compile(r"^[ \t]*(?:[-*+•]|\d{1,3}[.)]|#{1,6}|\|)[ \t]", re.MULTILINE)
_TAG = re.compile(r"</?[A-Za-z][\w:-]*(?:\s[^<>]*)?/?>")
_ENDING = tuple(".!?…。！？:;)]}>\"'”’»`*|~_")


def _shape_table() -> bytes:
    table = bytearray([12] * 256)  # parts of characters beyond ASCII
    classes = (
        "abcdefghijklmnopqrstuvwxyz",
        "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        "0123456789",
        " \t",
        "\n\r",
        ".!?",
        ",;:",
        "\"'`",
        "()[]{}",
        "<>|#*_~",
        "+-=/\\%&@$^",
    )
    for number, characters in enumerate(classes):
        for character in characters:
            table[ord(character)] = number
    for code in (*range(9), 11, 12, *range(14, 32), 127):
        table[code] = 11
    return bytes(table)


_SHAPE_TABLE = _shape_table()


@dataclass(frozen=True, slots=True)
class TextTraits:
    """The structure of a text.

    Attributes:
        length: Characters of the whole text.
        format: `empty`, `json`, `json_broken` (begins like it), `code` (fenced), `markup`, `markdown`,
            `prose` or `line` (short).
        language: A language by its function words, else a script, `none` without letters.
        blob_percent: Share of encoded-looking runs (base64, hexadecimal, escapes), percent.
        hidden: Invisible and control characters.
        markers: Marks of other roles and chat templates.
        orders: Phrases about the conversation's own instructions.
        opening: Number of its first words, below `OPENING_BUCKETS`; -1 without words.
        declines: Whether the opening speaks in the first person of not doing something.
        is_cut: Whether it ends within a sentence or structure.
        shape: uint8, (169,) as bytes: transitions between classes of characters, each at most 255.
    """

    length: int
    format: str
    language: str
    blob_percent: float
    hidden: int
    markers: int
    orders: int
    opening: int
    declines: bool
    is_cut: bool
    shape: bytes


def traits_of(text: str) -> TextTraits:
    """Return the structure of a text; time is bounded by `MAX_TEXT_CHARS`."""
    length = len(text)
    seen = text
    if length > MAX_TEXT_CHARS:
        half = MAX_TEXT_CHARS // 2
        seen = f"{text[:half]}\n{text[-half:]}"
    kind = format_of(text, seen)
    lower = seen.lower()
    words = _WORD.findall(lower[:_OPENING_CHARS])[:_DECLINING_WORDS]
    opening = " ".join(words[:_OPENING_WORDS])
    start = " ".join(words)
    stripped = seen.rstrip()
    return TextTraits(
        length=length,
        format=kind,
        language=language_of(seen),
        blob_percent=round(100.0 * _blob_chars(seen) / len(seen), 2) if seen else 0.0,
        hidden=min(len(_HIDDEN.findall(seen)), _MOST_PER_TEXT),
        markers=min(len(_MARKERS.findall(lower)), _MOST_PER_TEXT),
        orders=min(len(_ORDERS.findall(lower)), _MOST_PER_TEXT),
        opening=bucket(opening, OPENING_BUCKETS) if opening else -1,
        declines=kind in ("prose", "line") and bool(_DECLINES.search(start)) and bool(_FIRST_PERSON.search(start)),
        is_cut=bool(stripped) and (kind == "json_broken" or not stripped.endswith(_ENDING)),
        shape=shape_of(seen),
    )


def format_of(text: str, seen: str) -> str:
    """Return the class of a text's format.

    Args:
        text: The whole text, for what must be parsed whole.
        seen: The part of it that is looked at.
    """
    stripped = seen.strip()
    if not stripped:
        return "empty"
    if stripped[0] in "{[" and len(stripped) > 1 and stripped[1:].lstrip()[:1] in ('"', "{", "[", "}", "]", "'"):
        try:
            msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError):
            return "json_broken"
        return "json"
    if "```" in stripped:
        return "code"
    if stripped[0] == "<" and len(_TAG.findall(stripped)) > 1:
        return "markup"
    if len(_LIST_LINE.findall(stripped)) > 1:
        return "markdown"
    return "line" if len(stripped) < _SHORT_CHARS else "prose"


def language_of(text: str) -> str:
    """Return the language that a text's function words tell, else its script; `none` without letters.

    >>> language_of("the weather is fine"), language_of("погода"), language_of("42")
    ('en', 'cyrillic', 'none')
    """
    seen = text[:_LETTERS_FOR_LANGUAGE]
    if not seen.isascii():
        counts = {name: len(pattern.findall(seen)) for name, pattern in _SCRIPT_PATTERNS.items()}
        script = max(counts, key=lambda name: counts[name])
        if counts[script] > len(_LATIN.findall(seen)):
            return "han" if script == "kana" else script  # Japanese is written in both
    found: dict[str, int] = {}
    letters = False
    for word in _WORD.findall(seen):
        letters = True
        language = _LANGUAGE_OF_WORD.get(word.lower())
        if language:
            found[language] = found.get(language, 0) + 1
    if not letters:
        return "none"
    best = max(found, key=lambda name: found[name], default="")
    return best if best and found[best] >= _FEWEST_FUNCTION_WORDS else "latin"


def shape_of(text: str) -> bytes:
    """Return how often each class of characters follows each other one, as 169 bytes of at most 255.

    Runs of one class count once, so that words and numbers weigh the same whatever their length.
    """
    classes = np.frombuffer(text.encode("utf-8", "replace").translate(_SHAPE_TABLE), dtype=np.uint8)
    if len(classes) < 2:
        return bytes(SHAPE_CLASSES**2)
    runs = classes[np.flatnonzero(np.append(True, classes[1:] != classes[:-1]))].astype(np.int64)
    counts = np.bincount(runs[:-1] * SHAPE_CLASSES + runs[1:], minlength=SHAPE_CLASSES**2)
    return np.minimum(counts, _MOST_PER_TEXT).astype(np.uint8).tobytes()


def bucket(text: str, buckets: int) -> int:
    """Return a number below `buckets` that equal texts share, runs of digits counting as one."""
    masked = re.sub(r"\d+", "0", " ".join(text.split()))
    return zlib.crc32(masked.encode("utf-8", "replace")) % buckets


def _blob_chars(text: str) -> int:
    total = sum(len(match[0]) for match in _ESCAPES.finditer(text)) if _ESCAPING.search(text) else 0
    for match in _LONG_TOKEN.finditer(text):
        token = match[0]
        if _HEXADECIMAL.fullmatch(token) or (
            any(map(str.isdigit, token)) and token != token.lower() and token != token.upper()
        ):
            total += len(token)
    return total


class ShapeModel:
    """The stream's own texts as transitions between classes of characters, and what a new text costs.

    The code is that of an adaptive model that starts with half a count for each transition and
    forgets slowly; see `detection/codelength.py`.
    """

    _MOST_TRANSITIONS = 200_000.0

    def __init__(self, counts: bytes = b"") -> None:
        size = SHAPE_CLASSES
        stored = np.frombuffer(counts, dtype="<f8") if counts else np.zeros(size * size)
        self._counts: npt.NDArray[np.float64] = stored.reshape(size, size).copy()

    def bits(self, shapes: list[bytes | None]) -> list[float | None]:
        """Return bits per transition of each text under what earlier windows held; None where there is no text."""
        rows = [row for row, shape in enumerate(shapes) if shape]
        result: list[float | None] = [None] * len(shapes)
        if not rows:
            return result
        own = np.frombuffer(b"".join(shapes[row] or b"" for row in rows), dtype=np.uint8)
        own = own.reshape(len(rows), SHAPE_CLASSES * SHAPE_CLASSES).astype(np.float64)
        likely = (self._counts + 0.5) / (self._counts.sum(axis=1, keepdims=True) + SHAPE_CLASSES / 2)
        spent = own @ -np.log2(likely).ravel()
        transitions = own.sum(axis=1)
        for row, bits, count in zip(rows, spent.tolist(), transitions.tolist(), strict=True):
            if count > 0:
                result[row] = bits / count
        self._counts += own.sum(axis=0).reshape(SHAPE_CLASSES, SHAPE_CLASSES)
        total = float(self._counts.sum())
        if total > self._MOST_TRANSITIONS:
            self._counts *= 0.5
        return result

    def state(self) -> bytes:
        """Return everything remembered."""
        return self._counts.astype("<f8").tobytes()
