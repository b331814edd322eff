"""The gate of both receivers: who sends, and is there room and budget for it."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable

import structlog

from driftlock_otlp.auth.budget import TokenBucket
from driftlock_otlp.auth.credentials import shown_key
from driftlock_otlp.auth.keys import KeyRing, OwnLimits
from driftlock_otlp.auth.roles import Permission
from driftlock_otlp.config.receivers import AuthConfig, LimitsConfig
from driftlock_otlp.errors import ConfigError, ForbiddenError, RateLimitedError, RetryableError
from driftlock_otlp.observability.metrics import Metrics
from driftlock_otlp.receiver.admission import Admission, Reservation

_logger = structlog.get_logger(__name__)

_LOOK_S = 1.0


class Tenant:
    """An organisation that sends; its name is empty where nobody authenticates.

    Args:
        name: Of the organisation.
        limits: What it may send.
        max_in_flight_bytes: Its part of the room.
        clock_s: Seconds of any clock that only goes forward.
    """

    def __init__(self, name: str, limits: LimitsConfig, max_in_flight_bytes: int, clock_s: Callable[[], float]) -> None:
        self.name = name
        self.limits = limits
        self.max_in_flight_bytes = max_in_flight_bytes
        self.in_flight_bytes = 0
        rates = {"requests": limits.requests_per_second, "bytes": limits.bytes_per_second}
        self._buckets = {
            unit: TokenBucket(rate, limits.burst, clock_s) for unit, rate in rates.items() if rate is not None
        }

    def require(self, n_bytes: int) -> None:
        """Refuse a request of `n_bytes` that the budget does not allow yet; take nothing.

        Raises:
            RateLimitedError: It does not.
        """
        amounts = {"requests": 1, "bytes": n_bytes}
        wait_s = max((bucket.wait_s(amounts[unit]) for unit, bucket in self._buckets.items()), default=0.0)
        if wait_s > 0:
            raise RateLimitedError(
                f"organisation {self.name!r} has used up its budget; send less, or try again later",
                retry_after_s=wait_s,
                headers=self.budget(),
            )

    def spend(self, n_bytes: int) -> None:
        """Take one request of `n_bytes`, uncompressed, out of the budget.

        Raises:
            RateLimitedError: The budget does not allow it yet; nothing was taken.
        """
        self.require(n_bytes)
        for unit, bucket in self._buckets.items():
            bucket.take(1 if unit == "requests" else n_bytes)

    def budget(self) -> tuple[tuple[str, str], ...]:
        """Return the headers that tell what may still be sent; none without limits.

        References:
            draft-ietf-httpapi-ratelimit-headers-10, sections 2 and 3.
        """
        if not self._buckets:
            return ()
        policy = ", ".join(
            f'"{unit}";q={int(bucket.capacity)};w={math.ceil(self.limits.burst)}'
            for unit, bucket in self._buckets.items()
        )
        left = ", ".join(
            f'"{unit}";r={bucket.remaining};t={math.ceil(bucket.full_in_s)}' for unit, bucket in self._buckets.items()
        )
        return (("ratelimit-policy", policy), ("ratelimit", left))


class Gate:
    """Decides who may send and how much; a `Component`. For one event loop; not thread-safe.

    Args:
        config: Keys and limits.
        max_in_flight_bytes: Bytes of requests that may be in flight, of all tenants.
        metrics: Where a key file that cannot be used is counted.
        is_memory_short: Returns whether only one request at a time may be taken.
        unavailable: Returns why nothing may be taken now, if there is a reason.
        over_quota: Returns why nothing may be taken of an organisation, if there is a reason.
        clock_s: Seconds of any clock that only goes forward.

    Raises:
        ConfigError: The key file cannot be used.
    """

    name = "gate"

    def __init__(
        self,
        config: AuthConfig,
        max_in_flight_bytes: int,
        metrics: Metrics,
        is_memory_short: Callable[[], bool] = lambda: False,
        unavailable: Callable[[], RetryableError | None] = lambda: None,
        over_quota: Callable[[str], RetryableError | None] = lambda organization: None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._unavailable = unavailable
        self._over_quota = over_quota
        self._config = config
        self._admission = Admission(max_in_flight_bytes, is_memory_short=is_memory_short)
        self._max_in_flight_bytes = max_in_flight_bytes
        self._metrics = metrics
        self._clock_s = clock_s
        self._keys = KeyRing(config.keys_file) if config.keys_file is not None else None
        self._tenants: dict[str, Tenant] = {}
        self._anonymous = Tenant("", LimitsConfig(in_flight_share=1.0), max_in_flight_bytes, clock_s)
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Watch the key file."""
        if self._keys is not None:
            self._watching = asyncio.create_task(self._watch(self._keys))

    async def stop(self, grace_s: float) -> None:
        """Watch no more."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
            self._watching = None

    def authenticate(self, authorization: str | None, api_key: str | None) -> Tenant:
        """Return whose request it is.

        Args:
            authorization: Value of `authorization`, as `Bearer dl_…`.
            api_key: Value of `x-api-key`.

        Raises:
            UnauthenticatedError: There is no valid key.
            ForbiddenError: The key is not one to send with.
        """
        if self._keys is None:
            return self._anonymous
        owner = self._keys.owner_of(shown_key(authorization, api_key))
        if Permission.INGEST not in owner.role.permissions:
            raise ForbiddenError(f"a key of the role {owner.role} may not {Permission.INGEST.value}")
        return self.tenant(owner.organization)

    @property
    def keys(self) -> KeyRing | None:
        """The keys in force, which are watched while the gate is open; None if nobody authenticates."""
        return self._keys

    @property
    def limits(self) -> dict[str, LimitsConfig]:
        """The limits of every organisation of the key file."""
        organizations = {} if self._keys is None else self._keys.organizations
        return {name: _limits(self._config.limits, owner.limits) for name, owner in organizations.items()}

    def tenant(self, organization: str) -> Tenant:
        """Return what is known of an organisation of the key file; of whoever sends, without keys."""
        return self._anonymous if self._keys is None else self._tenant(self._keys, organization)

    def admit(self, tenant: Tenant, n_bytes: int) -> Reservation:
        """Reserve room for a request; leave the returned context to release it.

        Raises:
            RetryableError: Nothing may be taken now.
            OverloadedError: There is no room.
            RateLimitedError: The tenant has its share of the room, or has used up its quota.
        """
        if (reason := self._unavailable() or self._over_quota(tenant.name)) is not None:
            raise reason
        return self._admission.admit(n_bytes, tenant)

    def check(self, tenant: Tenant, n_bytes: int) -> None:
        """Raise as `admit` would for a request of `n_bytes`; reserve nothing."""
        self._admission.check(n_bytes, tenant)

    @property
    def in_flight_bytes(self) -> int:
        """Bytes of requests in flight."""
        return self._admission.in_flight_bytes

    def _tenant(self, keys: KeyRing, name: str) -> Tenant:
        limits = _limits(self._config.limits, keys.organizations[name].limits)
        known = self._tenants.get(name)
        if known is None or known.limits != limits:
            share = max(int(self._max_in_flight_bytes * limits.in_flight_share), 1)
            known = self._tenants[name] = Tenant(name, limits, share, self._clock_s)
        return known

    async def _watch(self, keys: KeyRing) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            try:
                await asyncio.to_thread(keys.refresh)
            except ConfigError as error:
                self._metrics.errors.labels("auth").inc()
                _logger.error("keys_unusable", error=str(error), effect="the keys stay as they were")
            except Exception:
                self._metrics.errors.labels("auth").inc()
                _logger.exception("keys_unusable")


def _limits(default: LimitsConfig, own: OwnLimits) -> LimitsConfig:
    if own == OwnLimits():
        return default
    return default.model_copy(update=own.model_dump(exclude_none=True))
