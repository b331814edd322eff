"""What holds for every test: the surroundings do not decide, and chance can be repeated."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# A machine that is busy with other things is no fault of ours; a failing example is printed in
# a form that can be pasted to repeat it.
settings.register_profile(
    "driftlock", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow], database=None
)
settings.load_profile("driftlock")

# OpenTelemetry's variables of the shell would become settings of the sidecars and SDKs under test.
for _name in [name for name in os.environ if name.startswith("OTEL_")]:
    del os.environ[_name]
