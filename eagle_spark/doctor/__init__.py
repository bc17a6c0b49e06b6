"""Preflight checks of the environment of the jobs."""
