"""Benchmarks: they print what they measure and assert only what no machine should miss."""
