"""Generated from proto/driftlock/management/v1 by `make proto`; not written by hand."""
