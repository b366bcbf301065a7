"""The embedding step: each tile through a frozen encoder once, for the heads to train on."""
