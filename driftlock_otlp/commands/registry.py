"""The list of commands."""

from __future__ import annotations

from driftlock_otlp.commands import (
    anomalies,
    baseline,
    config,
    evaluate,
    evidence,
    history,
    keys,
    quarantine,
    replay,
    run,
    supabase,
)
from driftlock_otlp.commands.command import Command

COMMANDS: tuple[Command, ...] = (
    run.COMMAND,
    replay.COMMAND,
    evaluate.COMMAND,
    anomalies.COMMAND,
    quarantine.COMMAND,
    evidence.COMMAND,
    history.COMMAND,
    baseline.COMMAND,
    keys.COMMAND,
    supabase.COMMAND,
    supabase.USAGE,
    config.VALIDATE,
    config.PRINT_CONFIG,
)
"""Every command, in the order in which `--help` lists them."""
