"""Recorded boards: what the files of real ones say, written below a temporary root.

Zones, rails and readings are those of public recordings (a Jetson Nano under L4T 32, an Orin Nano under JetPack 6, the
kernel's drivers and device trees of the others); no board was touched.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from edge_daemon.sensors import suite

PI4 = {
    "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0",
    "proc/device-tree/compatible": "raspberrypi,4-model-b\0brcm,bcm2711\0",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "61824\n",
    "sys/class/thermal/thermal_zone0/trip_point_0_type": "critical\n",
    "sys/class/thermal/thermal_zone0/trip_point_0_temp": "110000\n",
    "sys/class/hwmon/hwmon0/name": "cpu_thermal\n",
    "sys/class/hwmon/hwmon0/temp1_input": "61824\n",
    "sys/class/hwmon/hwmon1/name": "rpi_volt\n",
    "sys/class/hwmon/hwmon1/in0_lcrit_alarm": "0\n",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq": "1800000\n",
    "sys/devices/system/cpu/cpufreq/policy0/cpuinfo_max_freq": "1800000\n",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq": "600000\n",  # idle
    "sys/devices/system/cpu/cpufreq/policy0/scaling_governor": "ondemand\n",
}
PI_ZERO = {
    "proc/device-tree/compatible": "raspberrypi,model-zero-2-w\0brcm,bcm2837\0",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "48312\n",
    "sys/class/hwmon/hwmon0/name": "cpu_thermal\n",
    "sys/class/hwmon/hwmon0/temp1_input": "48312\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq": "1000000\n",
    "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": "1000000\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "600000\n",
}
PI3 = {**PI_ZERO, "proc/device-tree/compatible": "raspberrypi,3-model-b-plus\0brcm,bcm2837\0"}
PI5 = {
    "proc/device-tree/compatible": "raspberrypi,5-model-b\0brcm,bcm2712\0",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "62400\n",
    "sys/class/thermal/cooling_device0/type": "pwm-fan\n",
    "sys/class/thermal/cooling_device0/cur_state": "2\n",
    "sys/class/thermal/cooling_device0/max_state": "4\n",
    "sys/class/hwmon/hwmon0/name": "cpu_thermal\n",
    "sys/class/hwmon/hwmon0/temp1_input": "62400\n",
    "sys/class/hwmon/hwmon1/name": "rp1_adc\n",
    "sys/class/hwmon/hwmon1/temp1_input": "51234\n",
    "sys/class/hwmon/hwmon3/name": "rpi_volt\n",
    "sys/class/hwmon/hwmon3/in0_lcrit_alarm": "0\n",
    "sys/class/hwmon/hwmon3/in0_label": "core\n",
    "sys/class/hwmon/hwmon3/in0_input": "880\n",
}
JETSON_NANO = {
    "proc/device-tree/model": "NVIDIA Jetson Nano Developer Kit\0",
    "proc/device-tree/compatible": "nvidia,jetson-nano\0nvidia,tegra210\0",
    "sys/class/thermal/thermal_zone0/type": "AO-therm\n",
    "sys/class/thermal/thermal_zone0/temp": "45000\n",
    "sys/class/thermal/thermal_zone1/type": "CPU-therm\n",
    "sys/class/thermal/thermal_zone1/temp": "40500\n",
    "sys/class/thermal/thermal_zone2/type": "GPU-therm\n",
    "sys/class/thermal/thermal_zone2/temp": "40000\n",
    "sys/class/thermal/thermal_zone3/type": "PLL-therm\n",
    "sys/class/thermal/thermal_zone3/temp": "37000\n",
    "sys/class/thermal/thermal_zone4/type": "PMIC-Die\n",
    "sys/class/thermal/thermal_zone4/temp": "100000\n",
    "sys/class/thermal/thermal_zone5/type": "thermal-fan-est\n",
    "sys/class/thermal/thermal_zone5/temp": "40250\n",
    "sys/bus/i2c/devices/6-0040/name": "ina3221x\n",
    "sys/bus/i2c/devices/6-0040/iio:device0/rail_name_0": "POM_5V_IN\n",
    "sys/bus/i2c/devices/6-0040/iio:device0/in_power0_input": "1750\n",
    "sys/bus/i2c/devices/6-0040/iio:device0/rail_name_1": "POM_5V_GPU\n",
    "sys/bus/i2c/devices/6-0040/iio:device0/in_power1_input": "0\n",
    "sys/bus/i2c/devices/6-0040/iio:device0/rail_name_2": "POM_5V_CPU\n",
    "sys/bus/i2c/devices/6-0040/iio:device0/in_power2_input": "366\n",
    "sys/devices/gpu.0/load": "760\n",
    "sys/class/devfreq/57000000.gpu/cur_freq": "921600000\n",
    "sys/class/devfreq/57000000.gpu/device/of_node/name": "gpu\0",
}
ORIN_NANO = {
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "49312\n",
    "sys/class/thermal/thermal_zone1/type": "gpu-thermal\n",
    "sys/class/thermal/thermal_zone1/temp": "48500\n",
    "sys/class/thermal/thermal_zone2/type": "cv0-thermal\n",
    "sys/class/thermal/thermal_zone2/temp": "",  # switched off
    "sys/class/thermal/thermal_zone3/type": "cv1-thermal\n",
    "sys/class/thermal/thermal_zone3/temp": "-256000\n",  # as older kernels say it
    "sys/class/thermal/thermal_zone5/type": "soc0-thermal\n",
    "sys/class/thermal/thermal_zone5/temp": "47093\n",
    "sys/class/thermal/thermal_zone8/type": "tj-thermal\n",
    "sys/class/thermal/thermal_zone8/temp": "",
    "sys/class/hwmon/hwmon0/name": "nvme\n",  # all that psutil would show
    "sys/class/hwmon/hwmon0/temp1_input": "71850\n",
    "sys/bus/i2c/devices/1-0040/name": "ina3221\n",
    "sys/bus/i2c/devices/1-0040/hwmon/hwmon1/name": "ina3221\n",
    "sys/bus/i2c/devices/1-0040/hwmon/hwmon1/in1_label": "VDD_IN\n",
    "sys/bus/i2c/devices/1-0040/hwmon/hwmon1/in1_input": "5080\n",
    "sys/bus/i2c/devices/1-0040/hwmon/hwmon1/curr1_input": "1120\n",
    "sys/bus/i2c/devices/1-0040/hwmon/hwmon1/curr1_crit": "7784\n",
    "sys/bus/i2c/devices/1-0040/hwmon/hwmon1/curr1_crit_alarm": "0\n",
    "sys/bus/i2c/devices/1-0040/hwmon/hwmon1/in2_label": "VDD_CPU_GPU_CV\n",
    "sys/bus/i2c/devices/1-0040/hwmon/hwmon1/in2_input": "5072\n",
    "sys/bus/i2c/devices/1-0040/hwmon/hwmon1/curr2_input": "304\n",
    "sys/bus/i2c/devices/1-0040/hwmon/hwmon1/in3_label": "VDD_SOC\n",
    "sys/bus/i2c/devices/1-0040/hwmon/hwmon1/in3_input": "5072\n",
    "sys/bus/i2c/devices/1-0040/hwmon/hwmon1/curr3_input": "288\n",
    "sys/bus/i2c/devices/1-0040/hwmon/hwmon1/in7_label": "sum of shunt voltages\n",
    "sys/bus/i2c/devices/1-0040/hwmon/hwmon1/in7_input": "9\n",
    "sys/class/hwmon/hwmon3/name": "soctherm_oc\n",
    "sys/class/hwmon/hwmon3/oc1_event_cnt": "0\n",
    "sys/class/hwmon/hwmon3/oc3_event_cnt": "37\n",  # since it was booted
    "sys/devices/platform/gpu.0/load": "300\n",
    "sys/class/devfreq/17000000.gpu/cur_freq": "612000000\n",
    "sys/class/devfreq/17000000.gpu/device/of_node/name": "gpu\0",
    "sys/class/devfreq/17000000.gpu/device/load": "312\n",
}
XAVIER_NX = {
    **{path: text for path, text in ORIN_NANO.items() if "devfreq" not in path},
    "proc/device-tree/model": "NVIDIA Jetson Xavier NX Developer Kit\0",
    "sys/class/devfreq/17000000.gv11b/device/of_node/name": "gv11b\0",
    "sys/class/devfreq/17000000.gv11b/device/load": "45\n",
}
ORIN_NX = {**ORIN_NANO, "proc/device-tree/model": "NVIDIA Jetson Orin NX Engineering Reference Developer Kit\0"}
IMX8MP = {
    "proc/device-tree/compatible": "fsl,imx8mp-evk\0fsl,imx8mp\0",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "55000\n",
    "sys/class/thermal/thermal_zone0/trip_point_0_temp": "85000\n",
    "sys/class/thermal/thermal_zone0/trip_point_0_type": "passive\n",
    "sys/class/thermal/thermal_zone0/trip_point_1_temp": "95000\n",
    "sys/class/thermal/thermal_zone0/trip_point_1_type": "critical\n",
    "sys/class/thermal/thermal_zone1/type": "soc-thermal\n",
    "sys/class/thermal/thermal_zone1/temp": "56000\n",
    "sys/kernel/debug/gc/load": "core      : 0\nload      : 12%\n\ncore      : 1\nload      : 87%\n",
}
IMX93 = {
    "proc/device-tree/compatible": "fsl,imx93-11x11-evk\0fsl,imx93\0",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "43000\n",
}
RK3588 = {
    "sys/class/thermal/thermal_zone0/type": "soc-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "51769\n",
    "sys/class/devfreq/fb000000.gpu/load": "7@300000000Hz\n",
    "sys/kernel/debug/rknpu/load": "NPU load:  Core0: 41%, Core1:  3%, Core2:  0%,\n",
}
CORAL_DEV = {
    "proc/device-tree/compatible": "google,imx8mq-phanbell\0fsl,imx8mq\0",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "63000\n",
    "sys/class/thermal/thermal_zone0/trip_point_0_temp": "75000\n",
    "sys/class/thermal/thermal_zone0/trip_point_0_type": "passive\n",
    "sys/class/thermal/thermal_zone0/trip_point_1_temp": "80000\n",
    "sys/class/thermal/thermal_zone0/trip_point_1_type": "passive\n",
    "sys/class/thermal/thermal_zone0/trip_point_2_temp": "90000\n",
    "sys/class/thermal/thermal_zone0/trip_point_2_type": "critical\n",
    "sys/class/thermal/thermal_zone0/trip_point_3_temp": "65000\n",
    "sys/class/thermal/thermal_zone0/trip_point_3_type": "active\n",
    "sys/class/thermal/cooling_device0/type": "thermal-cpufreq-0\n",
    "sys/class/thermal/cooling_device0/cur_state": "0\n",
    "sys/class/thermal/cooling_device1/type": "gpio_fan\n",
    "sys/class/thermal/cooling_device1/cur_state": "1\n",
    "sys/class/apex/apex_0/temp": "51050\n",
    "sys/class/apex/apex_0/trip_point0_temp": "84800\n",
    "sys/class/apex/apex_0/trip_point1_temp": "89800\n",
}
CORAL_MINI = {
    "proc/device-tree/compatible": "mediatek,mt8167-coral\0mediatek,mt8167\0",
    "sys/class/thermal/thermal_zone0/type": "cpu_thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "52100\n",
}
CORAL_USB = {
    **PI4,
    "sys/bus/usb/devices/2-1/idVendor": "18d1\n",
    "sys/bus/usb/devices/2-1/idProduct": "9302\n",
    "sys/bus/usb/devices/2-1/speed": "5000\n",
}
X86 = {
    "sys/class/thermal/thermal_zone0/type": "x86_pkg_temp\n",
    "sys/class/thermal/thermal_zone0/temp": "47000\n",
    "sys/class/hwmon/hwmon2/name": "coretemp\n",
    "sys/class/hwmon/hwmon2/temp1_input": "47000\n",
    "sys/class/powercap/intel-rapl:0/name": "package-0\n",
    "sys/class/powercap/intel-rapl:0/energy_uj": "1000000\n",
    "sys/class/powercap/intel-rapl:0/max_energy_range_uj": "262143328850\n",
    "sys/class/powercap/intel-rapl:0:0/name": "core\n",
    "sys/class/powercap/intel-rapl:0:0/energy_uj": "700000\n",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq": "4000000\n",
    "sys/devices/system/cpu/cpufreq/policy0/cpuinfo_max_freq": "4000000\n",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq": "800000\n",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_governor": "powersave\n",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_driver": "intel_pstate\n",
    "sys/class/drm/card0/device/gpu_busy_percent": "23\n",
}
ANDROID: dict[str, str] = {}  # tells its heat by an interface of its own, not by files
PISUGAR = {
    "sys/class/power_supply/BAT0/type": "Battery\n",
    "sys/class/power_supply/BAT0/status": "Discharging\n",
    "sys/class/power_supply/BAT0/capacity": "87\n",
    "sys/class/power_supply/BAT0/voltage_now": "4012000\n",
    "sys/class/power_supply/AC0/online": "0\n",  # it has no type
}
# Two batteries of 24 and 48 Wh, the small one idle, the large one drains; a mouse, a tablet with its own charger.
LAPTOP = {
    "sys/class/thermal/thermal_zone0/type": "acpitz\n",
    "sys/class/thermal/thermal_zone0/temp": "20000\n",  # a constant on many
    "sys/class/thermal/thermal_zone1/type": "x86_pkg_temp\n",
    "sys/class/thermal/thermal_zone1/temp": "54000\n",
    "sys/class/thermal/thermal_zone1/trip_point_0_type": "passive\n",
    "sys/class/thermal/thermal_zone1/trip_point_0_temp": "0\n",  # a placeholder
    "sys/class/power_supply/AC/type": "Mains\n",
    "sys/class/power_supply/AC/online": "0\n",
    "sys/class/power_supply/BAT0/type": "Battery\n",
    "sys/class/power_supply/BAT0/scope": "System\n",
    "sys/class/power_supply/BAT0/present": "1\n",
    "sys/class/power_supply/BAT0/status": "Unknown\n",
    "sys/class/power_supply/BAT0/capacity": "90\n",
    "sys/class/power_supply/BAT0/energy_full": "24000000\n",
    "sys/class/power_supply/BAT0/power_now": "0\n",
    "sys/class/power_supply/BAT1/type": "Battery\n",
    "sys/class/power_supply/BAT1/present": "1\n",
    "sys/class/power_supply/BAT1/status": "Discharging\n",
    "sys/class/power_supply/BAT1/energy_now": "14400000\n",
    "sys/class/power_supply/BAT1/energy_full": "48000000\n",
    "sys/class/power_supply/BAT1/power_now": "7250000\n",
    "sys/class/power_supply/hidpp_battery_0/type": "Battery\n",
    "sys/class/power_supply/hidpp_battery_0/scope": "Device\n",
    "sys/class/power_supply/hidpp_battery_0/status": "Discharging\n",
    "sys/class/power_supply/hidpp_battery_0/capacity": "5\n",
    "sys/class/power_supply/wacom_ac_0/type": "Mains\n",
    "sys/class/power_supply/wacom_ac_0/scope": "Device\n",
    "sys/class/power_supply/wacom_ac_0/online": "1\n",
}
RECORDED: Mapping[str, Mapping[str, str]] = {
    "pi-zero": PI_ZERO,
    "pi3": PI3,
    "pi4": PI4,
    "pi5": PI5,
    "jetson-nano": JETSON_NANO,
    "xavier-nx": XAVIER_NX,
    "orin-nano": ORIN_NANO,
    "orin-nx": ORIN_NX,
    "coral-dev": CORAL_DEV,
    "coral-mini": CORAL_MINI,
    "coral-usb": CORAL_USB,
    "imx8mp": IMX8MP,
    "imx93": IMX93,
    "rk3588": RK3588,
    "x86": X86,
    "android": ANDROID,
    "pisugar": PISUGAR,
    "laptop": LAPTOP,
}


class Board:
    """A tree that can be written to while sensors read it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")

    def remove(self, path: str) -> None:
        (self.root / path).unlink()


@pytest.fixture
def board(tmp_path: Path) -> Callable[..., Board]:
    """Make a recorded board: `board("pi4")`, with files changed (`{"path": "text"}`) or left out (`{"path": None}`)."""

    def make(name: str | None = None, changes: Mapping[str, str | None] | None = None) -> Board:
        made = Board(tmp_path)
        for path, text in {**(RECORDED[name] if name else {}), **(changes or {})}.items():
            if text is not None:
                made.write(path, text)
        return made

    return make


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read is read in time: a busy machine may need longer for it than a daemon would wait."""
    for name in ("_FIRST_WAIT_S", "_WAIT_S"):
        monkeypatch.setattr(suite, name, 60.0)


Answering = Callable[[Path, Callable[[socket.socket], None]], None]


@pytest.fixture
def answering() -> Iterator[Answering]:
    """Servers on unix sockets, each of which answers who connects by a function, one after the other."""
    ends: list[tuple[socket.socket, threading.Thread]] = []

    def serve(path: Path, answer: Callable[[socket.socket], None]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        server.bind(str(path))
        server.listen()

        def answer_all() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.settimeout(60)
                    answer(connection)

        thread = threading.Thread(target=answer_all)
        thread.start()
        ends.append((server, thread))

    yield serve
    for server, thread in ends:
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(60)
        assert not thread.is_alive()
