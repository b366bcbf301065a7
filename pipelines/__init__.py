"""What is chained, compiled, run and submitted: one module a pipeline, no work of its own."""
