"""Receivers with default settings."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.conformance.receivers import Receivers, running


@pytest_asyncio.fixture
async def receivers() -> AsyncIterator[Receivers]:
    async with running() as both:
        yield both
