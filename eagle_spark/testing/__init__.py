"""Failpoints, for tests of faults."""
