"""The management API under schemathesis: `python -m tests.fuzz.api --seconds 60` (or `make api-fuzz`).

A sidecar is really started, with keys and with something to find. Requests are made up from the OpenAPI
that it serves, right and wrong ones; no answer may be a 5xx or say what its description does not.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from driftlock_otlp.auth.keys import KeyFile, Organization, new_key, write_key_file
from driftlock_otlp.auth.roles import Role
from driftlock_otlp.model import WindowFacts
from driftlock_otlp.storage import anomalies, incidents, suppressions, windows
from driftlock_otlp.storage.incidents import StoredIncident
from driftlock_otlp.storage.suppressions import FOR_GOOD, Suppression
from tests.e2e.sidecar import Sidecar
from tests.unit.api.v1.found import CHECKOUT, INCIDENT_ID, NOW, SUPPRESSION_ID, S, numbered

_ENDLESS = "/v1/anomalies/stream"
"""Its answer never ends; `test_live.py` reads it."""
_NOT_CHECKED = "positive_data_acceptance"
"""What fits the description may still be refused: an id that is not there, an end before its begin."""


def fill(sidecar: Sidecar) -> None:
    """Give it something to find, behind the API's back."""
    facts = [
        WindowFacts(CHECKOUT, NOW + n * S, NOW + n * S + 1, 50, "clean", 0.2, 0.5, 1.0, 0.9, 4.0, 4.0, 2.0, 2.0)
        for n in range(30)
    ]
    with sidecar.state() as connection:
        for number in range(1, 30):
            found = numbered(number, incident_id=INCIDENT_ID if number < 5 else "")
            anomalies.record(connection, found, NOW)
        windows.add(connection, facts)
        incidents.put(
            connection, StoredIncident(INCIDENT_ID, "acme", "page", "open", NOW, NOW, 0, numbered(1).id, "it fails")
        )
        suppressions.add(
            connection,
            Suppression(SUPPRESSION_ID, "acme", "pattern", "", "x", "", "", NOW, FOR_GOOD, "", "local", NOW),
        )


async def fuzz(directory: Path, arguments: Sequence[str], timeout_s: float) -> tuple[int, str]:
    """Run schemathesis against a sidecar of its own; return its exit code and what it said.

    Args:
        directory: Where everything is kept.
        arguments: Further arguments of `schemathesis run`.
        timeout_s: Longest run, in seconds.
    """
    key = new_key("fuzzer", datetime.now(UTC), None, Role.ADMIN)
    keys = directory / "keys.yaml"
    write_key_file(keys, KeyFile(organizations={"acme": Organization(keys=(key.stored,))}))
    (directory / "schemathesis.toml").write_text(f'[auth.openapi.HTTPBearer]\nbearer = "{key.text}"\n')
    settings = {"auth": {"keys_file": str(keys)}, "api": {"requests_per_second": 1e6}}
    sidecar = Sidecar(directory, None, settings)
    port = sidecar.api_port
    await sidecar.start()
    try:
        fill(sidecar)
        process = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).with_name("schemathesis")),
            "run",
            f"http://127.0.0.1:{port}/v1/openapi.json",
            *("--exclude-path", _ENDLESS),
            *("--exclude-checks", _NOT_CHECKED),
            *arguments,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=directory,
        )
        try:
            async with asyncio.timeout(timeout_s):
                output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert sidecar.is_running, sidecar.output[-4000:]
        errors = [line for line in sidecar.output.splitlines() if "request_failed" in line]
        assert not errors, errors[:3]
    finally:
        await sidecar.close()
    return process.returncode or 0, output.decode(errors="replace")


def main() -> int:
    """Fuzz for so many seconds; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int)
    arguments = parser.parse_args()
    chosen = ["--max-time", str(arguments.seconds), *(("--seed", str(arguments.seed)) if arguments.seed else ())]
    with tempfile.TemporaryDirectory() as directory:
        code, output = asyncio.run(fuzz(Path(directory), chosen, arguments.seconds * 2 + 120))
    print(output)
    return code


if __name__ == "__main__":
    sys.exit(main())
