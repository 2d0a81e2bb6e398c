"""What this board has, what of it works, what does not and what mends it: the checks behind `edge doctor`.

Each check is a module that looks and tells what it found as values; `registry.all_checks` lists them. Nothing is
changed, and nothing is loaded into this process but what any app would load.
"""

from edge_sdk.doctor.contract import Finding, Place, State
from edge_sdk.doctor.registry import CHECKS, Check, Report, Section, all_checks, examine

__all__ = ["CHECKS", "Check", "Finding", "Place", "Report", "Section", "State", "all_checks", "examine"]
