"""Encoders: tiles in, embeddings out."""
