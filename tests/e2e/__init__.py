"""The whole sidecar as a process, with real parts around it."""
