"""Senders for tests of admission."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Organization:
    """Whose requests they are; by default one that may take all the room."""

    name: str = ""
    max_in_flight_bytes: int = 1 << 40
    in_flight_bytes: int = 0
