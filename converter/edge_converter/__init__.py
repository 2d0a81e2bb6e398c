"""Turns trained models into bundles of measured variants, offline."""
