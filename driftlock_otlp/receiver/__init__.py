"""OTLP servers and the one path by which requests enter the durable log."""
