"""Compression-based anomaly detection on windows of typed columns; no I/O, no wire format."""
