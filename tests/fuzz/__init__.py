"""What reads bytes from outside, against arbitrary bytes: `make fuzz`, and the corpus as a test."""
