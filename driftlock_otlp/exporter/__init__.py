"""What leaves: clean data, diverted data, anomaly events."""
