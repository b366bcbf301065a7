"""A trained model becomes a version in Vertex AI's Model Registry, with its evaluation."""
