"""Other programs that score a folder: the same work by the same engine."""
