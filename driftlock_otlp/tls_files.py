"""Certificate files of a `tls` section: read, checked, and read again when they change.

Owns when a change counts: only material that a TLS library accepts as a whole replaces what is
in use, so that a file caught in the middle of being written does no harm.
"""

from __future__ import annotations

import ssl
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import structlog

from driftlock_otlp.config.receivers import ServerTlsConfig
from driftlock_otlp.errors import ConfigError

_logger = structlog.get_logger(__name__)

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}

Material = TypeVar("Material")


@dataclass(frozen=True, slots=True)
class TlsMaterial:
    """What a server proves itself with, as PEM.

    Attributes:
        certificate: Its certificate, with the chain.
        key: The private key.
        client_ca: The CAs that sign clients' certificates; None if none is asked for.
    """

    certificate: bytes
    key: bytes
    client_ca: bytes | None


class WatchedTlsFiles(ABC, Generic[Material]):
    """The files of one `tls` section.

    Args:
        section: Key of the section, for messages.
        reload_interval_s: How often they are looked at.
        clock_s: Seconds of any clock that only goes forward.

    Raises:
        ConfigError: The files cannot be used.
    """

    def __init__(self, section: str, reload_interval_s: float, clock_s: Callable[[], float]) -> None:
        self._section = section
        self._reload_interval_s = reload_interval_s
        self._clock_s = clock_s
        self._looked_s = clock_s()
        self._seen = self._read()
        self.context = self._context()
        """For Python's own TLS."""
        self.material = self._seen

    def refresh(self) -> bool:
        """Look at the files if it is time; return whether others are in use from now on.

        What cannot be used is logged once and leaves the present files in use.
        """
        if self._clock_s() - self._looked_s < self._reload_interval_s:
            return False
        self._looked_s = self._clock_s()
        try:
            found = self._read()
            if found == self._seen:
                return False
            self._seen = found
            context = self._context()
            if found != self._read():
                return False  # In the middle of being replaced: another look will tell.
        except ConfigError as error:
            _logger.error("certificates_unusable", error=str(error), effect="those in use stay in use")
            return False
        self.context, self.material = context, found
        _logger.info("certificates_reloaded", section=self._section)
        return True

    @abstractmethod
    def _read(self) -> Material:
        """Return what the files hold.

        Raises:
            ConfigError: One cannot be read.
        """

    @abstractmethod
    def _context(self) -> ssl.SSLContext:
        """Return a context of what the files hold.

        Raises:
            ConfigError: It is not what it should be.
        """

    def _pem(self, key: str, path: Path) -> bytes:
        try:
            return path.read_bytes()
        except OSError as error:
            raise ConfigError(f"{self._section}.{key}: cannot read {path}: {error.strerror}") from None

    def _load_identity(self, context: ssl.SSLContext, cert_file: Path, key_file: Path) -> None:
        try:
            context.load_cert_chain(cert_file, key_file)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{self._section}: {cert_file} and {key_file} are not a certificate and its key: {error}"
            ) from None

    def _load_authorities(self, context: ssl.SSLContext, key: str, ca_file: Path) -> None:
        try:
            context.load_verify_locations(ca_file)
        except (OSError, ValueError) as error:
            raise ConfigError(f"{self._section}.{key}: {ca_file} holds no certificates: {error}") from None


class TlsFiles(WatchedTlsFiles[TlsMaterial]):
    """The files of a server.

    Args:
        section: Key of the section, for messages.
        config: Names the files.
        clock_s: Seconds of any clock that only goes forward.

    Raises:
        ConfigError: The files cannot be used.
    """

    def __init__(self, section: str, config: ServerTlsConfig, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        super().__init__(section, config.reload_interval, clock_s)

    def _read(self) -> TlsMaterial:
        config = self._config
        ca = config.client_ca_file
        return TlsMaterial(
            self._pem("cert_file", config.cert_file),
            self._pem("key_file", config.key_file),
            None if ca is None else self._pem("client_ca_file", ca),
        )

    def _context(self) -> ssl.SSLContext:
        config = self._config
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = VERSIONS[config.min_version]
        context.set_alpn_protocols(["http/1.1"])
        self._load_identity(context, config.cert_file, config.key_file)
        if config.client_ca_file is not None:
            self._load_authorities(context, "client_ca_file", config.client_ca_file)
            context.verify_mode = ssl.CERT_REQUIRED
        return context
