"""Evidence on paper, made beside the sidecar; it takes seconds, since a process of its own loads what draws."""

from __future__ import annotations

import asyncio

from driftlock_otlp.api.evidence_process import evidence_pdf_of
from tests.unit.windowing.test_evidence import bundle_of


async def test_a_bundle_becomes_a_document_and_the_loop_goes_on_meanwhile() -> None:
    making = asyncio.create_task(evidence_pdf_of(bundle_of("metrics")))
    turns = 0
    while not making.done():
        await asyncio.sleep(0.01)
        turns += 1
    assert making.result().startswith(b"%PDF-")
    assert turns > 10
