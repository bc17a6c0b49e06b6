"""Metrics of predictions: classification, segmentation, calibration, intervals."""
