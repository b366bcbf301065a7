"""The compiled pipelines on Vertex AI: submitted, scheduled, watched, diagnosed, and asked where things came from."""
