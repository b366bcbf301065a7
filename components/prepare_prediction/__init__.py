"""The first step of a batch prediction: which model, which slides, and how they have to be tiled."""
