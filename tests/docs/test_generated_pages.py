"""The pages that follow from the code are up to date and complete."""

from __future__ import annotations

import pytest

from tests.docs.generate import DOCS, PAGES


@pytest.mark.parametrize("name", PAGES)
def test_generated_page_is_up_to_date(name: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == PAGES[name](), "stale: run `make docs`"


@pytest.mark.parametrize("name", PAGES)
def test_everything_on_a_generated_page_is_explained(name: str) -> None:
    assert [line for line in PAGES[name]().splitlines() if line.endswith("|  |")] == []
