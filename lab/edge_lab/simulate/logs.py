"""What happened, as CSV: a file for each policy and seed, a row for each second, so that others can check it."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

from edge_lab.simulate.play import Run
from edge_lab.simulate.trial import Job, Played
from edge_sdk import atomic

COLUMNS = ("time_s", "variant", "temp_c", "energy_wh", "requests", "in_time", "late")


def write(folder: Path, job: Job, played: Played) -> None:
    """Write the files of one seed, each whole or not at all: `SCENARIO-POLICY-SEED.csv`.

    Raises:
        StorageError: One could not be written.
    """
    runs = list(played.runs)
    runs += [bound.run for bound in (played.oracle, played.floor) if bound is not None]
    for run in runs:
        policy = re.sub(r"[^A-Za-z0-9._-]", "_", run.policy)
        atomic.write_bytes(folder / f"{job.scenario.name}-{policy}-{played.seed}.csv", as_csv(run).encode())


def as_csv(run: Run) -> str:
    """One run: `time_s` is the end of the second, and the rest what was so then, or happened in it."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    rows = zip(run.action, run.temp_c, run.energy_wh, run.requests, run.in_time, run.late, strict=True)
    for second, (action, temp_c, energy_wh, *counts) in enumerate(rows, 1):
        writer.writerow((second, action, f"{temp_c:.3f}", f"{energy_wh:.6f}", *counts))
    return text.getvalue()
