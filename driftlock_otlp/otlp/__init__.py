"""The OTLP wire format: decoding, JSON mapping, responses, rewriting, anomaly events."""
