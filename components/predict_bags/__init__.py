"""Predictions of a trained model on new slides, with heatmaps and a report."""
