"""What a model is worth on any labelled folder."""
