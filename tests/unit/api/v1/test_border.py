"""What every request passes: who may knock, ids, sizes, and errors as problems of RFC 9457."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import structlog.testing

from driftlock_otlp.auth.roles import Role
from driftlock_otlp.storage.state import StateDatabase
from tests.unit.api.v1.api import Api, new_api


def assert_problem(answer: Any, status: int) -> None:
    assert answer.status == status, answer.body
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json["status"] == status
    assert answer.json["title"] and answer.json["detail"]
    assert answer.json["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("peer", "host"),
    [("127.0.0.1", "127.0.0.1:8080"), ("::1", "[::1]:8080"), ("::ffff:127.0.0.1", "localhost"), (None, "anything")],
)
async def test_without_keys_this_machine_is_answered(api: Api, peer: str | None, host: str) -> None:
    answer = await api.get("/v1/version", peer=peer, headers={"host": host})
    assert (answer.status, answer.json) == (200, {"version": "1.2.3"})


@pytest.mark.parametrize(
    ("peer", "headers"),
    [
        ("192.0.2.7", {}),
        ("2001:db8::1", {}),
        ("127.0.0.1", {"host": "rebound.example:8080"}),
        ("127.0.0.1", {"host": "127.0.0.1.rebound.example"}),
        ("127.0.0.1", {"host": "[oops"}),
        ("127.0.0.1", {"origin": "https://elsewhere.example"}),
        ("127.0.0.1", {"origin": "null"}),
    ],
)
async def test_without_keys_nobody_else_is_answered(api: Api, peer: str, headers: dict[str, str]) -> None:
    for path in ("/v1/version", "/v1/openapi.json", "/v1/docs", "/v1/nothing"):
        assert_problem(await api.get(path, peer=peer, headers=headers), 403)


async def test_with_keys_a_request_may_come_from_anywhere(keyed: Api) -> None:
    key = keyed.keys["acme", Role.VIEWER]
    answer = await keyed.get("/v1/version", key=key, peer="192.0.2.7", headers={"host": "api.example"})
    assert answer.status == 200
    shown = await keyed.get("/v1/version", headers={"x-api-key": key})
    assert shown.status == 200


@pytest.mark.parametrize("key", ["", "dl_000000000000_" + "A" * 43, "nonsense"])
async def test_with_keys_one_is_needed_before_anything_else_is_looked_at(keyed: Api, key: str) -> None:
    for method, path, body in (("GET", "/v1/version", None), ("GET", "/v1/nothing", None), ("POST", "/v1/usage", b"{")):
        answer = await keyed.call(method, path, body, key=key)
        assert_problem(answer, 401)
        assert answer.headers["www-authenticate"] == "Bearer"


async def test_the_description_is_the_same_for_everybody_and_needs_no_key(keyed: Api) -> None:
    for path in ("/v1/openapi.json", "/v1/docs", "/v1/docs.css"):
        assert (await keyed.get(path, peer="192.0.2.7")).status == 200


async def test_an_organisation_that_asks_too_often_is_told_when_to_come_back(
    state: StateDatabase, tmp_path: Path
) -> None:
    now_s = 100.0
    api = new_api(state, tmp_path / "keys.yaml", requests_per_second=0.5, clock_s=lambda: now_s)
    key = api.keys["acme", Role.VIEWER]
    answers = [await api.get("/v1/version", key=key) for _ in range(6)]
    assert [answer.status for answer in answers] == [200] * 5 + [429]
    assert_problem(answers[-1], 429)
    assert answers[-1].headers["retry-after"] == "2"
    assert (await api.get("/v1/version", key=api.keys["globex", Role.VIEWER])).status == 200
    now_s += 2.0
    assert (await api.get("/v1/version", key=key)).status == 200


async def test_what_is_not_there_and_what_is_not_served_are_problems(api: Api) -> None:
    assert_problem(await api.get("/v1/nothing"), 404)
    refused = await api.call("DELETE", "/v1/version")
    assert_problem(refused, 405)
    assert refused.headers["allow"] == "GET"
    assert (await api.call("PUT", "/v1/suppressions")).headers["allow"] == "GET, POST"
    assert (await api.call("PUT", "/v1/docs")).headers["allow"] == "GET"


async def test_each_mistake_in_a_request_is_named_and_not_repeated(api: Api) -> None:
    answer = await api.get("/v1/usage?limit=many&since=yesterday&by=week")
    assert_problem(answer, 422)
    assert {item["where"] for item in answer.json["errors"]} == {"query.limit", "query.since", "query.by"}
    assert b"yesterday" not in answer.body


async def test_a_request_keeps_the_id_it_came_with_if_that_can_be_one(api: Api) -> None:
    assert (await api.get("/v1/version", headers={"x-request-id": "a-1"})).headers["x-request-id"] == "a-1"
    for odd in ("", "a b", "x" * 65, "é"):
        assert (await api.get("/v1/version", headers={"x-request-id": odd})).headers["x-request-id"] != odd


async def test_a_body_that_is_too_long_is_refused_whether_it_says_so_or_not(api: Api) -> None:
    body = b" " * ((1 << 20) + 1)
    assert_problem(await api.call("POST", "/v1/version", body), 413)


async def test_a_failure_inside_is_a_problem_that_says_nothing_and_is_counted(api: Api) -> None:
    async def fail() -> Any:
        raise ZeroDivisionError("secret")

    api.workers.look = fail  # type: ignore[method-assign]
    with structlog.testing.capture_logs() as logs:
        answer = await api.get("/v1/streams")
    assert [line["event"] for line in logs] == ["request_failed"]
    assert_problem(answer, 500)
    assert b"secret" not in answer.body
    assert api.metrics.errors.labels("api")._value.get() == 1


async def test_a_database_that_cannot_be_read_asks_to_come_back(api: Api, state: StateDatabase) -> None:
    state.close()
    answer = await api.get("/v1/usage")
    assert_problem(answer, 503)
    assert int(answer.headers["retry-after"]) >= 1


async def test_browsers_are_told_to_load_nothing_from_elsewhere_and_to_keep_nothing(api: Api) -> None:
    page = await api.get("/v1/docs")
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert page.headers["cache-control"] == "no-store"
    assert b"//" not in page.body.replace(b"http://127.0.0.1:8080", b"")
    assert b"<script" not in page.body


async def test_the_page_shows_every_route_with_a_command_for_it(api: Api) -> None:
    page = (await api.get("/v1/docs")).body.decode()
    for path, operations in (await api.get("/v1/openapi.json")).json["paths"].items():
        for operation in operations.values():
            assert f'id="{operation["operationId"]}"' in page
            assert f"http://127.0.0.1:8080{path}" in page
    assert "\N{REPLACEMENT CHARACTER}" not in page
