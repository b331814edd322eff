"""What holds for every test: the surroundings do not decide, and chance can be repeated."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# A machine that is busy with other things is no fault of ours; a failing example is printed in
# a form that can be pasted to repeat it. The same commit draws the same examples;
# `--hypothesis-profile explore` draws others each time.
settings.register_profile(
    "driftlock",
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
    database=None,
    derandomize=True,
)
settings.register_profile("explore", settings.get_profile("driftlock"), derandomize=False)
settings.load_profile("driftlock")

# OpenTelemetry's variables of the shell would become settings of the sidecars and SDKs under test.
for _name in [name for name in os.environ if name.startswith("OTEL_")]:
    del os.environ[_name]
