"""The HTTP side of the hub."""
