"""Which windows would have fired at another significance, from what is kept of them.

The bars are those of `policy`, with what moves them: the pace of the windows, and the alarms before.
What is not kept is not judged: single records with a bar of their own, and what the detector would
have learned, or not, had it alarmed otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence

from driftlock_otlp.detection.policy import AlarmPolicy
from driftlock_otlp.model import WindowFacts

_UNSCORED = "warming_up"


def fired(windows: Sequence[WindowFacts], configured: float, significance: float) -> list[bool]:
    """Return whether each window would have fired, alone or with one of those before it.

    Args:
        windows: Of one stream, oldest first.
        configured: Significance by the configuration, (0, 0.5).
        significance: That in its place, (0, 0.5).
    """
    policy = AlarmPolicy(configured)
    policy.set_significance(significance)
    found: list[bool] = []
    for facts in windows:
        policy.passed(facts.end_unix_nano)
        is_fired = facts.outcome != _UNSCORED and policy.is_window_alarm(facts.bits)
        if is_fired and not (found and found[-1]):
            policy.alarmed(is_of_records=False)
        policy.remember(0.0 if facts.outcome == _UNSCORED else facts.bits)
        found.append(is_fired)
    return found
