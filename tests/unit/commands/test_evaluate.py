"""What `evaluate` asks for before it reads anything."""

from __future__ import annotations

import pytest

from driftlock_otlp.__main__ import main


def test_suites_that_judge_recorded_data_ask_for_them_and_those_that_make_their_own_do_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["evaluate", "nab", "calibration", "traces"]) != 0
    error = capsys.readouterr().err
    assert "nab, traces: name the directory that holds the data sets with --data" in error
    assert "calibration:" not in error
