"""How busy GPU and NPU are, where a driver counts it.

| driver | file | says |
|---|---|---|
| Jetson GPU | `load` of the `devfreq` device with node `gpu`, `ga10b`...; `/sys/devices/gpu.0/load` | per mille |
| amdgpu | `/sys/class/drm/card*/device/gpu_busy_percent` | percent |
| devfreq of others | `/sys/class/devfreq/*{gpu,npu}*/load` | `37@800000000Hz` |
| galcore (i.MX 8M Plus) | `/sys/kernel/debug/gc/load`, root only | core 0 the GPU, core 1 the NPU |
| rknpu | `/sys/kernel/debug/rknpu/load`, root only | percent of each core |

Sources: jetson_stats (devfreq nodes), the kernel's amdgpu documentation, published readings of the others. An Edge TPU
has no such counter: its time is added up from what apps report, see `edge_daemon.sensors.busy`.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable

from edge_daemon.sensors.files import Files
from edge_daemon.sensors.reading import Load, Unavailable

_DEVFREQ = "sys/class/devfreq"
_DRM = "sys/class/drm"
_CARD = re.compile(r"\Acard\d{1,3}\Z")
_JETSON_NODES = frozenset({"gpu", "gv11b", "gp10b", "ga10b", "gb10b"})
_JETSON_LOADS = ("sys/devices/gpu.0/load", "sys/devices/platform/gpu.0/load")
_GALCORE = "sys/kernel/debug/gc/load"
_RKNPU = "sys/kernel/debug/rknpu/load"
_PER_MILLE = 1000.0
_FULL = 100.0
_RESCAN_READS = 60
_AT_CLOCK = re.compile(r"\A(\d{1,3})(?:@\d{1,12}(?:Hz)?)?\Z", re.ASCII)
_GALCORE_CORES = re.compile(r"core\s*:\s*(\d{1,2})\s+load\s*:\s*(\d{1,3})\s*%", re.ASCII)
_RKNPU_CORES = re.compile(r"Core\d{1,2}:\s*(\d{1,3})\s*%|\bNPU load:\s*(\d{1,3})\s*%", re.ASCII)

_Parse = Callable[[str], float | None]


class _Counted(ABC):
    """The first counter that can be read, looked up again now and then."""

    name: str
    _nothing: str

    def __init__(self, files: Files) -> None:
        self._files = files
        self._found: tuple[str, _Parse] | None = None
        self._reads_left = 0

    def read(self) -> Load | Unavailable:
        """How busy it is now."""
        if self._found is None:
            self._reads_left -= 1
            if self._reads_left >= 0:
                return Unavailable(self._nothing)
            self._reads_left = _RESCAN_READS
            self._found = next(
                ((path, parse) for path, parse in self._places() if isinstance(self._files.text(path), str)), None
            )
            if self._found is None:
                return Unavailable(self._nothing)
        path, parse = self._found
        text = self._files.text(path)
        if isinstance(text, Unavailable):
            self._found, self._reads_left = None, 0  # gone, or renumbered: look again next time
            return text
        percent = parse(text)
        if percent is None or not 0 <= percent <= _FULL:
            return Unavailable(f"{path}: {text[:40]!r} is no load")
        return Load(percent=percent, source=path)

    @abstractmethod
    def _places(self) -> list[tuple[str, _Parse]]:
        """Where a counter may be, the best first, and how each is read."""

    def _devfreq(self, kind: str) -> list[tuple[str, _Parse]]:
        return [(f"{_DEVFREQ}/{name}/load", _at_clock) for name in self._files.names(_DEVFREQ) if kind in name]


class GpuLoad(_Counted):
    """GPU in use."""

    name = "gpu"
    _nothing = "no driver here counts how busy a GPU is"

    def _places(self) -> list[tuple[str, _Parse]]:
        found: list[tuple[str, _Parse]] = [
            (f"{_DEVFREQ}/{name}/device/load", _per_mille)
            for name in self._files.names(_DEVFREQ)
            if self._files.text(f"{_DEVFREQ}/{name}/device/of_node/name") in _JETSON_NODES
        ]
        found += [(path, _per_mille) for path in _JETSON_LOADS]
        cards = [name for name in self._files.names(_DRM) if _CARD.match(name)]
        found += [(f"{_DRM}/{name}/device/gpu_busy_percent", _at_clock) for name in cards]
        return [*found, *self._devfreq("gpu"), (_GALCORE, lambda text: _galcore(text, 0))]


class NpuLoad(_Counted):
    """NPU in use."""

    name = "npu"
    _nothing = "no driver here counts how busy an NPU is"

    def _places(self) -> list[tuple[str, _Parse]]:
        return [(_RKNPU, _rknpu), *self._devfreq("npu"), (_GALCORE, lambda text: _galcore(text, 1))]


def _per_mille(text: str) -> float | None:
    return int(text) / _PER_MILLE * _FULL if text.isascii() and text.isdecimal() else None


def _at_clock(text: str) -> float | None:
    match = _AT_CLOCK.match(text)
    return None if match is None else float(match[1])


def _galcore(text: str, core: int) -> float | None:
    return next((float(load) for number, load in _GALCORE_CORES.findall(text) if int(number) == core), None)


def _rknpu(text: str) -> float | None:
    loads = [float(core or whole) for core, whole in _RKNPU_CORES.findall(text)]
    return max(loads, default=None)
