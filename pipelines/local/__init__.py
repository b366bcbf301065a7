"""Runs a compiled pipeline on this machine with `kfp.local`, and lays its outputs out in OUT."""
