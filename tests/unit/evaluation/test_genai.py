"""The traffic and the faults of the suite `genai`, on two small runs written by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from driftlock_otlp.errors import InputError
from driftlock_otlp.evaluation.genai_baselines import DETECTORS, WindowPast, facts_of
from driftlock_otlp.evaluation.genai_faults import FAULTS, FaultKind
from driftlock_otlp.evaluation.genai_traffic import Run, Traffic, load_runs, requests

HISTORY_A = [
    {"role": "human", "content": "Where is the harbour?"},
    {"role": "Orchestrator (thought)", "content": 'Updated Ledger:\n{"done": {"answer": false, "reason": "new"}}'},
    {"role": "Orchestrator (-> WebSurfer)", "content": "Search for the harbour."},
    {"role": "WebSurfer", "content": "I typed 'harbour' into the search bar.\nHere is a page about the harbour."},
    {"role": "WebSurfer", "content": "I clicked 'map'.\nHere is a map of the harbour and of the town around it."},
    {"role": "WebSurfer", "content": "I scrolled down.\nHere is more of the map."},
    {"role": "Orchestrator (termination condition)", "content": "done"},
]
HISTORY_B = [
    {"role": "assistant", "name": "Coder_Expert", "content": "We count the ships:\n```python\nprint(len(ships))\n```"},
    {"role": "user", "name": "Computer_terminal", "content": "exitcode: 0 (execution succeeded)\nCode output: 7"},
    {
        "role": "assistant",
        "name": "Coder_Expert",
        "content": "There are seven ships in the harbour, as was counted, and no more will come today.",
    },
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for part, history, mistake in (("Hand", HISTORY_A, "4"), ("Generated", HISTORY_B, "2")):
        folder = tmp_path / "who_and_when" / part
        folder.mkdir(parents=True)
        run = {"history": history, "question": "Where is the harbour?", "mistake_step": mistake}
        (folder / "1.json").write_text(json.dumps(run), encoding="utf-8")
    return tmp_path


@pytest.fixture
def runs(data: Path) -> list[Run]:
    return load_runs(data)


def test_messages_become_chats_and_executions_of_tools(runs: list[Run]) -> None:
    generated, hand = runs
    assert [(step.kind, step.tool) for step in generated.steps] == [
        ("chat", "run_code"),
        ("execute_tool", "run_code"),
        ("chat", ""),
    ]
    assert [(step.kind, step.tool) for step in hand.steps] == [
        ("chat", ""),
        ("chat", ""),
        ("chat", "web_search"),
        ("execute_tool", "web_search"),
        ("chat", "click"),
        ("execute_tool", "click"),
        ("chat", "scroll"),
        ("execute_tool", "scroll"),
    ]
    assert json.loads(hand.steps[0].output) == {"done": {"answer": False, "reason": "new"}}
    assert [sorted(run.mistakes) for run in (generated, hand)] == [[2], [4, 5]]


def test_the_same_seed_gives_the_same_spans_and_a_fork_leaves_its_origin_alone(runs: list[Run]) -> None:
    def spans(traffic: Traffic) -> list[bytes]:
        return [request.SerializeToString() for request, _, _ in requests(traffic, 20)]

    traffic, twin = Traffic(runs, 1), Traffic(runs, 1)
    assert spans(traffic) == spans(twin)
    assert spans(traffic.fork(5, runs)) == spans(twin.fork(5, runs)) != spans(twin.fork(6, runs))
    assert spans(traffic) == spans(twin)


def test_spans_end_before_they_are_sent(runs: list[Run]) -> None:
    sent = 0
    for request, truths, clock in requests(Traffic(runs, 2), 30):
        spans = request.resource_spans[0].scope_spans[0].spans
        assert len(spans) == len(truths)
        ends = [span.end_time_unix_nano for span in spans]
        assert ends == sorted(ends)
        assert all(sent < end <= clock for end in ends)
        sent = clock


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_every_fault_shows_in_spans_and_only_there(fault: FaultKind, runs: list[Run]) -> None:
    usual = Traffic(runs, 3)
    faulty = usual.fork(4, runs, fault.name, fault.change, fault.rearrange)
    shown = [truth.fault for _, truths, _ in requests(faulty, 90) for truth in truths]
    assert 0 < sum(map(bool, shown)) < len(shown)
    assert set(shown) == {"", fault.name}
    assert not any(truth.fault for _, truths, _ in requests(usual, 20) for truth in truths)


def test_baselines_find_what_they_look_for(runs: list[Run]) -> None:
    past = WindowPast()
    facts = [facts_of(span) for span, _ in Traffic(runs, 5).spans(120.0)]
    windows = [facts[start : start + 20] for start in range(0, len(facts) - 20, 20)]
    for window in windows:
        past.learn(window)
    fault = next(fault for fault in FAULTS if fault.name == "model swapped")
    traffic = Traffic(runs, 5).fork(6, runs, fault.name, fault.change)
    traffic.spans(60.0)
    swapped = [facts_of(span) for span, _ in traffic.spans(20.0)]
    assert past.new_names(windows[-1]) == 0 < past.new_names(swapped)
    slow = [facts_of(span) for span, _ in Traffic(runs, 5).spans(20.0)]
    slow = [type(one)((*one.numbers[:3], 1e4, one.numbers[4]), one.names, one.failed) for one in slow]
    assert past.largest_z(slow) > past.largest_z(windows[-1])
    assert all(np.isfinite(judge(past, swapped)) for judge in DETECTORS.values())


def test_missing_data_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="who_and_when"):
        load_runs(tmp_path)


def test_a_file_that_is_no_run_is_named(data: Path) -> None:
    (data / "who_and_when" / "Hand" / "2.json").write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match=r"2\.json"):
        load_runs(data)
