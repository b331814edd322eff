"""Certificates for tests: a CA, what it signs, and the files that settings name."""

from __future__ import annotations

import ssl
from pathlib import Path

import grpc
import trustme


class Certificates:
    """A CA with server and client certificates in a directory.

    Args:
        directory: Where the PEM files are written.
    """

    def __init__(self, directory: Path) -> None:
        self.ca_file = directory / "ca.pem"
        self.cert_file = directory / "server.pem"
        self.key_file = directory / "server-key.pem"
        self.client_cert_file = directory / "client.pem"
        self.client_key_file = directory / "client-key.pem"
        self.ca = trustme.CA()
        self.renew()

    def renew(self) -> None:
        """Replace every file, signed by a CA that nobody has seen before."""
        self.ca = trustme.CA()
        self.ca.cert_pem.write_to_path(self.ca_file)
        for issued, cert_file, key_file in (
            (self.ca.issue_cert("localhost", "127.0.0.1"), self.cert_file, self.key_file),
            (self.ca.issue_cert("sender@example.com"), self.client_cert_file, self.client_key_file),
        ):
            issued.private_key_pem.write_to_path(key_file)
            cert_file.write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))

    def server_section(self, *, is_mutual: bool = False, **others: object) -> dict[str, object]:
        """Return a receiver's `tls` section."""
        section = {"cert_file": self.cert_file, "key_file": self.key_file, "reload_interval": 0.05, **others}
        return {**section, "client_ca_file": self.ca_file} if is_mutual else section

    def context(self, *, with_certificate: bool = False) -> ssl.SSLContext:
        """Return what an HTTP client uses."""
        context = ssl.create_default_context(cafile=self.ca_file)
        if with_certificate:
            context.load_cert_chain(self.client_cert_file, self.client_key_file)
        return context

    def credentials(self, *, with_certificate: bool = False) -> grpc.ChannelCredentials:
        """Return what a gRPC client uses."""
        own = (self.client_key_file.read_bytes(), self.client_cert_file.read_bytes()) if with_certificate else ()
        return grpc.ssl_channel_credentials(self.ca_file.read_bytes(), *own)
