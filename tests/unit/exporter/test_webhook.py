"""Webhooks: what they are told, signed, retried, and each for itself."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from driftlock_otlp.config.exporters import RetryConfig
from driftlock_otlp.config.file import load
from driftlock_otlp.config.webhooks import WebhookConfig
from driftlock_otlp.errors import ConfigError, DownstreamRejectedError, DownstreamUnavailableError
from driftlock_otlp.exporter import webhook_payloads
from driftlock_otlp.exporter.announcements import Announcements
from driftlock_otlp.exporter.anomaly_events import EventSender
from driftlock_otlp.exporter.delivery import Deliverer
from driftlock_otlp.exporter.webhook import Webhook, signature
from driftlock_otlp.model import Signal
from driftlock_otlp.observability.metrics import Metrics
from driftlock_otlp.storage import outbox
from driftlock_otlp.storage.incidents import StoredIncident
from driftlock_otlp.storage.state import StateDatabase
from tests.doubles.webhook_receiver import WebhookReceiver, documented_check
from tests.unit.storage.test_anomalies import ANOMALY

SECRET = "whsec_0123456789"
INCIDENT = StoredIncident(
    id="5e" * 16,
    tenant="acme",
    level="page",
    state="open",
    started_unix_nano=1_700_000_000_250_000_000,
    last_unix_nano=1_700_000_010_000_000_000,
    resolved_unix_nano=0,
    origin_anomaly_id=ANOMALY.id,
    title="checkout: <b> & “neu”",
)
QUICK = RetryConfig(initial_interval=0.01, max_interval=0.02)


def test_the_check_that_people_are_told_to_use_takes_ours_and_refuses_all_others() -> None:
    check, body, now = documented_check(), b'{"id":"1"}', 1_700_000_000
    header = signature(SECRET, now, body)
    assert check(SECRET, header, body, now + 299)
    assert not check(SECRET, header, body, now + 301)
    assert not check(SECRET, header, body, now - 301)
    assert not check(SECRET, header, body + b" ", now)
    assert not check("other", header, body, now)
    assert not check(SECRET, header.replace("t=17", "t=18"), body, 1_800_000_000)
    for strange in ("", "t=,v1=", "v1=" + "0" * 64, "t=x,v1=y", ","):
        assert not check(SECRET, strange, body, now)


def test_driftlock_format_tells_what_changed_and_which_anomaly_did_it() -> None:
    told: dict[str, Any] = json.loads(
        webhook_payloads.body(webhook_payloads.driftlock, "c1", INCIDENT, "opened", ANOMALY)
    )
    assert (told["id"], told["type"]) == ("c1", "incident.opened")
    assert told["incident"]["started"] == "2023-11-14T22:13:20.250000Z"
    assert told["incident"]["resolved"] is None
    assert told["incident"]["title"] == INCIDENT.title
    assert (told["anomaly"]["id"], told["anomaly"]["kind"], told["anomaly"]["severity"]) == (ANOMALY.id, "logs", "high")


def test_slack_message_is_escaped_and_short_enough() -> None:
    told = webhook_payloads.slack("c1", replace(INCIDENT, title="<!channel> & " + "x" * 9999), "opened", ANOMALY)
    assert "&lt;!channel&gt; &amp; x" in told["text"]
    assert "<" not in told["text"]
    assert len(told["blocks"][0]["text"]["text"]) <= 3000
    assert webhook_payloads.slack("c1", INCIDENT, "resolved", ANOMALY)["text"].startswith(":white_check_mark:")


def test_pagerduty_alert_is_triggered_updated_and_resolved_under_one_key() -> None:
    make = partial(webhook_payloads.pagerduty, "c1")
    opened = make(replace(INCIDENT, title="x" * 5000), "opened", ANOMALY)
    assert (opened["event_action"], opened["dedup_key"]) == ("trigger", INCIDENT.id)
    assert len(opened["payload"]["summary"]) == 1024
    assert (opened["payload"]["severity"], opened["payload"]["source"]) == ("error", "checkout")
    assert make(INCIDENT, "raised", ANOMALY)["dedup_key"] == INCIDENT.id
    assert make(INCIDENT, "resolved", ANOMALY) == {"event_action": "resolve", "dedup_key": INCIDENT.id}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["webhooks.ops.level=page"], "url is missing"),
        (["webhooks.ops.url=hooks.example.com"], "no URL to call"),
        (["webhooks.ops.format=pagerduty"], "routing_key is missing"),
        (["webhooks.ops.url=http://h", "webhooks.ops.level=loud"], "level"),
    ],
)
def test_webhook_that_could_not_be_called_is_refused_at_the_start(settings: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(None, settings, environ={})


def test_secrets_are_not_shown() -> None:
    config = WebhookConfig(url="https://hooks.slack.com/services/T0/B0/token", secret=SECRET, routing_key="r" * 32)
    shown = config.model_dump_json() + repr(config)
    assert "token" not in shown
    assert SECRET not in shown
    assert "rrr" not in shown


async def test_calls_are_signed_and_the_routing_key_is_added_on_the_way() -> None:
    async with WebhookReceiver(SECRET) as receiver:
        hook = Webhook("ops", WebhookConfig(url=receiver.url, secret=SECRET, routing_key="rk", format="pagerduty"))
        await hook.export(Signal.LOGS, b'{"event_action":"trigger"}')
        forger = Webhook("ops", WebhookConfig(url=receiver.url, secret="other"))
        with pytest.raises(DownstreamRejectedError, match=r"webhook:ops: 127\.0\.0\.1 answered HTTP 401"):
            await forger.export(Signal.LOGS, b"{}")
        old = Webhook("ops", WebhookConfig(url=receiver.url, secret=SECRET), lambda: time.time_ns() - 400 * 10**9)
        with pytest.raises(DownstreamRejectedError):
            await old.export(Signal.LOGS, b"{}")
        assert receiver.calls == [{"routing_key": "rk", "event_action": "trigger"}]
        assert receiver.refused == 2
        for each in (hook, forger, old):
            await each.close()
        with pytest.raises(DownstreamUnavailableError, match="closed"):
            await hook.export(Signal.LOGS, b"{}")


@pytest.mark.parametrize("status", [301, 400, 404, 410])
async def test_refusal_is_final(status: int) -> None:
    async with WebhookReceiver() as receiver:
        receiver.answer_next(status)
        hook = Webhook("ops", WebhookConfig(url=receiver.url))
        with pytest.raises(DownstreamRejectedError, match=str(status)):
            await hook.export(Signal.LOGS, b"{}")
        await hook.close()


@pytest.mark.parametrize("status", [408, 425, 429, 500, 503])
async def test_passing_failure_may_be_tried_again_when_the_receiver_says(status: int) -> None:
    async with WebhookReceiver() as receiver:
        receiver.answer_next(status, Retry_After="7")
        hook = Webhook("ops", WebhookConfig(url=receiver.url))
        with pytest.raises(DownstreamUnavailableError) as failure:
            await hook.export(Signal.LOGS, b"{}")
        assert failure.value.retry_after_s == 7.0
        await hook.close()


async def test_failing_connection_does_not_tell_the_secret_url() -> None:
    async with WebhookReceiver() as receiver:
        url = receiver.url.replace("/hook", "/services/token")
    hook = Webhook("ops", WebhookConfig(url=url))
    with pytest.raises(DownstreamUnavailableError) as failure:
        await hook.export(Signal.LOGS, b"{}")
    assert "token" not in str(failure.value)
    await hook.close()


class Bench:
    """A state database, webhooks, and what is told to them."""

    def __init__(self, path: Path, webhooks: dict[str, WebhookConfig]) -> None:
        self.path, self.webhooks, self.metrics = path, webhooks, Metrics()
        self.announcements = Announcements([], webhooks, "1", time.time_ns)
        self.state = StateDatabase(path, durability="os")
        self.state.open()
        self.senders = [
            EventSender(
                Deliverer(Webhook(name, config), config.retry_on_failure, self.metrics), self.state, self.metrics
            )
            for name, config in webhooks.items()
        ]

    async def tell(self, incident: StoredIncident, change: str) -> None:
        await self.state.write(lambda c: self.announcements.incident(c, incident, change, ANOMALY))

    async def __aenter__(self) -> Bench:
        for sender in self.senders:
            await sender.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(sender.stop(0.2) for sender in self.senders))
        self.state.close()


async def test_each_is_called_from_its_level_on_and_once_for_each_change(tmp_path: Path) -> None:
    async with WebhookReceiver() as quiet, WebhookReceiver() as loud:
        hooks = {
            "quiet": WebhookConfig(url=quiet.url, level="page"),
            "loud": WebhookConfig(url=loud.url, level="notice"),
        }
        async with Bench(tmp_path / "state.db", hooks) as bench:
            notice = replace(INCIDENT, level="notice")
            for _ in range(2):  # a repeat is harmless
                await bench.tell(notice, "opened")
                await bench.tell(INCIDENT, "raised")
                await bench.tell(replace(INCIDENT, state="resolved"), "resolved")
            await loud.wait_for(3)
            await quiet.wait_for(2)
            await bench.tell(replace(notice, id="0" * 32), "resolved")
            await loud.wait_for(4)
        assert [call["type"] for call in loud.calls[:3]] == ["incident.opened", "incident.raised", "incident.resolved"]
        assert [call["type"] for call in quiet.calls] == ["incident.raised", "incident.resolved"]


async def test_dead_webhook_holds_up_nobody_and_is_called_when_it_is_back(tmp_path: Path) -> None:
    async with WebhookReceiver(SECRET) as alive, WebhookReceiver(SECRET) as ill:
        hooks = {
            name: WebhookConfig(url=receiver.url, secret=SECRET, retry_on_failure=QUICK)
            for name, receiver in (("alive", alive), ("ill", ill))
        }
        ill.answer_next(*[503] * 5)
        async with Bench(tmp_path / "state.db", hooks) as bench:
            for number in range(3):
                await bench.tell(replace(INCIDENT, id=f"{number:032x}"), "opened")
            assert len(await alive.wait_for(3)) == 3
            assert [call["incident"]["id"] for call in await ill.wait_for(3)] == [
                f"{number:032x}" for number in range(3)
            ]
            value = bench.metrics.registry.get_sample_value
            assert value("driftlock_exporter_retries_total", {"exporter": "webhook:ill"}) == 5
            assert not value("driftlock_exporter_retries_total", {"exporter": "webhook:alive"})


async def test_call_that_was_not_made_before_a_crash_is_made_after_it(tmp_path: Path) -> None:
    async with WebhookReceiver() as receiver:
        hooks = {"ops": WebhookConfig(url=receiver.url)}
        dead = Bench(tmp_path / "state.db", hooks)
        await dead.tell(INCIDENT, "opened")
        dead.state.close()
        async with Bench(tmp_path / "state.db", hooks) as again:
            await again.tell(INCIDENT, "opened")
            await receiver.wait_for(1)
        with closing(StateDatabase(tmp_path / "state.db", durability="os")) as state:
            state.open()
            assert await state.read(lambda c: outbox.depth(c, "webhook:ops")) == 0
        assert len(receiver.calls) == 1


async def test_call_that_is_refused_is_given_up_and_the_next_is_made(tmp_path: Path) -> None:
    async with WebhookReceiver() as receiver:
        receiver.answer_next(400)
        async with Bench(tmp_path / "state.db", {"ops": WebhookConfig(url=receiver.url)}) as bench:
            await bench.tell(INCIDENT, "opened")
            await bench.tell(replace(INCIDENT, level="fleet"), "raised")
            assert [call["type"] for call in await receiver.wait_for(1)] == ["incident.raised"]
        value = bench.metrics.registry.get_sample_value
        assert value("driftlock_events_total", {"exporter": "webhook:ops", "outcome": "dropped"}) == 1
