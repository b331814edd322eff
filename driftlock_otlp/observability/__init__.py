"""The catalogue of metrics, and logging."""
