"""`/debug/pipelinez`: what it shows, as a page and as JSON, and that names cannot break out of it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import PlainTextResponse

from driftlock_otlp.api.access import Access
from driftlock_otlp.api.app import build_app
from driftlock_otlp.api.pipelinez import page
from driftlock_otlp.auth.keys import KeyRing
from driftlock_otlp.lifecycle import Readiness
from driftlock_otlp.model import StreamKey
from driftlock_otlp.observability.live import (
    LiveLog,
    LivePipeline,
    LiveQueue,
    LiveReceiver,
    LiveStream,
    LiveWorker,
)
from driftlock_otlp.observability.metrics import Metrics
from tests.unit.api.test_app import get

NOW = 1_800_000_000 * 10**9
HOSTILE = "</td><script>alert(1)</script><img src=x onerror=alert(2)>\"'&<!--\x00\u202e"
STREAM = LiveStream(
    key=StreamKey("logs", "checkout"),
    window_size=100,
    open_window_count=1,
    open_record_count=40,
    oldest_open_s=2.5,
    window_count=77,
    baseline_window_count=12,
    baseline_record_count=1200,
    windows_to_warm=0,
    last_outcome="clean",
    last_score=0.1,
    last_p_value=0.5,
    last_end_unix_nano=NOW - 12 * 10**9,
    anomaly_id="",
)
WORKER = LiveWorker(0, 4711, True, 900, 800, 500, 1.5, 2, 3, 1, 0.1)
QUEUE = LiveQueue("forward:otlp_grpc", "otlp_grpc", 700, 31, 2048, {"forwarded": 12345}, 0, False, "")
REQUESTS = {"logs": {"accepted": 5, "duplicate": 1, "rejected": 2}}
ITEMS = {"logs": {"accepted": 500, "refused": 3}}
LIVE = LivePipeline(
    version="1.2.3",
    started_unix_nano=NOW - 3_700 * 10**9,
    now_unix_nano=NOW,
    waiting_for=[],
    policy="divert",
    receivers=[LiveReceiver("grpc", "127.0.0.1:4317", True, REQUESTS, ITEMS)],
    log=LiveLog("data/log", 1 << 20, 4 << 30, 900, 6000, True),
    queues=[QUEUE],
    quarantine_items=17,
    open_anomaly_count=1,
    workers=[WORKER],
    stream_count=3,
    streams=[STREAM],
)


class Page(HTMLParser):
    """The elements, the attributes and the text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.words += data + " "


def app(live: LivePipeline) -> Any:
    async def look() -> LivePipeline:
        return live

    return build_app(Metrics().registry, Readiness(), "1.2.3", look, PlainTextResponse("v1"))


def test_the_page_tells_of_every_part() -> None:
    words = " ".join(Page(page(LIVE)).words.split())
    for fact in (
        "driftlock-otlp 1.2.3 ready up 1 h 1 min policy divert",
        "items accepted 500",
        "durable log 1.0 MiB of 4.0 GiB",
        "open anomalies 1 17 items in quarantine",
        "grpc 127.0.0.1:4317 (TLS) logs 500 0 3 0 5 1 0 2",
        "The log in data/log ends at position 900 and has taken 6,000 items.",
        "forward:otlp_grpc ok 31 2.0 KiB 700 12,345 forwarded 0 –",
        "0 up 4711 1.5 s 900 800 500 3 (1 warming up) 2",
        "logs checkout watching 40 of 100, 2.5 s 77 12 (1,200 records) clean 0.100 0.5 12 s ago",
        "2 more are not shown.",
    ):
        assert fact in words


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        ({"anomaly_id": "7af34428b7af57c01d274e98799919f7"}, "anomaly 7af34428"),
        ({"windows_to_warm": 23, "last_outcome": "warming_up"}, "warming up, 23 windows left"),
        ({"open_window_count": 0, "open_record_count": 0}, "none open"),
        ({"open_window_count": 3}, "3 open, 40 records"),
        ({"last_outcome": "", "last_end_unix_nano": 0}, "1,200 records) – – – –"),
        ({"last_end_unix_nano": NOW + 3 * 10**9}, "3.0 s ahead"),
        ({"key": StreamKey("gen_ai", "bot", "gpt", "acme")}, "gen_ai acme / bot / gpt"),
    ],
)
def test_a_stream_is_shown_as_it_is(change: dict[str, Any], fact: str) -> None:
    shown = page(replace(LIVE, streams=[replace(STREAM, **change)]))
    assert fact in " ".join(Page(shown).words.split())


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        ({"waiting_for": ["receivers", "detection"]}, "waiting for receivers, detection"),
        (
            {"queues": [replace(QUEUE, is_failing=True, last_error="no route")]},
            "failing 31 2.0 KiB 700 12,345 forwarded 0 no route",
        ),
        ({"queues": [LiveQueue("events:x", "x", None, None, None, {}, 3, False, "")]}, "events:x ok – – – – 3 –"),
        ({"workers": [replace(WORKER, is_ready=False, pid=None)]}, "0 down – 1.5 s"),
        ({"workers": [replace(WORKER, is_ready=False)]}, "0 starting 4711"),
        ({"workers": [replace(WORKER, said_s_ago=75.0)]}, "silent for 1 min 15 s"),
        ({"streams": [], "stream_count": 0}, "None yet: nothing has been received."),
        ({"log": replace(LIVE.log, is_writable=False)}, "the disk takes nothing"),
        ({"open_anomaly_count": None, "quarantine_items": None}, "open anomalies – – items in quarantine"),
        (
            {"receivers": [LiveReceiver("http", "unix:/run/otlp.sock", False, {}, {})]},
            "unix:/run/otlp.sock nothing yet",
        ),
    ],
)
def test_a_state_out_of_the_ordinary_is_shown(change: dict[str, Any], fact: str) -> None:
    assert fact in " ".join(Page(page(replace(LIVE, **change))).words.split())


def test_what_senders_and_destinations_say_cannot_break_out_of_the_page() -> None:
    hostile = replace(
        LIVE,
        streams=[replace(STREAM, key=StreamKey("logs", HOSTILE, HOSTILE, HOSTILE), anomaly_id=HOSTILE)],
        queues=[LiveQueue(f"forward:{HOSTILE}", HOSTILE, 1, 1, 1, {HOSTILE: 1}, 1, True, HOSTILE)],
        waiting_for=[HOSTILE],
        log=replace(LIVE.log, path=HOSTILE),
    )
    text = page(hostile)
    tame, wild = Page(page(replace(LIVE, queues=[replace(QUEUE, is_failing=True)]))), Page(text)
    assert "script" not in wild.tags
    assert "img" not in wild.tags
    assert wild.tags.count("td") == tame.tags.count("td")
    assert not [name for name, _ in wild.attributes if name.startswith("on")]
    assert "<script>alert(1)</script>" in wild.words
    assert "\x00" not in text
    assert "\u202e" not in text


async def test_nothing_is_loaded_from_elsewhere_and_nothing_may_run() -> None:
    status, headers, body = await get(app(LIVE), "/debug/pipelinez")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    parsed = Page(body.decode())
    assert not {"script", "link", "img", "iframe"} & set(parsed.tags)
    assert {value for name, value in parsed.attributes if name == "href"} == {"?refresh=1", "?format=json", "/metrics"}
    assert not [name for name, _ in parsed.attributes if name == "src"]
    assert not re.search(r"@import|url\(|https?://", body.decode())
    assert headers["content-security-policy"].startswith("default-src 'none'; style-src 'unsafe-inline';")
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"


async def test_it_is_readable_in_dark_and_in_light() -> None:
    _, _, body = await get(app(LIVE), "/debug/pipelinez")
    used = set(re.findall(r"var\((--\w+(?:-\w+)*)\)", body.decode()))
    light, dark = re.findall(r":root \{(.*?)\}", body.decode(), re.DOTALL)
    for scheme in (light, dark):
        assert used <= set(re.findall(r"(--[\w-]+):", scheme))


async def test_it_loads_itself_again_only_when_asked_to() -> None:
    _, _, once = await get(app(LIVE), "/debug/pipelinez")
    _, _, again = await get(app(LIVE), "/debug/pipelinez?refresh=1")
    assert b"http-equiv" not in once
    assert b'http-equiv="refresh" content="5"' in again


@pytest.mark.parametrize(
    ("query", "accept", "is_json"),
    [
        ("", "", False),
        ("", "text/html,application/xhtml+xml,*/*;q=0.8", False),
        ("", "application/json", True),
        ("", "text/html, application/json", False),
        ("?format=json", "text/html", True),
        ("?format=html", "application/json", False),
    ],
)
async def test_it_is_json_for_whoever_asks(query: str, accept: str, is_json: bool) -> None:
    status, headers, body = await get(app(LIVE), f"/debug/pipelinez{query}", accept)
    assert status == 200
    assert headers["content-type"].startswith("application/json" if is_json else "text/html")
    if is_json:
        shown = json.loads(body)
        assert shown["streams"][0]["key"] == {"kind": "logs", "service": "checkout", "name": "", "tenant": ""}
        assert shown["queues"][0]["outcomes"] == {"forwarded": 12345}
        assert shown["workers"][0]["read_position"] == 900


@pytest.mark.parametrize(("peer", "status"), [("127.0.0.1", 200), ("192.0.2.7", 403)])
async def test_with_keys_it_is_for_this_machine_as_it_names_every_organisation(
    tmp_path: Path, peer: str, status: int
) -> None:
    async def look() -> LivePipeline:
        return LIVE

    (tmp_path / "keys.yaml").write_text("{}")
    for ring, expected in ((KeyRing(tmp_path / "keys.yaml"), status), (None, 200)):
        access = Access(ring, 1.0)  # The Host header is absent, as with HTTP/1.0.
        nothing = PlainTextResponse("v1")
        app = build_app(Metrics().registry, Readiness(), "1.2.3", look, nothing, access.may_see_all)
        assert (await get(app, "/debug/pipelinez", peer=peer))[0] == expected
