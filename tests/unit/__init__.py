"""Tests without a JVM and TensorFlow."""
