"""Shared: what metrics, intervals, calibration and FROC are, and the charts they are shown in; no TensorFlow."""
