"""Sidecars and destinations, as the end-to-end tests make them."""

from __future__ import annotations

from tests.e2e.conftest import new_sidecar, sink

__all__ = ["new_sidecar", "sink"]
