from __future__ import annotations

from tests.conformance import items, report


def test_items_are_numbered_without_a_gap_and_sections_cover_them() -> None:
    numbers = [item.number for item in items.ITEMS]
    assert numbers == list(range(1, 99))
    assert [number for _, first, last in items.SECTIONS for number in range(first, last + 1)] == numbers


def test_every_item_that_applies_has_a_test_and_every_other_a_reason() -> None:
    tested = report.tested_items()
    for item in items.ITEMS:
        assert (item.number in tested) if item.applies else item.remark, item


def test_page_is_up_to_date() -> None:
    expected = report.table(report.tested_items(), {})
    assert report.PAGE.read_text(encoding="utf-8").startswith(expected), "run `make conformance`"
