"""Scores a tile classifier: tile and slide AUC, FROC, heatmaps of lesions beside the truth, the report."""
