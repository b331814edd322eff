"""Stand-ins for what the sidecar talks to."""
