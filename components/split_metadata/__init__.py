"""Which patient goes to training, validation and test: the manifest checked, split without a leak, and shown."""
