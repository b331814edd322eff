"""`run`: the sidecar itself."""

from __future__ import annotations

import argparse

from driftlock_otlp.commands.command import Command, add_config_arguments, load_config
from driftlock_otlp.observability.logging import configure_logging

_DESCRIPTION = """\
Receive OTLP, score it, keep and report anomalies, and forward the clean data.

Without a configuration it listens on 127.0.0.1:4317 (gRPC) and 127.0.0.1:4318 (HTTP), serves
health and metrics on 127.0.0.1:8080, keeps its data in ./driftlock-data, and forwards to
OTEL_EXPORTER_OTLP_ENDPOINT if that is set. Ctrl-C or SIGTERM stops it; what it has acknowledged
is on disk and goes on at the next start.

examples:
  driftlock-otlp run --config sidecar.yaml
  driftlock-otlp run --set forward.policy=tag --set detection.workers=2"""


def _run(arguments: argparse.Namespace) -> int:
    config = load_config(arguments)
    configure_logging(config.service)
    from driftlock_otlp import service  # noqa: PLC0415 - servers and clients: most of a second that only `run` needs

    service.run(config)
    return 0


COMMAND = Command("run", "receive, score and forward telemetry", _DESCRIPTION, add_config_arguments, _run)
