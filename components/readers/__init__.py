"""Slide readers: one small class a format, one protocol, and `open_slide`, which picks one."""
