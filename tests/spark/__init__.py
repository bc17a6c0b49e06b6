"""Tests in a local Spark session."""
