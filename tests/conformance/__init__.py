"""The OTLP specification, clause by clause, over real sockets."""
