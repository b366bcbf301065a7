"""Training of a bag model on the records of a tiled dataset."""
