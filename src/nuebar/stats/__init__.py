"""Statistics that any experiment could use."""
