"""Alerts: rules as data, their evaluation, and who is told."""
