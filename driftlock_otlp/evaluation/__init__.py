"""Judges detection on labelled data, through the code that scores live telemetry."""
