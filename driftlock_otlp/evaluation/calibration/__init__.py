"""How often clean streams are accused, and how soon seeded faults are told."""
