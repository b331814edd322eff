"""The key that a request shows, in either of the two headers that may carry it."""

from __future__ import annotations

from driftlock_otlp.errors import UnauthenticatedError

_BEARER = "bearer "


def shown_key(authorization: str | None, api_key: str | None) -> str:
    """Return the key of a request.

    Args:
        authorization: Value of `authorization`, as `Bearer dl_…`.
        api_key: Value of `x-api-key`.

    Raises:
        UnauthenticatedError: There is none, or there are two that differ.
    """
    keys = {key for key in (_bearer(authorization), (api_key or "").strip()) if key}
    if len(keys) != 1:
        raise UnauthenticatedError(
            "an API key is required: send authorization: Bearer <key>, or x-api-key: <key>"
            if not keys
            else "authorization and x-api-key hold different keys; send one of them"
        )
    return keys.pop()


def _bearer(authorization: str | None) -> str:
    text = (authorization or "").strip()
    return text[len(_BEARER) :].strip() if text.lower().startswith(_BEARER) else ""
