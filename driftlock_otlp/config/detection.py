"""`windows` and `detection`: what is compared, and when it is odd."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from driftlock_otlp.config.values import PositiveDuration, Section


class WindowConfig(Section):
    """`windows.<kind>`: the windows, baseline and significance of one kind of stream."""

    size: int = Field(gt=0, le=100_000, description="A window closes at this many records,")
    max_age: PositiveDuration = Field(description="or at this age, whichever comes first.")
    session_key: str | None = Field(
        default=None,
        description="Session windows: one window per value of this attribute, closed when it is idle for max_age.",
    )
    baseline_windows: int = Field(
        default=12, ge=2, le=1000, description="Unflagged windows that a new window is compared with, at least;"
    )
    baseline_records: int = Field(
        default=600, ge=1, le=1_000_000, description="and at least this many records, so that small windows add up."
    )
    significance: float | None = Field(
        default=None, gt=0, lt=0.5, description="Own value of detection.significance for this kind."
    )


class WindowsConfig(Section):
    """`windows`: each kind of stream has windows of its own."""

    logs: WindowConfig = Field(default=WindowConfig(size=1000, max_age=10.0), description="Log records, per service.")
    metrics: WindowConfig = Field(
        default=WindowConfig(size=60, max_age=30.0, significance=0.005),
        description="Data points, per service and metric. Their noise has heavier tails, so they start stricter.",
    )
    traces: WindowConfig = Field(
        default=WindowConfig(size=1000, max_age=10.0, significance=0.005),
        description="Spans, per service. Durations have heavy tails, so they start stricter.",
    )
    gen_ai: WindowConfig = Field(
        default=WindowConfig(size=50, max_age=30.0),
        description="Spans and log records with gen_ai.* attributes, per service and model.",
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_from_the_kind(cls, value: object) -> object:
        """Let `windows.logs: {size: 100}` keep the other defaults of its kind."""
        if not isinstance(value, dict):
            return value
        filled = dict(value)
        for name, field in cls.model_fields.items():
            given = filled.get(name)
            if isinstance(given, dict):
                filled[name] = {**field.default.model_dump(), **given}
        return filled


class DetectionConfig(Section):
    """`detection`: when a window is odd, and when that is an alarm."""

    significance: float = Field(
        default=0.01,
        gt=0,
        lt=0.5,
        description="A window is flagged when its conformal p-value is at most this. Alarms need more: see docs.",
    )
    warm_up_windows: int = Field(
        default=20, ge=10, le=10_000, description="Scored windows to calibrate on before a stream may alarm."
    )
    calibration_windows: int = Field(
        default=2000, ge=60, le=100_000, description="Scored windows that the calibration remembers."
    )
    recovery_windows: int = Field(
        default=3, ge=1, le=1000, description="Calm windows in a row after which an anomaly is over."
    )
    adopt_after_windows: int = Field(
        default=60,
        ge=4,
        le=100_000,
        description="Windows of one anomaly after which the new regime becomes the baseline.",
    )
    workers: int = Field(default=1, ge=1, le=64, description="Detection processes; streams are split between them.")
    max_streams: int = Field(
        default=10_000,
        ge=1,
        description="Streams that one worker follows at once; the longest unused ones are put aside for others, and go"
        " on where they were when they come back. While all are busy, records of further ones pass unscored, counted.",
    )
    quote_max_bytes: int | None = Field(
        default=None,
        ge=0,
        description=(
            "Longest quotation of payload text in an explanation; 0: quote nothing. Unset: 160, and 0 for gen_ai."
        ),
    )
    compressor: Literal["auto", "openzl", "zstd"] = Field(
        default="auto", description="auto: OpenZL where its wheel exists, else zstd. Baselines of the two never mix."
    )
