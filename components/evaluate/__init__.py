"""From a trained model and a tiled dataset to metrics, predictions, heatmaps, the run report and the gate."""
