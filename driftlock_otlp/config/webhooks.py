"""`webhooks`: who is called when an incident begins, gets worse or is over."""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from driftlock_otlp.config.exporters import RetryConfig, TlsConfig
from driftlock_otlp.config.values import PositiveDuration, Secret, Section, Url

PAGERDUTY_URL = "https://events.pagerduty.com/v2/enqueue"


class WebhookConfig(Section):
    """`webhooks.<name>`: one that is called for incidents: groups of anomalies that belong together."""

    url: Secret = Field(
        default="",
        repr=False,
        description="Where to; it may be a secret, as Slack's are, and is shown nowhere but for its host. Empty:"
        " PagerDuty's own, for that format.",
    )
    format: Literal["driftlock", "slack", "pagerduty"] = Field(
        default="driftlock",
        description="driftlock: everything known, as JSON; slack: a message, as Slack and Mattermost take it;"
        " pagerduty: an alert of the Events API v2, which is resolved when the incident is over.",
    )
    level: Literal["notice", "page", "fleet"] = Field(
        default="page",
        description="Least level of the incidents it is called for: once when one reaches it, again at each higher"
        " level, and when it is over. Anomalies that join an incident call nobody again.",
    )
    secret: Secret = Field(
        default="",
        repr=False,
        description="Signs each call (HMAC-SHA256 over time and body, in the header Driftlock-Signature). Give it as"
        " ${env:NAME}. Empty: calls are not signed.",
    )
    routing_key: Secret = Field(
        default="", repr=False, description="pagerduty: integration key of the service, as ${env:NAME}."
    )
    proxy_url: Url = Field(
        default="", description="Proxy to call through; empty: as HTTPS_PROXY, HTTP_PROXY, NO_PROXY say."
    )
    timeout: PositiveDuration = Field(default=10.0, description="Longest wait for an answer.")
    tls: TlsConfig = Field(default=TlsConfig(), description="TLS settings, as exporters.<name>.tls.")
    retry_on_failure: RetryConfig = Field(
        default=RetryConfig(), description="What to do when a call fails; calls wait in the durable outbox meanwhile."
    )

    @field_validator("url")
    @classmethod
    def _is_http(cls, value: str) -> str:
        parts = urlsplit(value)
        if value and (parts.scheme not in {"http", "https"} or not parts.hostname):
            raise ValueError("this is no URL to call; write for example https://hooks.example.com/driftlock")
        return value

    @model_validator(mode="after")
    def _has_what_its_format_needs(self) -> WebhookConfig:
        if self.format == "pagerduty" and not self.routing_key:
            raise ValueError("routing_key is missing: the integration key of the PagerDuty service")
        if self.format != "pagerduty" and not self.url:
            raise ValueError("url is missing")
        return self

    @property
    def target(self) -> str:
        """Where calls go."""
        return self.url or PAGERDUTY_URL
