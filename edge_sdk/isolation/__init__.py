"""Accelerators in processes of their own: a vendor's library that crashes takes a worker with it, not the app."""

from edge_sdk.isolation.engine import IsolatedEngine

__all__ = ["IsolatedEngine"]
