"""Synthetic chest X-rays rendered from an anatomical model, for demos and tests."""
