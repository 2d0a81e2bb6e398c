"""`python -m edge_sdk.cli`: the program where its script is not on PATH."""

import sys

from edge_sdk.cli.main import main

sys.exit(main())
