"""Vertex AI's Model Registry: versions of models, their aliases and evaluations."""
