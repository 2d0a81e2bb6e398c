"""The broker, as the hub sees it: one of three backends behind one interface."""

from edge_hub.broker.backend import BrokerBackend

__all__ = ["BrokerBackend"]
