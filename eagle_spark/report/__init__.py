"""The HTML report, the plots of a training log and the gallery of predictions."""
