"""Every setting of the sidecar, and how settings are read; nothing is defined anywhere else."""
