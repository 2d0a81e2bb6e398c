"""The architecture as law: what may import what, what a device never loads, and what no file of the project holds."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("edge_sdk", "edge_converter", "edge_daemon", "edge_hub", "edge_lab")
MOST_LINES = 500
# What a machine or a workplace is called has no place in a project, nor where its packages came from.
PRIVATE = re.compile(r"(?<![\w.~}])/(?:work|root|home/\w+)(?![\w-])|files\.pythonhosted|/simple/")
ALLOWED = {"tests/law/test_architecture.py"}
BINARY = {".zlib", ".npz", ".tflite", ".keras", ".h5", ".png"}


def child(code: str) -> str:
    """What a fresh interpreter prints."""
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    ).stdout.strip()


def tracked() -> list[Path]:
    """The files of the checkout, as git knows them."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def test_imports_go_down_only() -> None:
    if not (ROOT / "edge_sdk").is_dir():
        pytest.skip("import-linter reads the sources")
    linter = Path(sys.executable).parent / "lint-imports"
    told = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert told.returncode == 0, told.stdout


@pytest.mark.parametrize("module", ["edge_sdk", "edge_sdk.wire", "edge_sdk.mqtt", "edge_sdk.local", "edge_sdk.cli"])
def test_what_both_ends_share_is_light(module: str) -> None:
    found = child(
        f"import sys, {module}\n"
        "print([name for name in ('numpy', 'ai_edge_litert', 'tensorflow', 'asyncio', 'paho') if name in sys.modules])"
    )
    assert found == "[]"


def test_the_whole_daemon_loads_neither_numpy_nor_a_runtime() -> None:
    found = child(
        "import importlib, pkgutil, sys, edge_daemon\n"
        "for module in pkgutil.walk_packages(edge_daemon.__path__, 'edge_daemon.'):\n"
        "    importlib.import_module(module.name)\n"
        "heavy = ('numpy', 'ai_edge_litert', 'tflite_runtime', 'tensorflow', 'keras', 'PIL')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    assert found == "[]"


def test_help_loads_nothing_heavy() -> None:
    found = child(
        "import contextlib, io, sys\n"
        "from edge_sdk.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        "    main(['--help'])\n"
        "heavy = ('numpy', 'msgspec', 'asyncio', 'rich', 'paho', 'starlette', 'httpx', 'tensorflow', 'psutil')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    assert found == "[]"


@pytest.mark.parametrize("package", PACKAGES)
def test_types_are_shipped(package: str) -> None:
    assert (files(package) / "py.typed").is_file()


def test_no_file_names_a_machine_or_a_registry() -> None:
    for path in tracked():
        name = path.relative_to(ROOT).as_posix()
        if name in ALLOWED or path.suffix in BINARY:
            continue
        text = path.read_text("utf-8")
        found = PRIVATE.search(text)
        assert found is None, f"{name}: {found[0]!r}"
        assert "/vendor/" in name or not re.search(r"\bTODO\b", text), name  # what others wrote stays as it came


@pytest.mark.parametrize("text", ["/root", "cd /work/main", "'/home/pi/x'", "/home/Ada.L", "(/root/.x)", "in /root."])
def test_a_path_of_a_machine_is_recognised(text: str) -> None:
    assert PRIVATE.search(text)


@pytest.mark.parametrize("text", ["docs/work/x", "/workshop", "/rootfs", "../home/x", "$HOME/x", "/home", "~/work"])
def test_other_paths_are_not(text: str) -> None:
    assert not PRIVATE.search(text)


def test_the_pinned_versions_hold_no_address() -> None:
    pinned = sorted(ROOT.glob("constraints*.txt"))
    if not pinned:
        pytest.skip("this is no checkout")
    for path in pinned:
        lines = [line for line in path.read_text("utf-8").splitlines() if line and not line.lstrip().startswith("#")]
        assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][^ /]*( ; [^:/]+)?", line) for line in lines), path.name
        assert "://" not in path.read_text("utf-8"), path.name


def test_the_project_file_names_no_index_and_no_address() -> None:
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    assert not re.search(r"://|index-url|find-links|\[\[?tool\.uv", text)


def test_modules_are_short_and_say_what_they_decide() -> None:
    for path in tracked():
        name = path.relative_to(ROOT).as_posix()
        if path.suffix != ".py" or name.startswith("tests/"):
            continue
        text = path.read_text("utf-8")
        assert text.count("\n") <= MOST_LINES, name
        assert text.startswith('"""'), name
