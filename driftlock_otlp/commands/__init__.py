"""The commands of the command line: their arguments, what they do, and what they print."""
