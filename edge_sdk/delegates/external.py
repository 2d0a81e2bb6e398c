"""External delegates: shared libraries with TFLite's plug-in functions, for the accelerators of boards.

Facts come from the libraries' documentation and sources; none of them has yet been run on hardware by this project.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edge_sdk.delegates.contract import EXTERNAL, DelegateRequest
from edge_sdk.delegates.delegation import Delegation
from edge_sdk.delegates.libraries import find_library
from edge_sdk.errors import UsageError
from edge_sdk.runtime import Unavailable

Options = Callable[[DelegateRequest], Mapping[str, str]]
_EDGETPU_DEVICE = re.compile(r"(?:(?:usb|pci)?(?::\d{1,3})?)\Z")
# 1a6e:089a before the library has first opened it, 18d1:9302 after (google-coral/libedgetpu).
_EDGETPU_USB = frozenset({("1a6e", "089a"), ("18d1", "9302")})


def _as_given(request: DelegateRequest) -> Mapping[str, str]:
    device = {"device": request.device} if request.device else {}
    return device | dict(request.options)


@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryBackend:
    """A delegate in a library of a known name.

    Attributes:
        libraries: Its names, the first found is taken.
        nodes: Patterns of device files, any of which shows that the device is there; none: nothing shows it.
        missing: What mends a missing library.
        absent: What mends a missing device.
        options: What the library is given for a request.
    """

    name: str
    summary: str
    libraries: tuple[str, ...]
    nodes: tuple[str, ...] = ()
    missing: str = ""
    absent: str = ""
    options: Options = _as_given
    exclusive: bool = False

    def find(self, request: DelegateRequest, root: Path) -> Delegation | Unavailable:
        """See `Backend.find`."""
        options = self.options(request)
        library = request.library or find_library(self.libraries, root)
        if library is None:
            return Unavailable(name=self.name, reason=f"{self.libraries[0]} is not installed", hint=self.missing)
        if request.library and not (root / request.library.lstrip("/")).is_file():
            return Unavailable(name=self.name, reason=f"there is no file {request.library}", hint=self.missing)
        if self.nodes and not any(any(root.glob(pattern)) for pattern in self.nodes):
            shown = " or ".join(f"/{pattern}" for pattern in self.nodes)
            return Unavailable(name=self.name, reason=f"no device: there is no {shown}", hint=self.absent)
        return Delegation(
            name=self.name,
            device=request.device,
            library=str(library),
            options=dict(options),
            exclusive=self.exclusive,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeTpu:
    """Coral's Edge TPU, on USB or PCIe."""

    name: str = "edgetpu"
    summary: str = "Coral Edge TPU (libedgetpu)"

    def find(self, request: DelegateRequest, root: Path) -> Delegation | Unavailable:
        """See `Backend.find`.

        Raises:
            UsageError: The device is none of `usb`, `pci`, `usb:N`, `pci:N`, `:N`; or there are options and it has no
                index: the library forwards them only to an indexed device (google-coral/libedgetpu @e35aed1).
        """
        if not _EDGETPU_DEVICE.match(request.device):
            raise UsageError(
                f"{request.device[:80]!r} is no Edge TPU", hint="it is one of usb, pci, usb:0, pci:0, :0, or nothing"
            )
        if request.options and not re.search(r":\d+\Z", request.device):
            raise UsageError(
                "libedgetpu ignores options unless the device has an index", hint="name it as edgetpu:usb:0"
            )
        found = LibraryBackend(
            name=self.name,
            summary=self.summary,
            libraries=("libedgetpu.so.1",),
            missing="install libedgetpu1-std built for this runtime (github.com/feranick/libedgetpu/releases)",
            exclusive=True,
        ).find(request, root)
        if isinstance(found, Unavailable):
            return found
        kind = request.device.partition(":")[0]
        seen = edgetpus(root)
        if not any(each.startswith(kind) for each in seen):
            where = {"usb": "USB", "pci": "PCIe"}.get(kind, "USB or PCIe")
            return Unavailable(
                name=self.name,
                reason=f"no Edge TPU is on {where}",
                hint="plug it in; on USB it shows in lsusb as 1a6e:089a or 18d1:9302, on PCIe as /dev/apex_0",
            )
        nodes = sorted(root.glob("dev/apex_*"))
        if kind != "usb" and "usb" not in seen and nodes and not os.access(nodes[0], os.R_OK | os.W_OK):
            return Unavailable(
                name=self.name,
                reason=f"this user may not open /dev/{nodes[0].name}",
                hint="sudo usermod -aG apex $USER, then log in again",
            )
        return found


def edgetpus(root: Path) -> tuple[str, ...]:
    """Where Edge TPUs are: `usb` and `pci`, one for each."""
    found = ["pci" for _ in root.glob("dev/apex_*")]
    for folder in root.glob("sys/bus/usb/devices/*"):
        ids = tuple(_line(folder / name).lower() for name in ("idVendor", "idProduct"))
        if ids in _EDGETPU_USB:
            found.append("usb")
    return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A library that the app names itself."""

    name: str = EXTERNAL
    summary: str = "any TFLite external delegate, by the path of its library"

    def find(self, request: DelegateRequest, root: Path) -> Delegation | Unavailable:
        """See `Backend.find`.

        Raises:
            UsageError: No library is named.
        """
        if not request.library:
            raise UsageError("an external delegate needs its library", hint="give the path of the .so")
        if not (root / request.library.lstrip("/")).is_file():
            return Unavailable(name=self.name, reason=f"there is no file {request.library}", hint="check the path")
        return Delegation(
            name=self.name, device=request.device, library=request.library, options=dict(_as_given(request))
        )


def _vx_options(request: DelegateRequest) -> Mapping[str, str]:
    """The cache is read only where `allowed_cache_mode` is true (VeriSilicon/tflite-vx-delegate @3f4759e)."""
    options = dict(request.options)
    if request.device:
        options.setdefault("device_id", request.device)
    if "cache_file_path" in options:
        options.setdefault("allowed_cache_mode", "true")
    return options


LIBRARIES: tuple[LibraryBackend, ...] = (
    LibraryBackend(
        name="teflon",
        summary="NPUs with open drivers in Mesa: VeriSilicon, Rockchip RK3588, Arm Ethos-U65",
        libraries=("libteflon.so", "teflon/libteflon.so"),
        nodes=("dev/accel/accel*", "dev/dri/renderD*"),
        missing="install Mesa's delegate: sudo apt install mesa-teflon-delegate (Debian 13 or newer)",
        absent="the kernel needs the etnaviv, rocket or ethosu driver",
    ),
    LibraryBackend(
        name="vx",
        summary="VeriSilicon NPUs with the vendor's driver (i.MX 8M Plus)",
        libraries=("libvx_delegate.so",),
        nodes=("dev/galcore",),
        missing="it comes with NXP's BSP: package tensorflow-lite-vx-delegate",
        absent="load its module: sudo modprobe galcore",
        options=_vx_options,
    ),
    LibraryBackend(
        name="ethos-u",
        summary="Arm Ethos-U65 with NXP's driver (i.MX 93)",
        libraries=("libethosu_delegate.so",),
        nodes=("dev/ethosu*",),
        missing="it comes with NXP's BSP: package tensorflow-lite-ethosu-delegate",
        absent="load its module: sudo modprobe ethosu",
    ),
    LibraryBackend(
        name="armnn",
        summary="Arm NN on Mali GPUs and Arm CPUs",
        libraries=("libarmnnDelegate.so", "libarmnnDelegate.so.29"),
        missing="take it from github.com/ARM-software/armnn/releases and name it with a path",
    ),
)


def _line(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(256).decode("ascii", "replace").strip()
    except OSError:
        return ""
