"""From OTLP requests to windows of typed columns, per stream."""
