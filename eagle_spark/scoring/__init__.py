"""Scoring: what is new in a folder, what the model says of it, and the night's job."""
