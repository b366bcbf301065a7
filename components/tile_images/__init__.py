"""Slides to tiles to TFRecord parts, with a ledger in which no slide and no tile is missing."""
