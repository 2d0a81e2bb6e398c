"""Writes the split models beside this file, with `edge split`'s own code.

They are checked in because splitting needs the converter, and the tests of the pipeline also run with the device
install alone. Run `python tests/data/splits/make_splits.py` after a change; it always gives the same bytes.
"""

from __future__ import annotations

import sys
from pathlib import Path

from edge_converter.splitting.split import SplitRequest, split

HERE = Path(__file__).resolve().parent
TESTS = HERE.parent.parent
TINY = TESTS / "data" / "tiny"
AT = {
    TINY / "dense_int8.tflite": (1, 2, 3),
    TINY / "dense_int8_io.tflite": (1,),
    TINY / "dense_free_batch.tflite": (1,),
    HERE / "residual.tflite": (2, 5),
}


def main() -> None:
    """Make all of them."""
    sys.path.insert(0, str(TESTS))
    import made_model

    (HERE / "residual.tflite").write_bytes(made_model.residual())
    for model, at in AT.items():
        split(SplitRequest(model=model, at=at, profile="rpi4"), HERE / model.stem)


if __name__ == "__main__":
    main()
