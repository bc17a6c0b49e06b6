"""Tests of training and of what loads TensorFlow."""
