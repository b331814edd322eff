"""The management HTTP server: metrics and health."""
