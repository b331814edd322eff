"""What must survive a crash: the telemetry log and the SQLite state."""
