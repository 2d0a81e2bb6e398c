"""Where everything durable lies: one interface, SQLite behind it."""

from edge_hub.store.interface import Store

__all__ = ["Store"]
