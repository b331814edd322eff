"""Detection in processes of its own."""
