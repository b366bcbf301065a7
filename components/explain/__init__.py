"""What attention says, drawn: ranks, heatmaps, pictures for reports."""
