"""Chest X-rays drawn from a model of the anatomy, for demos and tests."""
