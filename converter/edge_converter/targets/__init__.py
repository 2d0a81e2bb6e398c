"""Accelerators: what they take of a model, their compilers, and the variants made for them.

from edge_converter.targets import coverage
coverage(Path("model.tflite"), "edgetpu")
"""

from edge_converter.targets.covering import coverage
from edge_converter.targets.optable import Table, named, of_board, table, tables

__all__ = ["Table", "coverage", "named", "of_board", "table", "tables"]
