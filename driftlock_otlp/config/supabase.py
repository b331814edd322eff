"""`supabase`: the project that also keeps anomalies and usage."""

from __future__ import annotations

import base64
import json

from pydantic import Field, field_validator, model_validator

from driftlock_otlp.config.values import PositiveDuration, Secret, Section

_WHERE = "copy the secret key (sb_secret_…) from the project's settings, under API keys"


class SupabaseConfig(Section):
    """`supabase`: a Supabase project that also keeps anomalies and usage; off without a URL."""

    url: str = Field(
        default="",
        pattern=r"^(https?://[^\s/]+.*)?$",
        description="The project's URL, as https://abcd.supabase.co. Empty: nothing is sent.",
    )
    secret_key: Secret = Field(
        default="",
        description="The project's secret key, sb_secret_…, or its legacy service_role key. Give it as"
        " ${env:SUPABASE_SECRET_KEY}, never to a browser.",
    )
    organization: str = Field(
        default="default",
        pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$",
        description="Organisation there of what is sent without an API key. What comes with one belongs to the key's"
        " organisation. Unknown organisations are made.",
    )
    database_url: Secret = Field(
        default="",
        description="Connection string of the project's database, for `driftlock-otlp supabase migrate` alone:"
        " tables cannot be made with an API key.",
    )
    timeout: PositiveDuration = Field(default=30.0, description="Longest wait for an answer.")
    usage_interval: PositiveDuration = Field(default=60.0, description="How often usage is told.")
    status_interval: PositiveDuration = Field(
        default=5.0, description="How often changes of status that were made in the project are looked for."
    )

    @field_validator("secret_key")
    @classmethod
    def _may_write(cls, value: str) -> str:
        """Refuse a key that is meant for browsers; the message does not show it."""
        if value.startswith("sb_publishable_"):
            raise ValueError(f"this is a publishable key, which may only read what is public; {_WHERE}")
        if value.startswith("eyJ") and _role(value) != "service_role":
            raise ValueError(f"this is a legacy key of the role {_role(value)!r}, which may not write; {_WHERE}")
        return value

    @model_validator(mode="after")
    def _url_and_key_belong_together(self) -> SupabaseConfig:
        if self.url and not self.secret_key:
            raise ValueError(f"secret_key is missing; {_WHERE}")
        if self.secret_key and not self.url:
            raise ValueError("url is missing: the project's URL, as https://abcd.supabase.co")
        return self

    @property
    def is_on(self) -> bool:
        """Whether there is a project to send to."""
        return bool(self.url)


def _role(token: str) -> str:
    """Return the role that a JSON web token names; empty if it cannot be read."""
    try:
        part = token.split(".")[1]
        return str(json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))["role"])
    except (IndexError, KeyError, TypeError, ValueError):
        return ""
