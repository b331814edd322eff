"""The management API, version 1: what was found, and what people do about it, over HTTP and JSON."""
