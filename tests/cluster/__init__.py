"""Tests on real HDFS and YARN."""
