"""Checks a tiled dataset before anything learns from it: records, counts, leaks, duplicates, colours."""
