"""Runs on the device: senses, decides which variant runs, reports to the hub."""
