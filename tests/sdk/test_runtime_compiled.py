"""What can be said of the GPU path without its library, which ends the process on a CPU it was not built for."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from edge_sdk.errors import DelegateUnavailableError
from edge_sdk.runtime import _compiled_words as words
from edge_sdk.runtime import compiled_reason
from edge_sdk.runtime._stderr import MAX_BYTES, kept_stderr

pytestmark = pytest.mark.device

A72 = "fp asimd evtstrm crc32 cpuid"
A76 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"


@pytest.fixture(autouse=True)
def _no_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VK_DRIVER_FILES", "VK_ADD_DRIVER_FILES", "VK_ICD_FILENAMES"):
        monkeypatch.delenv(name, raising=False)


def board(root: Path, features: str, device: str = "dri/renderD128") -> Path:
    (root / "dev" / device).parent.mkdir(parents=True)
    (root / "dev" / device).touch()
    (root / "proc").mkdir()
    (root / "proc" / "cpuinfo").write_text(f"processor\t: 0\nFeatures\t: {features}\nCPU part\t: 0xd08\n")
    return root


def test_a_cpu_without_the_librarys_instructions_is_told_by_its_features(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    refused = compiled_reason("gpu", root=board(tmp_path, A72), arch="aarch64")
    assert refused is not None
    assert "asimddp and atomics" in str(refused)


@pytest.mark.parametrize("arch", ["aarch64", "x86_64"])
def test_a_newer_cpu_may_try(tmp_path: Path, arch: str) -> None:
    pytest.importorskip("ai_edge_litert")
    assert compiled_reason("gpu", root=board(tmp_path, A76), arch=arch) is None


@pytest.mark.parametrize("device", ["dri/renderD128", "nvhost-gpu", "mali0"])
def test_a_gpu_shows_by_its_device(tmp_path: Path, device: str) -> None:
    pytest.importorskip("ai_edge_litert")
    assert compiled_reason("gpu", root=board(tmp_path, A76, device), arch="aarch64") is None


def test_where_no_gpu_shows_none_is_tried_unless_its_driver_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ai_edge_litert")
    root = board(tmp_path, A76, "dri/card0")
    refused = compiled_reason("gpu", root=root, arch="aarch64")
    assert refused is not None
    assert "no GPU shows in /dev" in str(refused)
    assert compiled_reason("npu", root=root, arch="aarch64") is None
    monkeypatch.setenv("VK_DRIVER_FILES", "/opt/driver.json")
    assert compiled_reason("gpu", root=root, arch="aarch64") is None


def test_a_board_that_does_not_tell_its_features_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    assert compiled_reason("npu", root=tmp_path, arch="aarch64") is not None


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("Warning: Couldn't load Vulkan: libvulkan.so.1: cannot open shared object file", "the loader libvulkan.so.1"),
        ("Warning: vkCreateInstance failed with VK_ERROR_INCOMPATIBLE_DRIVER\n", "VK_ERROR_INCOMPATIBLE_DRIVER"),
        ("Warning: Vulkan shaderUniform*ArrayDynamicIndexing required.\n", "DynamicIndexing required"),
        ("ERROR: Failed to initialize WebGPU environment: INTERNAL: No adapters found", "no GPU"),
        ("WARNING: Failed to apply compiler plugins: No compiler plugin found", "no NPU"),
    ],
)
def test_the_reason_is_read_from_what_the_library_wrote(said: str, reason: str) -> None:
    error = words.refusal(f"INFO: something\n{said}", "ERROR: [x.cc:1]", where="here")
    assert isinstance(error, DelegateUnavailableError)
    assert reason in error.what
    assert error.hint


def test_where_the_library_wrote_nothing_its_exception_is_all_there_is() -> None:
    error = words.refusal("", "ERROR: [./litert/x.h:19]\n└ Some ops are not accelerated.", where="here")
    assert isinstance(error, RuntimeError)
    assert str(error) == "Some ops are not accelerated."


def test_what_is_written_to_standard_error_meanwhile_is_kept_and_only_then(capfd: pytest.CaptureFixture[str]) -> None:
    os.write(2, b"before\n")
    with kept_stderr() as said:
        os.write(2, b"meanwhile\n")
    os.write(2, b"after\n")
    assert said.text == "meanwhile\n"
    assert capfd.readouterr().err == "before\nafter\n"


def test_a_library_that_writes_without_end_is_cut_off() -> None:
    lines = 3 * MAX_BYTES // 4096
    with kept_stderr() as said, contextlib.suppress(PermissionError):  # so a full file answers; C's printf gives up
        for _ in range(lines):
            os.write(2, b"x" * 4096)
    assert 0 < len(said.text) <= MAX_BYTES


def test_standard_error_is_given_back_after_an_exception(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError), kept_stderr():
        raise ZeroDivisionError
    os.write(2, b"again\n")
    assert capfd.readouterr().err == "again\n"
