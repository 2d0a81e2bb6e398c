"""The process a daemon lives in: what it holds, and what it does not look at."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from daemon_stage import DaemonProcess, clean_environment

# Each is one that the daemon imported once, or that another part of the project imports; some bring a megabyte.
NEEDLESS = {
    "argparse", "csv", "email", "gettext", "http.client", "importlib.metadata", "zipfile",  # of the program `edge`
    "edge_converter", "edge_daemon.cli", "edge_daemon.commands", "edge_hub", "edge_lab", "edge_sdk.cli",
    "edge_daemon.link", "edge_daemon.uplink", "paho",  # only with a hub
    "edge_daemon.trace", "edge_daemon.transfer", "edge_daemon.policies.alert", "edge_daemon.policies.rules",
    "edge_sdk._unix_http", "edge_sdk.engine", "edge_sdk.model", "edge_sdk.runtime", "numpy",  # of apps
}  # fmt: skip


def test_a_daemon_without_a_hub_imports_nothing_of_the_program_edge_of_apps_or_of_hubs(tmp_path: Path) -> None:
    daemon = DaemonProcess(tmp_path, environment={"PYTHONPROFILEIMPORTTIME": "1"})
    daemon.start()
    assert daemon.stop() == 0
    # Each Python begins its table with a heading and what its installation wants; the daemon is the last one.
    table = daemon.said.rpartition("imported package")[2].partition("| site\n")[2]
    imported = {line.rpartition("|")[2].strip() for line in table.splitlines() if line.startswith("import time:")}
    assert "edge_daemon.service" in imported
    assert imported & NEEDLESS == set()


def test_a_daemon_takes_no_module_from_the_folder_it_is_started_in(tmp_path: Path) -> None:
    for name in ("edge_daemon", "msgspec", "psutil"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('taken from the folder')")
    program = "import sys; sys.path[:] = filter(None, sys.path); from edge_sdk.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", program, "daemon", "run", "--config", "absent.toml"],
        cwd=tmp_path, env=clean_environment(tmp_path), capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "edge: absent.toml: cannot be read: No such file or directory [config]\n"
