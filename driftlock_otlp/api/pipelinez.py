"""`/debug/pipelinez`: how the pipeline is at this moment, as one page without anything from elsewhere.

Names of streams come from senders: everything on the page goes through `api.html`, which escapes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence

from driftlock_otlp.api.html import Html, tag
from driftlock_otlp.api.pipelinez_style import STYLE
from driftlock_otlp.observability.live import LivePipeline, LiveQueue, LiveReceiver, LiveStream, LiveWorker

HEADERS = {
    "Cache-Control": "no-store",
    # Whatever a name might smuggle in: nothing is loaded and nothing runs.
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}

_REFRESH_S = 5
_NONE = "–"
_OUTCOMES = {"clean": "good", "flagged": "warn", "anomalous": "bad", "warming_up": "idle", "": "idle"}


def page(live: LivePipeline, *, refreshes: bool = False) -> str:
    """Return the page.

    Args:
        live: What it shows.
        refreshes: Whether browsers are to load it again by themselves.
    """
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", http_equiv="refresh", content=str(_REFRESH_S)) if refreshes else None,
        tag("title", "pipelinez · driftlock-otlp"),
        tag("style", Html(STYLE)),
    )
    body = tag(
        "body",
        _header(live, refreshes),
        tag("main", _summary(live), _receivers(live), _queues(live), _workers(live), _streams(live)),
    )
    return "<!doctype html>\n" + tag("html", head, body, lang="en")


def _header(live: LivePipeline, refreshes: bool) -> Html:
    state = _pill(f"waiting for {', '.join(live.waiting_for)}", "warn") if live.waiting_for else _pill("ready", "good")
    up_s = (live.now_unix_nano - live.started_unix_nano) / 1e9
    toggle = (
        tag("a", "stop refreshing", href="?")
        if refreshes
        else tag("a", f"refresh every {_REFRESH_S} s", href="?refresh=1")
    )
    links = (toggle, tag("a", "json", href="?format=json"), tag("a", "metrics", href="/metrics"))
    return tag(
        "header",
        tag("h1", "driftlock-otlp ", tag("span", live.version, class_="dim")),
        state,
        tag("span", f"up {duration(up_s)}", class_="dim"),
        tag("span", f"policy {live.policy}", class_="dim"),
        tag("nav", *links),
    )


def _summary(live: LivePipeline) -> Html:
    accepted = sum(outcomes.get("accepted", 0) for receiver in live.receivers for outcomes in receiver.items.values())
    warming_up = sum(worker.warming_up_count for worker in live.workers)
    lag_s = max((worker.lag_s for worker in live.workers), default=0.0)
    behind = max((queue.waiting_items or 0 for queue in live.queues if queue.position is not None), default=0)
    held_share = live.log.held_bytes / live.log.max_bytes if live.log.max_bytes else 0.0
    cards = (
        ("items accepted", count(accepted), "since the start", ""),
        (
            "durable log",
            size(live.log.held_bytes),
            f"of {size(live.log.max_bytes)}" if live.log.is_writable else "the disk takes nothing",
            "bad" if not live.log.is_writable else "warn" if held_share > 0.8 else "",
        ),
        ("furthest behind", count(behind), "items, of all destinations", ""),
        ("verdict lag", duration(lag_s), "age of the oldest open window", ""),
        ("streams", count(live.stream_count), f"{count(warming_up)} warming up", ""),
        (
            "open anomalies",
            count(live.open_anomaly_count),
            f"{count(live.quarantine_items)} items in quarantine",
            "bad" if live.open_anomaly_count else "",
        ),
    )
    return tag(
        "section",
        *(
            tag("div", tag("h3", title), tag("strong", value, class_=kind), tag("small", note), class_="card")
            for title, value, note, kind in cards
        ),
        class_="cards",
    )


def _receivers(live: LivePipeline) -> Html:
    rows = [row for receiver in live.receivers for row in _receiver_rows(receiver)]
    log = live.log
    note = f"The log in {log.path} ends at position {count(log.end)} and has taken {count(log.item_count)} items."
    more = ("Sent again", "Refused", "Rejected")
    head = ("Receiver", "Listens on", "Signal", "Items accepted", *more, "Requests accepted", *more)
    return _section("Receivers", _table(head, rows, set(head[3:])), tag("p", note, class_="dim"))


def _receiver_rows(receiver: LiveReceiver) -> Iterable[Sequence[str]]:
    where = f"{receiver.endpoint}{' (TLS)' if receiver.has_tls else ''}"
    for signal in sorted({*receiver.requests, *receiver.items}):
        numbers = [
            cell
            for outcomes in (receiver.items.get(signal, {}), receiver.requests.get(signal, {}))
            for cell in (
                count(outcomes.get("accepted", 0)),
                count(outcomes.get("duplicate", 0)),
                _alarming(outcomes.get("refused", 0)),
                _alarming(outcomes.get("rejected", 0)),
            )
        ]
        yield (receiver.transport, where, signal, *numbers)
    if not receiver.requests and not receiver.items:
        yield (receiver.transport, where, tag("span", "nothing yet", class_="dim"), *[""] * 8)


def _queues(live: LivePipeline) -> Html:
    head = ("Cursor", "State", "Items behind", "Bytes behind", "Position", "Since the start", "Retries", "Last error")
    rows = [_queue_row(queue) for queue in live.queues]
    return _section(
        "Queues and destinations", _table(head, rows, {"Items behind", "Bytes behind", "Position", "Retries"})
    )


def _queue_row(queue: LiveQueue) -> Sequence[str]:
    state = _pill("failing", "bad") if queue.is_failing else _pill("ok", "good")
    outcomes = ", ".join(f"{count(number)} {outcome}" for outcome, number in sorted(queue.outcomes.items()))
    return (
        tag("code", queue.name),
        state,
        count(queue.waiting_items),
        size(queue.waiting_bytes),
        count(queue.position),
        outcomes or _NONE,
        count(queue.retry_count),
        tag("span", queue.last_error or _NONE, class_="error" if queue.is_failing else "name dim"),
    )


def _workers(live: LivePipeline) -> Html:
    head = ("Worker", "State", "Process", "Lag", "Read up to", "Judged up to", "Checkpoint", "Streams", "Restarts")
    rows = [_worker_row(worker) for worker in live.workers]
    return _section("Detection workers", _table(head, rows, set(head[2:])))


def _worker_row(worker: LiveWorker) -> Sequence[str]:
    is_silent = worker.said_s_ago is not None and worker.said_s_ago > 5.0
    state = _pill("down", "bad")
    if worker.is_ready:
        state = _pill(f"silent for {duration(worker.said_s_ago or 0.0)}", "warn") if is_silent else _pill("up", "good")
    elif worker.pid is not None:
        state = _pill("starting", "warn")
    return (
        str(worker.index),
        state,
        _NONE if worker.pid is None else str(worker.pid),
        duration(worker.lag_s),
        count(worker.read_position),
        count(worker.watermark),
        count(worker.checkpoint),
        f"{count(worker.stream_count)} ({count(worker.warming_up_count)} warming up)",
        _alarming(worker.restart_count),
    )


def _streams(live: LivePipeline) -> Html:
    head = ("Kind", "Stream", "State", "Open window", "Windows", "Baseline", "Last window", "Score", "p", "Ended")
    rows = [_stream_row(stream, live.now_unix_nano) for stream in live.streams]
    title = f"Streams ({count(live.stream_count)})"
    hidden = live.stream_count - len(live.streams)
    note = f"{count(hidden)} more are not shown." if hidden > 0 else None
    if not rows:
        return _section(title, tag("p", "None yet: nothing has been received.", class_="dim"))
    return _section(title, _table(head, rows, set(head[4:])), tag("p", note, class_="dim") if note else None)


def _stream_row(stream: LiveStream, now_unix_nano: int) -> Sequence[str]:
    key = stream.key
    name = " / ".join(part for part in (key.tenant, key.service, key.name) if part)
    if stream.anomaly_id:
        state = _pill(f"anomaly {stream.anomaly_id[:8]}", "bad", title=stream.anomaly_id)
    elif stream.windows_to_warm:
        state = _pill(f"warming up, {count(stream.windows_to_warm)} windows left", "idle")
    else:
        state = _pill("watching", "good")
    ended_s = (now_unix_nano - stream.last_end_unix_nano) / 1e9
    is_scored = stream.last_outcome not in {"", "warming_up"}
    return (
        tag("span", key.kind, class_="dim"),
        tag("bdi", name, class_="name"),
        state,
        _fill(stream),
        count(stream.window_count),
        f"{count(stream.baseline_window_count)} ({count(stream.baseline_record_count)} records)",
        tag("span", stream.last_outcome.replace("_", " ") or _NONE, class_=_OUTCOMES.get(stream.last_outcome, "idle")),
        f"{stream.last_score:.3f}" if is_scored else _NONE,
        f"{stream.last_p_value:.3g}" if is_scored else _NONE,
        _ago(ended_s) if stream.last_end_unix_nano else _NONE,
    )


def _fill(stream: LiveStream) -> Html:
    """Return how full the open window is; of several, their number."""
    if not stream.open_window_count:
        return tag("span", "none open", class_="dim")
    text = f"{count(stream.open_record_count)} of {count(stream.window_size)}"
    if stream.open_window_count > 1:
        text = f"{count(stream.open_window_count)} open, {count(stream.open_record_count)} records"
    share = min(stream.open_record_count / (stream.window_size * stream.open_window_count), 1.0)
    bar = tag("span", tag("span", style=f"width:{share:.0%}"), class_="bar")
    return Html(bar + tag("span", f" {text}, {duration(stream.oldest_open_s)}"))


def _section(title: str, *parts: Html | None) -> Html:
    return tag("section", tag("h2", title), *parts)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: set[str]) -> Html:
    """Return a table; the columns named in `numbers` are aligned right."""

    def cells(name: str, texts: Sequence[str]) -> Iterable[Html]:
        for title, text in zip(head, texts, strict=True):
            yield tag(name, text, class_="number") if title in numbers else tag(name, text)

    body = (tag("tr", *cells("td", row)) for row in rows)
    table = tag("table", tag("thead", tag("tr", *cells("th", head))), tag("tbody", *body))
    return tag("div", table, class_="wide", tabindex="0")


def _pill(text: str, kind: str, **attributes: str) -> Html:
    return tag("span", text, class_=f"pill {kind}", **attributes)


def _alarming(number: int) -> str:
    return tag("span", count(number), class_="warn") if number else "0"


def _ago(seconds: float) -> str:
    return f"{duration(seconds)} ago" if seconds >= 0 else f"{duration(-seconds)} ahead"


def count(number: int | None) -> str:
    """Return a number for people.

    >>> count(1234567), count(None)
    ('1,234,567', '–')
    """
    return _NONE if number is None else f"{number:,}"


def size(n_bytes: int | None) -> str:
    """Return a number of bytes for people.

    >>> size(0), size(1536), size(4 << 30), size(None)
    ('0 B', '1.5 KiB', '4.0 GiB', '–')
    """
    if n_bytes is None:
        return _NONE
    value, units = float(n_bytes), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value, units = value / 1024, units[1:]
    return f"{value:.1f} {units[0]}" if units[0] != "B" else f"{n_bytes} B"


_DURATIONS: Mapping[str, float] = {"d": 86_400.0, "h": 3_600.0, "min": 60.0}


def duration(seconds: float) -> str:
    """Return a duration for people, in its largest unit or two.

    >>> duration(0), duration(0.25), duration(75), duration(90_000)
    ('0 s', '0.2 s', '1 min 15 s', '1 d 1 h')
    """
    if seconds < 60:
        return f"{seconds:.1f} s" if 0 < seconds < 10 else f"{seconds:.0f} s"
    units = [*_DURATIONS.items(), ("s", 1.0)]
    for (unit, length), (next_unit, next_length) in itertools.pairwise(units):
        if seconds >= length:
            whole, rest = divmod(seconds, length)
            below = int(rest // next_length)
            return f"{whole:.0f} {unit}" + (f" {below} {next_unit}" if below else "")
    raise AssertionError("a minute or more has a unit")
