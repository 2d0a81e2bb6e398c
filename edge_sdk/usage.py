"""How an accelerator fares: how busy it is, how hot, and what memory its worker holds.

Few accelerators count their own work. For those that do not, busy is the share of time in which this process waits for
them, which is what matters to whoever decides where the next call goes. Where nothing tells a temperature there is
none: a Coral on USB has no sensor at all.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, Protocol

from edge_sdk.isolation import IsolatedEngine
from edge_sdk.parallel.condition import Condition

if TYPE_CHECKING:
    from edge_sdk.guard import GuardedEngine

_MOST_BYTES = 256
_SHORTEST_S = 0.05  # below this a share of time says nothing; the last one stands
# Jetson's GPUs, as their device tree calls them (rbonghi/jetson_stats @f41d5ca, jtop/core/gpu.py).
_JETSON_GPUS = frozenset({"gv11b", "gp10b", "ga10b", "gb10b", "gpu"})
_PER_MILLE = 1000.0
_GPU_ZONES = ("gpu-thermal", "GPU-therm")
_NPU_ZONES = ("npu-thermal", "soc-thermal")


class Worker(Protocol):
    """What a watch needs of an engine on an accelerator, such as `IsolatedEngine`."""

    @property
    def busy_s(self) -> float:
        """Seconds it has computed since it was opened."""

    @property
    def memory_bytes(self) -> int | None:
        """Resident memory of its process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """One look at an accelerator.

    Attributes:
        name: As it was asked for, such as `edgetpu:pci:0`.
        busy: The share of time since the last look in which it computed, 0 to 1; None where nobody counts.
        counted_by: `device`: it counts all work, also that of others. `calls`: this process's calls alone.
        memory_bytes: Of its worker process; None where there is none.
        temp_c: None where it has no sensor.
        limit_c: From here on it throttles, or is to be spared; None where that is not known.
    """

    name: str
    busy: float | None = None
    counted_by: Literal["device", "calls"] | None = None
    memory_bytes: int | None = None
    temp_c: float | None = None
    limit_c: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Heat:
    """A temperature and where it begins to hurt, both in degrees Celsius."""

    temp_c: float
    limit_c: float | None


class AcceleratorWatch:
    """Looks at one accelerator; each look tells of the time since the one before.

    Args:
        name: As it was asked for: `edgetpu`, `gpu`, `edgetpu:pci:0`, ...
        worker: Gives the engine on it, None while the CPU stands in for it; whose calls are counted where the device
            itself counts nothing.
        root: Below which `/sys` lies.
        heat: Tells its temperature; None takes what is known for delegates of this name.
        clock: Seconds.
    """

    def __init__(
        self,
        name: str,
        worker: Callable[[], Worker | None] = lambda: None,
        *,
        root: Path = Path("/"),
        heat: Callable[[], Heat | None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._worker = worker
        self._root = root
        kind, _, device = name.partition(":")
        self._heat = heat or (lambda: _heat_of(kind, device, root))
        self._kind = kind
        self._clock = clock
        self._looked_s = clock()
        self._counted: tuple[int, float] | None = None  # whose seconds, and how many at the last look
        self._busy: float | None = None

    def look(self) -> Usage:
        """How it fares now."""
        worker = self._worker()
        heat = self._heat()
        counter = _gpu_load(self._root) if self._kind == "gpu" else None
        calls = self._share(worker) if worker is not None else None
        return Usage(
            name=self.name,
            busy=counter if counter is not None else calls,
            counted_by="device" if counter is not None else "calls" if calls is not None else None,
            memory_bytes=None if worker is None else worker.memory_bytes,
            temp_c=None if heat is None else heat.temp_c,
            limit_c=None if heat is None else heat.limit_c,
        )

    def heat(self) -> Condition:
        """How hot it is, without a look at how busy."""
        found = self._heat()
        return Condition() if found is None else Condition(temp_c=found.temp_c, limit_c=found.limit_c)

    def condition(self) -> Condition:
        """The same for a pool: `ReplicaPool(..., watch={"tpu": watch.condition})` gives a hot one no new work."""
        usage = self.look()
        return Condition(busy=usage.busy, temp_c=usage.temp_c, limit_c=usage.limit_c)

    def _share(self, worker: Worker) -> float | None:
        now_s, busy_s, who = self._clock(), worker.busy_s, id(worker)
        passed_s = now_s - self._looked_s
        if self._counted is None or self._counted[0] != who:
            self._looked_s, self._counted, self._busy = now_s, (who, busy_s), None
        elif passed_s >= _SHORTEST_S:
            self._busy = min(1.0, max(0.0, (busy_s - self._counted[1]) / passed_s))
            self._looked_s, self._counted = now_s, (who, busy_s)
        return self._busy


def watch(
    engine: GuardedEngine, *, root: Path = Path("/"), heat: Callable[[], Heat | None] | None = None
) -> AcceleratorWatch:
    """A watch over the accelerator of an engine from `edge_sdk.opening`, which it does not keep alive.

    See `AcceleratorWatch`.
    """
    watched = weakref.ref(engine)

    def worker() -> Worker | None:
        guard = watched()
        found = None if guard is None else guard.accelerator
        return found if isinstance(found, IsolatedEngine) else None

    return AcceleratorWatch(engine.delegate, worker, root=root, heat=heat)


def read_millidegrees(temp: Path, limit: Path | None = None) -> Heat | None:
    """From files as the kernel writes them, in thousandths of a degree.

    Args:
        temp: The temperature; empty or unreadable where the device is powered down.
        limit: Where it begins to throttle.
    """
    degrees = _number(temp)
    if degrees is None:
        return None
    bound = None if limit is None else _number(limit)
    return Heat(temp_c=degrees / 1e3, limit_c=None if bound is None else bound / 1e3)


def _heat_of(kind: str, device: str, root: Path) -> Heat | None:
    reader = _HEAT.get(kind)
    return None if reader is None else reader(device, root)


def _apex(device: str, root: Path) -> Heat | None:
    """An Edge TPU on PCIe; the driver slows it down from `trip_point0_temp` on (google/gasket-driver @5815ee3)."""
    if device.startswith("usb"):
        return None
    index = device.rpartition(":")[2]
    folder = root / "sys/class/apex" / f"apex_{index if index.isdigit() else 0}"
    return read_millidegrees(folder / "temp", folder / "trip_point0_temp")


def _zone(types: tuple[str, ...]) -> Callable[[str, Path], Heat | None]:
    """A thermal zone by its type, never by its number, which differs between kernels; its limit is a passive trip."""

    def read(_: str, root: Path) -> Heat | None:
        for folder in sorted(root.glob("sys/class/thermal/thermal_zone*")):
            if _text(folder / "type") not in types:
                continue
            passive = next(
                (trip for trip in sorted(folder.glob("trip_point_*_type")) if _text(trip) == "passive"), None
            )
            limit = None if passive is None else passive.with_name(passive.name.replace("_type", "_temp"))
            return read_millidegrees(folder / "temp", limit)
        return None

    return read


_HEAT: Mapping[str, Callable[[str, Path], Heat | None]] = MappingProxyType(
    {
        "edgetpu": _apex,
        "gpu": _zone(_GPU_ZONES),
        "teflon": _zone(_NPU_ZONES),
        "vx": _zone(_NPU_ZONES),
        "ethos-u": _zone(_NPU_ZONES),
    }
)


def _gpu_load(root: Path) -> float | None:
    """Of a Jetson's GPU, 0 to 1: the kernel tells it per mille."""
    for folder in sorted(root.glob("sys/class/devfreq/*")):
        if _text(folder / "device/of_node/name") in _JETSON_GPUS:
            load = _number(folder / "device/load")
            if load is not None:
                return min(1.0, max(0.0, load / _PER_MILLE))
    load = _number(root / "sys/devices/platform/gpu.0/load")
    if load is None:
        load = _number(root / "sys/devices/gpu.0/load")
    return None if load is None else min(1.0, max(0.0, load / _PER_MILLE))


def _number(path: Path) -> float | None:
    text = _text(path)
    try:
        return float(int(text))
    except ValueError:
        return None


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_MOST_BYTES).decode("ascii", "replace").strip().strip("\0")
    except OSError:
        return ""
