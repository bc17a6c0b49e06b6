"""Other ways to score a folder, each a program of its own: the same work by the same engine."""
