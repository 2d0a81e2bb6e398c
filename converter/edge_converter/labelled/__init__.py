"""Labelled data of every kind, read a few samples at a time."""
