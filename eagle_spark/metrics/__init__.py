"""Figures of predictions: classification, segmentation, calibration, intervals."""
