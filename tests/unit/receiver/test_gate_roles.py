"""Only keys that are there to send with may send."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from driftlock_otlp.auth.keys import KeyFile, Organization, new_key, write_key_file
from driftlock_otlp.auth.roles import Role
from driftlock_otlp.config.receivers import AuthConfig
from driftlock_otlp.errors import ForbiddenError
from driftlock_otlp.observability.metrics import Metrics
from driftlock_otlp.otlp.responses import Encoding, grpc_failure, http_failure
from driftlock_otlp.receiver.gate import Gate


@pytest.mark.parametrize("role", Role)
def test_senders_and_admins_may_send_and_others_may_not(tmp_path: Path, role: Role) -> None:
    key = new_key("", datetime.now(UTC), None, role)
    write_key_file(tmp_path / "keys.yaml", KeyFile(organizations={"acme": Organization(keys=(key.stored,))}))
    gate = Gate(AuthConfig(keys_file=tmp_path / "keys.yaml"), 1 << 20, Metrics())
    if role in {Role.SENDER, Role.ADMIN}:
        assert gate.authenticate(None, key.text).name == "acme"
        return
    with pytest.raises(ForbiddenError, match="may not send telemetry") as refused:
        gate.authenticate(f"Bearer {key.text}", None)
    assert http_failure(refused.value, Encoding.JSON).status == 403
    assert grpc_failure(refused.value).code.name == "PERMISSION_DENIED"
