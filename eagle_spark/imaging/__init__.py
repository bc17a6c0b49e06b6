"""Bytes to pixels: sniff, decode, masks and hashes. Pure functions."""
