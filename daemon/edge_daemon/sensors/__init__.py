"""Reads what can be sensed on a Linux board, below a `root` that a test or a demonstration may choose."""
