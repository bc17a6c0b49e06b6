"""Kills, faults and long runs."""
