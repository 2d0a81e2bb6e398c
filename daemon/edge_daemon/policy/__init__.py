"""Decides which variant runs. Pure: no clock, no I/O, no logging, no hidden randomness."""
