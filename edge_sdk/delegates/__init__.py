"""Accelerators and the libraries that reach them: which are here, and whether they compute what they should.

`find` looks without loading anything; `edge_sdk.delegates.probe` tries a model on one in a process of its own. What is
missing is a value with a reason. `edge_sdk.opening` puts a model on one, with the CPU behind it.
"""

from edge_sdk.delegates.contract import Backend, DelegateRequest, parse
from edge_sdk.delegates.delegation import Delegation
from edge_sdk.delegates.registry import backends, find

__all__ = ["Backend", "DelegateRequest", "Delegation", "backends", "find", "parse"]
