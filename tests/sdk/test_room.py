"""How much memory is free, read from recorded trees, and what a variant needs of it."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest
from bundle_stage import manifest_of
from msgspec.structs import replace

from edge_sdk.machine import machine_name
from edge_sdk.manifest import Latency, Origin
from edge_sdk.room import Room, estimated_bytes, free_bytes, resident_bytes

pytestmark = pytest.mark.device

MIB = 2**20
MEMINFO = f"MemTotal: {4096 * 1024} kB\nMemFree: 1024 kB\nMemAvailable:    {1000 * 1024} kB\n"


def write(root: Path, **files: str) -> None:
    for name, content in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def test_a_machine_without_limits_has_what_the_kernel_says_is_available(tmp_path: Path) -> None:
    assert free_bytes(tmp_path) is None
    write(tmp_path, proc__meminfo=MEMINFO)
    assert free_bytes(tmp_path) == 1000 * MIB


def test_a_group_of_version_2_has_its_limit_less_its_use_without_stale_file_pages(tmp_path: Path) -> None:
    write(tmp_path, proc__meminfo=MEMINFO, proc__self__cgroup="0::/app/worker\n")
    group = tmp_path / "sys/fs/cgroup/app/worker"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text(f"{90 * MIB}\n")
    assert free_bytes(tmp_path) == 1000 * MIB
    (group / "memory.max").write_text(f"{128 * MIB}\n")
    assert free_bytes(tmp_path) == 38 * MIB
    (group / "memory.stat").write_text(f"anon 5\ninactive_file {20 * MIB}\nactive_file {7 * MIB}\n")
    assert free_bytes(tmp_path) == 58 * MIB
    (group.parent / "memory.max").write_text(f"{64 * MIB}\n")
    (group.parent / "memory.current").write_text(f"{60 * MIB}\n")
    assert free_bytes(tmp_path) == 4 * MIB


def test_in_a_container_the_root_of_the_tree_is_its_own_group(tmp_path: Path) -> None:
    write(tmp_path, proc__meminfo=MEMINFO, proc__self__cgroup="0::/../docker/abc\n")
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "memory.max").write_text(f"{256 * MIB}")
    (group / "memory.current").write_text(f"{300 * MIB}")
    assert free_bytes(tmp_path) == 0


def test_a_group_of_version_1_has_files_of_other_names(tmp_path: Path) -> None:
    write(tmp_path, proc__meminfo=MEMINFO, proc__self__cgroup="5:cpu:/\n4:memory:/app\n0::/\n")
    for place, limit in (("sys/fs/cgroup/memory", 2**63 - 4096), ("sys/fs/cgroup/memory/app", 100 * MIB)):
        folder = tmp_path / place
        folder.mkdir(parents=True)
        (folder / "memory.limit_in_bytes").write_text(f"{limit}\n")
        (folder / "memory.usage_in_bytes").write_text(f"{80 * MIB}\n")
        (folder / "memory.stat").write_text(f"inactive_file 1\ntotal_inactive_file {10 * MIB}\n")
    assert free_bytes(tmp_path) == 30 * MIB


def test_a_limit_on_addresses_counts_in_the_process_that_has_it(tmp_path: Path) -> None:
    write(tmp_path, proc__meminfo=MEMINFO, proc__self__status=f"Name: x\nVmSize:  {1000 * 1024} kB\n")
    program = (
        "import resource, sys; from pathlib import Path; from edge_sdk.room import free_bytes;"
        f"resource.setrlimit(resource.RLIMIT_AS, ({1100 * MIB}, {resource.RLIM_INFINITY}));"
        "print(free_bytes(Path(sys.argv[1])))"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True)
    assert int(done.stdout) == 100 * MIB


def test_what_is_no_number_is_no_limit(tmp_path: Path) -> None:
    write(tmp_path, proc__meminfo="MemAvailable: much kB\n", proc__self__cgroup="nonsense\n0::/a\n:::\n")
    write(tmp_path, sys__fs__cgroup__a__x="")
    (tmp_path / "sys/fs/cgroup/a/memory.max").write_text("-1\n\n5")
    assert free_bytes(tmp_path) is None


def test_a_variant_needs_what_its_load_took_else_what_was_measured_else_what_is_estimated() -> None:
    (variant,) = manifest_of({"a": b"a"}).variants
    variant = replace(variant, size_bytes=MIB, cost=replace(variant.cost, arena_bytes=500_000))
    assert estimated_bytes(variant) == 2 * MIB + 500_000 + 3_000_000
    assert Room([variant]).needs_bytes("a") == estimated_bytes(variant)

    def measured(machine: str, memory_bytes: int | None) -> Latency:
        return Latency(variant="a", origin=Origin.MEASURED, machine=machine, median_ms=1.0, memory_bytes=memory_bytes)

    elsewhere = [measured("another", 7 * MIB), measured("a third", 9 * MIB), measured("a fourth", None)]
    assert Room([variant], lambda: elsewhere).needs_bytes("a") == 9 * MIB
    here = Room([variant], lambda: [*elsewhere, measured(machine_name(), 5 * MIB)])
    assert here.needs_bytes("a") == 5 * MIB
    kept = here.measured("a", lambda: bytearray(b"\1") * (64 * MIB))
    assert len(kept) == 64 * MIB
    if resident_bytes() is not None:
        assert 63 * MIB < here.needs_bytes("a") < 70 * MIB
    here.measured("a", lambda: None)  # it found memory that was there: what was noted stands
    assert here.needs_bytes("a") > 60 * MIB
