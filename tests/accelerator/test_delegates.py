"""Which delegates are here is found by looking at files; nothing is loaded."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from edge_sdk.delegates import DelegateRequest, Delegation, backends, find, parse
from edge_sdk.delegates.libraries import find_library
from edge_sdk.errors import UsageError
from edge_sdk.profile import directories
from edge_sdk.runtime import Unavailable

pytestmark = [pytest.mark.accelerator, pytest.mark.device]


def put(root: Path, *paths: str, text: str = "") -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)


def usb_edgetpu(root: Path, vendor: str = "18d1", product: str = "9302") -> None:
    put(root, "usr/lib/libedgetpu.so.1")
    put(root, "sys/bus/usb/devices/2-1/idVendor", text=f"{vendor}\n")
    put(root, "sys/bus/usb/devices/2-1/idProduct", text=f"{product}\n")


def missing(request: DelegateRequest | str, root: Path) -> Unavailable:
    found = find(request, root=root)
    assert isinstance(found, Unavailable)
    return found


def here(request: DelegateRequest | str, root: Path) -> Delegation:
    found = find(request, root=root)
    assert isinstance(found, Delegation), found
    return found


@pytest.mark.parametrize("ids", [("18d1", "9302"), ("1a6e", "089a")])
def test_an_edge_tpu_on_usb_is_found_before_and_after_its_first_use(tmp_path: Path, ids: tuple[str, str]) -> None:
    usb_edgetpu(tmp_path, *ids)
    found = here("edgetpu", tmp_path)
    assert found.library == "/usr/lib/libedgetpu.so.1"
    assert found.exclusive
    assert here("edgetpu:usb:0", tmp_path).options == {"device": "usb:0"}
    assert missing("edgetpu:pci", tmp_path).reason == "no Edge TPU is on PCIe"


def test_an_edge_tpu_on_pcie_is_found(tmp_path: Path) -> None:
    put(tmp_path, "usr/lib/libedgetpu.so.1", "dev/apex_0")
    assert str(here("edgetpu:pci:0", tmp_path)) == "edgetpu:pci:0"
    assert missing("edgetpu:usb", tmp_path).reason == "no Edge TPU is on USB"


def test_an_edge_tpu_that_this_user_may_not_open_is_told_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "usr/lib/libedgetpu.so.1", "dev/apex_0")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may open everything
    found = missing("edgetpu", tmp_path)
    assert "may not open /dev/apex_0" in found.reason
    assert "usermod -aG apex" in found.hint


def test_without_its_library_an_edge_tpu_says_what_to_install(tmp_path: Path) -> None:
    found = missing("edgetpu", tmp_path)
    assert found.reason == "libedgetpu.so.1 is not installed"
    assert "libedgetpu1-std" in found.hint


def test_options_that_libedgetpu_would_ignore_are_refused(tmp_path: Path) -> None:
    usb_edgetpu(tmp_path)
    slow = DelegateRequest(name="edgetpu", device="usb", options={"Performance": "Low"})
    with pytest.raises(UsageError, match="unless the device has an index"):
        find(slow, root=tmp_path)
    indexed = DelegateRequest(name="edgetpu", device="usb:0", options={"Performance": "Low"})
    assert here(indexed, tmp_path).options == {"device": "usb:0", "Performance": "Low"}


def test_a_device_that_no_edge_tpu_can_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="one of usb, pci"):
        find("edgetpu:isa:0", root=tmp_path)


@pytest.mark.parametrize(
    ("name", "library", "node"),
    [
        ("teflon", "libteflon.so", "dev/accel/accel0"),
        ("vx", "libvx_delegate.so", "dev/galcore"),
        ("ethos-u", "libethosu_delegate.so", "dev/ethosu0"),
        ("armnn", "libarmnnDelegate.so", None),
    ],
)
def test_a_library_and_a_device_make_a_delegate(tmp_path: Path, name: str, library: str, node: str | None) -> None:
    assert missing(name, tmp_path).reason == f"{library} is not installed"
    put(tmp_path, f"usr/lib/{library}")
    if node is not None:
        assert missing(name, tmp_path).reason.startswith("no device: there is no /dev/")
        put(tmp_path, node)
    assert here(name, tmp_path).library == f"/usr/lib/{library}"


def test_vx_switches_its_cache_on_where_one_is_named(tmp_path: Path) -> None:
    put(tmp_path, "usr/lib/libvx_delegate.so", "dev/galcore")
    cached = DelegateRequest(name="vx", options={"cache_file_path": "/var/cache/model.nb"})
    assert here(cached, tmp_path).options == {"cache_file_path": "/var/cache/model.nb", "allowed_cache_mode": "true"}


def test_nnapi_is_a_value_that_says_so() -> None:
    assert "Android" in missing("nnapi", Path("/")).reason


def test_a_classic_gpu_delegate_is_taken_by_its_path(tmp_path: Path) -> None:
    put(tmp_path, "opt/libgpu.so")
    assert here(DelegateRequest(name="gpu", library="/opt/libgpu.so"), tmp_path).library == "/opt/libgpu.so"
    assert "no file" in missing(DelegateRequest(name="gpu", library="/opt/other.so"), tmp_path).reason


def test_any_library_is_taken_by_its_path(tmp_path: Path) -> None:
    put(tmp_path, "opt/libmine.so")
    assert here("/opt/libmine.so", tmp_path) == Delegation(name="external", library="/opt/libmine.so")
    assert "no file" in missing("/opt/libother.so", tmp_path).reason
    with pytest.raises(UsageError, match="needs its library"):
        find("external", root=tmp_path)


def test_libraries_are_looked_for_where_the_loader_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_library(("liba.so",), tmp_path) is None
    put(tmp_path, "usr/lib/liba.so", "opt/vendor/liba.so", "srv/own/liba.so")
    assert find_library(("libb.so", "liba.so"), tmp_path) == "/usr/lib/liba.so"
    put(tmp_path, "etc/ld.so.conf.d/vendor.conf", text="# vendor\n/opt/vendor\n")
    assert find_library(("liba.so",), tmp_path) == "/opt/vendor/liba.so"
    monkeypatch.setenv("LD_LIBRARY_PATH", "/srv/own:relative")
    assert find_library(("liba.so",), tmp_path) == "/srv/own/liba.so"


def test_a_request_is_read_from_text() -> None:
    assert parse("edgetpu:usb:0") == DelegateRequest(name="edgetpu", device="usb:0")
    assert parse("./libmine.so").library == "./libmine.so"
    for bad in ("", "edge tpu", "edgetpu\n", "edgetpu:a b", "edgetpu:" + "0" * 100):
        with pytest.raises(UsageError):
            parse(bad)


def test_other_packages_add_delegates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_npu.py").write_text(
        "from edge_sdk.delegates import Delegation\n"
        "class Npu:\n"
        "    name, summary = 'their-npu', 'theirs'\n"
        "    def find(self, request, root):\n"
        "        return Delegation(name='their-npu', library='/opt/libnpu.so')\n"
    )
    info = tmp_path / "their_npu-1.dist-info"
    put(info, "METADATA", text="Metadata-Version: 2.1\nName: their-npu\nVersion: 1\n")
    put(info, "entry_points.txt", text="[edge.delegates]\ntheir-npu = their_npu:Npu\nbroken = their_npu:Nothing\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    backends.cache_clear()
    try:
        assert here("their-npu", Path("/")).library == "/opt/libnpu.so"
        assert "package is broken" in missing("broken", Path("/")).reason
        assert {"edgetpu", "their-npu"} <= set(backends())
    finally:
        backends.cache_clear()
        sys.modules.pop("their_npu", None)


def test_a_sites_profile_says_where_its_delegates_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = (directories()[-1] / "imx8mp.toml").read_text("utf-8")
    site = tmp_path / "site"
    put(
        site,
        "imx8mp.toml",
        text=shipped
        + '\n[delegates.vx]\nlibrary = "/opt/nxp/libvx_delegate.so"\noptions = { device_id = "1" }\n'
        + '\n[delegates.our-npu]\nlibrary = "/opt/ours/libnpu.so"\n',
    )
    put(tmp_path, "opt/nxp/libvx_delegate.so", "opt/ours/libnpu.so", "dev/galcore")
    put(tmp_path, "proc/device-tree/compatible", text="fsl,imx8mp-evk\0fsl,imx8mp\0")
    monkeypatch.setenv("EDGE_PROFILES", str(site))
    found = here("vx", tmp_path)
    assert (found.library, found.options) == ("/opt/nxp/libvx_delegate.so", {"device_id": "1"})
    own = DelegateRequest(name="vx", options={"cache_file_path": "/c"})
    assert "device_id" not in here(own, tmp_path).options
    assert here("our-npu", tmp_path) == Delegation(name="our-npu", library="/opt/ours/libnpu.so")
    with pytest.raises(UsageError, match="no delegate 'their-npu'"):
        find("their-npu", root=tmp_path)


@pytest.mark.parametrize(
    ("features", "is_here"),
    [
        ("fp asimd evtstrm crc32 cpuid", False),  # Cortex-A72
        ("fp asimd atomics fphp asimdhp cpuid asimddp", True),  # Cortex-A76
        ("avx2 f16c avx512f", False),
        ("avx2 f16c avx512f avx512_fp16", True),
    ],
)
def test_16_bit_floats_are_for_cores_that_have_them(tmp_path: Path, features: str, is_here: bool) -> None:
    pytest.importorskip("ai_edge_litert.compiled_model")
    put(tmp_path, "proc/cpuinfo", text=f"processor\t: 0\nFeatures\t: {features}\n")
    half = DelegateRequest(name="xnnpack", options={"fp16": "true"})
    assert isinstance(find(half, root=tmp_path), Delegation) is is_here
    assert missing("xnnpack", tmp_path).reason == "the CPU uses it anyway"
    with pytest.raises(UsageError, match="one option fp16=true"):
        find(DelegateRequest(name="xnnpack", options={"flags": "4"}), root=tmp_path)
