"""Trains a tile classifier on the lesion masks."""
