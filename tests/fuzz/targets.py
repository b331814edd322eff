"""The targets by name: what each reads and which modules' branches guide the search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz import (
    target_decode,
    target_extraction,
    target_http_body,
    target_http_connection,
    target_json_mapping,
)

CORPUS = Path(__file__).parent / "corpus"


@dataclass(frozen=True, slots=True)
class Target:
    """One thing to fuzz.

    Attributes:
        check: Takes an input; raises if a promise is broken.
        words: What the inputs are made of, for the dictionary: `json`, `http`, or nothing.
        is_protobuf: Whether an input is a byte that tells the signal, and a request of it.
    """

    check: Callable[[bytes], None]
    words: str = ""
    is_protobuf: bool = False


TARGETS = {
    "decode": Target(target_decode.check, is_protobuf=True),
    "extraction": Target(target_extraction.check, is_protobuf=True),
    "http_body": Target(target_http_body.check),
    "http_connection": Target(target_http_connection.check, words="http"),
    "json_mapping": Target(target_json_mapping.check, words="json"),
}


def corpus_of(name: str) -> list[Path]:
    """Return the checked-in inputs of a target."""
    return sorted((CORPUS / name).iterdir())
