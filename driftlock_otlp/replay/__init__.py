"""Scores files with the same engine that scores live telemetry, on the data's own time."""
