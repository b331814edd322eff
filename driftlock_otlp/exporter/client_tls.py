"""Certificate files of a client: whom it trusts, and what it proves itself with."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from driftlock_otlp.config.exporters import TlsConfig
from driftlock_otlp.tls_files import VERSIONS, WatchedTlsFiles


@dataclass(frozen=True, slots=True)
class ClientTlsMaterial:
    """What a client needs for TLS, as PEM.

    Attributes:
        authorities: The CAs it trusts; None for those that gRPC brings along.
        certificate: Its own certificate, with the chain; None if it has none.
        key: The private key of that.
    """

    authorities: bytes | None
    certificate: bytes | None
    key: bytes | None


class ClientTlsFiles(WatchedTlsFiles[ClientTlsMaterial]):
    """The files of a client.

    Args:
        section: Key of the section, for messages.
        config: Names the files; a certificate comes with its key.
        clock_s: Seconds of any clock that only goes forward.

    Raises:
        ConfigError: The files cannot be used.
    """

    def __init__(self, section: str, config: TlsConfig, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        super().__init__(section, config.reload_interval, clock_s)

    def _read(self) -> ClientTlsMaterial:
        config = self._config
        authorities = [self._pem("ca_file", config.ca_file)] if config.ca_file is not None else []
        system = ssl.get_default_verify_paths().cafile
        if system is not None and (not authorities or config.include_system_ca_certs_pool):
            authorities.append(self._pem("ca_file", Path(system)))
        return ClientTlsMaterial(
            b"\n".join(authorities) or None,
            None if config.cert_file is None else self._pem("cert_file", config.cert_file),
            None if config.key_file is None else self._pem("key_file", config.key_file),
        )

    def _context(self) -> ssl.SSLContext:
        config = self._config
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = VERSIONS[config.min_version]
        context.set_alpn_protocols(["http/1.1"])
        if config.ca_file is not None:
            self._load_authorities(context, "ca_file", config.ca_file)
        if config.ca_file is None or config.include_system_ca_certs_pool:
            context.load_default_certs()
        if config.cert_file is not None and config.key_file is not None:
            self._load_identity(context, config.cert_file, config.key_file)
        if config.insecure_skip_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context
