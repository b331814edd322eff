"""How inputs are laid out: the first byte chooses, the rest is what is read."""

from __future__ import annotations

from driftlock_otlp.model import Signal

_SIGNALS = {signal.plural[0]: signal for signal in Signal}


def signal_and_rest(data: bytes) -> tuple[Signal, bytes]:
    """Return the signal that the first byte tells (`l`, `m`, `t`; others by remainder) and what follows it."""
    first = data[:1] or b"l"
    signal = _SIGNALS.get(first.decode("latin-1"))
    return signal or list(Signal)[first[0] % len(Signal)], data[1:]
