"""Driftlock OTLP: compression-based anomaly detection as an OpenTelemetry sidecar."""
