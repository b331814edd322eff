"""Streams, their windows, and usage."""

from __future__ import annotations

from driftlock_otlp.auth.roles import Role
from driftlock_otlp.model import LogEntry, NewEntry, Signal, StreamKey, WindowFacts
from driftlock_otlp.storage import usage, windows
from driftlock_otlp.windowing.tracked_stream import SHOWN_NAME
from tests.unit.api.v1.api import NOW, Api, live

CHECKOUT = StreamKey("logs", "checkout", tenant="acme")
DEPTH = StreamKey("metrics", "checkout", "queue.depth", "acme")
OTHER = StreamKey("logs", "billing", tenant="globex")
S = 10**9


def window(stream: StreamKey, index: int, outcome: str = "clean") -> WindowFacts:
    start = NOW + index * S
    return WindowFacts(stream, start, start + S - 1, 50, outcome, 0.25, 0.5, 1.5, 0.9, 4.0, 4.1, 2.0, 2.1)


async def test_streams_are_listed_page_by_page_with_what_the_detector_says(api: Api) -> None:
    await api.backend.state.write(
        lambda c: windows.add(c, [window(key, index) for key in (CHECKOUT, OTHER) for index in range(3)])
    )
    api.workers.streams = [live(DEPTH, windows_to_warm=4), live(CHECKOUT, anomaly_id="a" * 32)]
    seen, cursor = [], ""
    for _ in range(3):
        page = (await api.get(f"/v1/streams?limit=1{cursor}")).json
        seen += page["streams"]
        cursor = f"&cursor={page['next_cursor']}"
    assert page["next_cursor"] is None
    assert [(item["signal"], item["service"], item["name"]) for item in seen] == [
        ("logs", "billing", ""),
        ("logs", "checkout", ""),
        ("metrics", "checkout", "queue.depth"),
    ]
    assert [item["live"] and item["live"]["is_warm"] for item in seen] == [None, True, False]
    assert seen[1]["live"]["anomaly_id"] == "a" * 32


async def test_a_stream_whose_name_is_too_long_for_workers_is_one_stream_all_the_same(api: Api) -> None:
    long = StreamKey("metrics", "s" * 500, "n" * 500, "acme")
    await api.backend.state.write(lambda c: windows.add(c, [window(long, 0)]))
    api.workers.streams = [live(StreamKey("metrics", "s" * SHOWN_NAME, "n" * SHOWN_NAME, "acme"))]
    (listed,) = (await api.get("/v1/streams")).json["streams"]
    assert (listed["service"], listed["live"]["is_warm"]) == ("s" * 500, True)
    assert (await api.get(f"/v1/streams/{listed['id']}")).json["live"]["is_warm"]


async def test_a_stream_shows_its_windows_newest_first_and_how_far_its_baseline_reaches(api: Api) -> None:
    facts = [window(CHECKOUT, index, "anomalous" if index == 3 else "clean") for index in range(5)]
    await api.backend.state.write(lambda c: windows.add(c, facts))
    api.workers.streams = [live(CHECKOUT, baseline_window_count=2)]
    (listed,) = (await api.get("/v1/streams")).json["streams"]
    stream = (await api.get(f"/v1/streams/{listed['id']}?limit=3")).json
    assert [item["outcome"] for item in stream["windows"]] == ["clean", "anomalous", "clean"]
    assert stream["windows"][0]["start"] == "2027-01-15T08:00:04Z"
    assert stream["baseline_since"] == "2027-01-15T08:00:02Z"
    rest = (await api.get(f"/v1/streams/{listed['id']}?limit=3&before={stream['next_before']}")).json
    assert [item["start"] for item in rest["windows"]] == ["2027-01-15T08:00:01Z", "2027-01-15T08:00:00Z"]
    assert rest["next_before"] is None


async def test_an_organisation_sees_its_own_streams_alone(keyed: Api) -> None:
    await keyed.backend.state.write(lambda c: windows.add(c, [window(CHECKOUT, 0), window(OTHER, 0)]))
    keyed.workers.streams = [live(DEPTH), live(OTHER)]
    mine, theirs = (keyed.keys[name, Role.VIEWER] for name in ("acme", "globex"))
    listed = (await keyed.get("/v1/streams", key=mine)).json["streams"]
    assert {item["organization"] for item in listed} == {"acme"}
    assert (await keyed.get(f"/v1/streams/{listed[0]['id']}", key=mine)).status == 200
    assert (await keyed.get(f"/v1/streams/{listed[0]['id']}", key=theirs)).status == 404


async def test_an_id_or_a_cursor_that_is_none_is_refused(api: Api) -> None:
    for path in ("/v1/streams/oops", "/v1/streams/é", "/v1/streams?cursor=oops", "/v1/usage?cursor=WyJhIl0"):
        assert (await api.get(path)).status == 400
    assert (await api.get("/v1/streams/WyJsb2dzIiwibm9uZSIsIiIsIiJd")).status == 404


def sent(position: int, tenant: str, hour: int, items: int) -> LogEntry:
    entry = NewEntry(Signal.LOGS, b"x" * 10, items, hour * 3600 * S, tenant)
    return LogEntry(position, position + 1, 0, entry)


async def test_usage_is_told_by_hour_by_day_and_in_total(api: Api) -> None:
    entries = [sent(1, "acme", 30, 5), sent(2, "acme", 31, 7), sent(3, "acme", 60, 1), sent(4, "globex", 30, 2)]
    await api.backend.state.write(lambda c: usage.count(c, entries))

    async def items(query: str) -> list[tuple[str | None, str, int]]:
        page = (await api.get(f"/v1/usage{query}")).json
        return [(row["start"], row["organization"], row["items"]) for row in page["usage"]]

    assert await items("") == [(None, "acme", 13), (None, "globex", 2)]
    assert await items("?by=day") == [
        ("1970-01-02T00:00:00Z", "acme", 12),
        ("1970-01-02T00:00:00Z", "globex", 2),
        ("1970-01-03T00:00:00Z", "acme", 1),
    ]
    assert await items("?by=hour&since=1970-01-02T07:00:00Z&until=1970-01-03T12:00:00Z") == [
        ("1970-01-02T07:00:00Z", "acme", 7)
    ]
    first = (await api.get("/v1/usage?by=day&limit=2")).json
    assert [row["items"] for row in first["usage"]] == [12, 2]
    assert await items(f"?by=day&limit=2&cursor={first['next_cursor']}") == [("1970-01-03T00:00:00Z", "acme", 1)]


async def test_an_organisation_sees_its_own_usage_alone(keyed: Api) -> None:
    await keyed.backend.state.write(lambda c: usage.count(c, [sent(1, "acme", 30, 5), sent(2, "globex", 30, 2)]))
    page = (await keyed.get("/v1/usage", key=keyed.keys["globex", Role.VIEWER])).json
    assert [(row["organization"], row["items"]) for row in page["usage"]] == [("globex", 2)]
