"""The passes a recipe can name: each takes a model a step further, under a contract that is checked.

`Pass` says what a pass is; `find` gives the one of a name. Third parties add their own under the entry-point group
`edge.passes`, whose entries name an object with the attributes of `Pass`.
"""

from edge_converter.passes._contract import Pass, Room, Work
from edge_converter.passes._registry import GROUP, find, known, options_of

__all__ = ["GROUP", "Pass", "Room", "Work", "find", "known", "options_of"]
