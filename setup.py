"""Packaging entry point; all metadata stand in pyproject.toml."""

from setuptools import setup

setup()
