"""The sidecar at twice its capacity: memory stays bounded, senders are told to wait, nothing is lost."""
