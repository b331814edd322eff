"""What others send and receive, with the sidecar in between: real programs, real sockets."""
