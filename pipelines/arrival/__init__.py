"""Starts the pipeline when an upload of slides to a bucket is whole."""
