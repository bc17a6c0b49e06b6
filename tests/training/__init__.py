"""Tests of training and of code that loads TensorFlow."""
