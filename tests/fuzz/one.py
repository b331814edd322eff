"""Fuzzes one target in a process of its own: `python -m tests.fuzz.one TARGET <libFuzzer's arguments>`."""

from __future__ import annotations

import importlib
import logging
import sys

import atheris
import structlog

_GUIDES = (
    "driftlock_otlp.otlp",
    "driftlock_otlp.receiver",
    "driftlock_otlp.windowing",
    "uvicorn.protocols.http",
)


def main() -> None:
    """Fuzz until libFuzzer ends the process."""
    name = sys.argv[1]
    # Imported here and not above: only what is imported under this guides the search.
    with atheris.instrument_imports(include=list(_GUIDES)):
        target = importlib.import_module("tests.fuzz.targets").TARGETS[name]
    logging.disable(logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    options = {}
    if target.is_protobuf:
        from tests.fuzz.mutation import mutate  # noqa: PLC0415 - after the instrumentation, as above

        options["custom_mutator"] = lambda data, max_size, seed: mutate(data, max_size, seed, atheris.Mutate)
    atheris.Setup([sys.argv[0], *sys.argv[2:]], target.check, enable_python_coverage=True, **options)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
