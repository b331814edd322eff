"""Every input of the checked-in corpus, through the function that the fuzzer calls; needs no fuzzer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.targets import CORPUS, TARGETS, corpus_of

_INPUTS = [(name, path) for name in TARGETS for path in corpus_of(name)]


@pytest.mark.parametrize(("name", "path"), _INPUTS, ids=lambda value: value.name if isinstance(value, Path) else value)
def test_input_breaks_no_promise(name: str, path: Path) -> None:
    TARGETS[name].check(path.read_bytes())


def test_every_target_has_a_corpus_and_every_corpus_a_target() -> None:
    assert {folder.name for folder in CORPUS.iterdir() if any(folder.iterdir())} == set(TARGETS)
