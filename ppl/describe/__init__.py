"""What a model says: its sites in a table, and what depends on what as a diagram."""
