"""The edge functions: their own tests in Deno, and Stripe's webhook through to the real tables."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from tests.supabase.database import PROJECT, run_file
from tests.supabase.postgrest import PUBLISHABLE_KEY, SECRET_KEY, gateway, token
from tests.supabase.test_billing import ORGANIZATION, checkout, subscription

FUNCTIONS = PROJECT / "functions"
DENO = FUNCTIONS / "node_modules" / ".bin" / "deno"

pytestmark = pytest.mark.skipif(not DENO.exists(), reason="Deno is not installed: make supabase-deno")


def deno(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [DENO, *arguments],
        cwd=FUNCTIONS,
        capture_output=True,
        text=True,
        timeout=100,
        env=surroundings(**environment),
        check=False,
    )


def surroundings(**more: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "NO_COLOR": "1", **more}


def test_the_functions_pass_their_own_tests() -> None:
    done = deno("test", "--allow-net=127.0.0.1", "--allow-env", "--no-remote", "tests")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"ok \| \d+ passed \| 0 failed", done.stdout)


def test_the_functions_are_formatted_and_without_findings() -> None:
    for command in (("fmt", "--check"), ("lint",), ("check", "stripe-webhook", "usage-report", "invite")):
        done = deno(*command)
        assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def served(name: str, **environment: str) -> Iterator[str]:
    """Serve a function on a free port."""
    command = [DENO, "run", "--allow-net", "--allow-env", "--no-remote", f"{name}/index.ts"]
    process = subprocess.Popen(
        command,
        cwd=FUNCTIONS,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=surroundings(DENO_SERVE_ADDRESS="tcp:127.0.0.1:0", **environment),
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
            if found:
                yield found[0]
                break
        else:
            raise AssertionError("the function did not start")
    finally:
        process.kill()
        process.communicate()


def deliver(url: str, event: object, secret: str) -> int:
    """Send a webhook as Stripe signs it; return the status."""
    body, now = json.dumps(event).encode(), str(int(time.time()))
    signature = hmac.new(secret.encode(), f"{now}.".encode() + body, hashlib.sha256).hexdigest()
    headers = {"stripe-signature": f"t={now},v1={signature}", "content-type": "application/json"}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=30) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_stripe_s_webhooks_reach_the_tables_once(database: str) -> None:
    with psycopg.connect(database) as connection:
        connection.execute("insert into organizations (id, slug, name) values (%s, 'acme', 'Acme')", [ORGANIZATION])
    with (
        gateway(database.replace("user=postgres", "user=authenticator")) as project,
        served(
            "stripe-webhook",
            SUPABASE_URL=project.url,
            SUPABASE_SECRET_KEYS=json.dumps({"default": SECRET_KEY}),
            STRIPE_WEBHOOK_SECRET="whsec_test",
        ) as url,
    ):
        active = subscription(2, "active", 1, plan="business")
        assert deliver(url, active, "whsec_test") == 500, "the checkout that says whose it is has not come"
        assert deliver(url, checkout(), "whsec_wrong") == 400
        assert deliver(url, checkout(), "whsec_test") == 200
        assert [deliver(url, active, "whsec_test") for _ in range(2)] == [200, 200]
    with psycopg.connect(database) as connection:
        assert connection.execute("select plan, estimated_cents from usage_this_month").fetchall() == [
            ("Business", 24900)
        ]
        assert connection.execute("select id from stripe_events order by 1").fetchall() == [("evt_1",), ("evt_2",)]


def test_members_through_supabase_js(database: str) -> None:
    with psycopg.connect(database) as connection:
        run_file(connection, PROJECT / "local" / "tap.sql")
        connection.execute((PROJECT / "tests" / "include" / "organizations.sql").read_bytes())
    users = {"VIEWER": "d", "OPERATOR": "c", "NEWCOMER": "f"}
    tokens = {
        f"CLIENT_TEST_{name}": token("authenticated", f"00000000-0000-4000-8000-00000000000{digit}")
        for name, digit in users.items()
    }
    with gateway(database.replace("user=postgres", "user=authenticator")) as project:
        done = deno(
            *("test", "--allow-net=127.0.0.1", "--allow-env", "--no-remote", "--no-check", "tests/client_test.ts"),
            CLIENT_TEST_URL=project.url,
            CLIENT_TEST_KEY=PUBLISHABLE_KEY,
            **tokens,
        )
    assert "ok | 4 passed | 0 failed" in done.stdout, done.stdout + done.stderr
