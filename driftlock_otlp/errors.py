"""Every error the project raises on purpose, as one tree.

The tree says what a caller may do about a failure: a `PermanentError` must never be
retried, a `RetryableError` may be, after `retry_after_s`. Only `otlp.responses` turns
these into gRPC and HTTP status codes.
"""

from __future__ import annotations


class DriftlockError(Exception):
    """The root of all errors raised on purpose."""


class ConfigError(DriftlockError):
    """A setting is wrong. Raised at start-up only; the message names the key and the remedy."""


class PermanentError(DriftlockError):
    """The same request would fail again: never retry it."""


class InputError(PermanentError):
    """A file to replay cannot be used; the message names the file, the line and the remedy."""


class DecodeError(PermanentError):
    """The payload is not what its content type promises (HTTP 400, gRPC INVALID_ARGUMENT)."""


class PayloadTooLargeError(PermanentError):
    """The request exceeds a size limit (HTTP 413, gRPC RESOURCE_EXHAUSTED without RetryInfo)."""


class UnauthenticatedError(PermanentError):
    """The request carries no valid credentials (HTTP 401, gRPC UNAUTHENTICATED)."""


class ForbiddenError(PermanentError):
    """Who asks is known and may not (HTTP 403, gRPC PERMISSION_DENIED)."""


class NotFoundError(PermanentError):
    """What is asked for does not exist, or belongs to somebody else (HTTP 404, gRPC NOT_FOUND)."""


class DownstreamRejectedError(PermanentError):
    """A downstream endpoint refused the data for good."""


class DownstreamTooLargeError(DownstreamRejectedError):
    """A request is larger than a downstream endpoint takes; smaller parts of it may pass."""


class RetryableError(DriftlockError):
    """A passing failure.

    Args:
        message: What failed.
        retry_after_s: Seconds to wait before trying again; None leaves the delay to the caller.
    """

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class OverloadedError(RetryableError):
    """A bounded queue is full: refuse now, try later."""


class RateLimitedError(RetryableError):
    """A tenant has used up what it may send (HTTP 429, gRPC RESOURCE_EXHAUSTED with RetryInfo).

    Args:
        message: What is used up.
        retry_after_s: Seconds until it may send again.
        headers: What is left of its budget, as header names in lower case and values.
    """

    def __init__(self, message: str, retry_after_s: float, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(message, retry_after_s)
        self.headers = headers


class StorageUnavailableError(RetryableError):
    """The disk does not take the data (full, read-only, failing)."""


class DownstreamUnavailableError(RetryableError):
    """A downstream endpoint cannot be reached, or says that it is overloaded."""


class StorageFormatError(ConfigError):
    """The data directory was written by a newer version, or is not ours. Start-up only."""


class CompressorError(DriftlockError):
    """The compressor failed: the window stays unscored and is counted, forwarding goes on."""
