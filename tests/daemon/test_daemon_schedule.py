"""A real daemon that is told where it is, and that still knows after a restart what was said to it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemon_stage import DaemonProcess, tiny_bundle, until

from edge_sdk.errors import WireError
from edge_sdk.local import Done, LocalClient, PositionReport, PreferRequest
from edge_sdk.preference import Mode, Preference

pytestmark = pytest.mark.device


@pytest.fixture
def board(tmp_path: Path) -> Iterator[DaemonProcess]:
    digits = tiny_bundle(tmp_path / "digits-1.edge")
    place = Path(tempfile.mkdtemp(prefix="edge-"))  # short: a unix socket lies in it
    schedule = "name = 'depot'\nwhere = {lat = 52.5, lon = 13.4, radius_m = 200}\npreference = {mode = 'speed'}"
    process = DaemonProcess(
        place / "d", f'[models]\ndigits = "{digits.path}"\n[site]\ntime_zone = "UTC"\n[[schedule]]\n{schedule}\n'
    )
    process.start()
    yield process
    process.kill()
    shutil.rmtree(place)


def test_a_board_that_comes_to_the_depot_wants_what_its_schedule_says(board: DaemonProcess) -> None:
    def wants(mode: Mode) -> bool:
        return board.status().models["digits"].preference.mode is mode

    with LocalClient(board.socket) as client:
        client.call("POST", "/v1/prefer", Done, PreferRequest(preference=Preference(mode=Mode.ACCURACY, max_power_w=4)))
        client.call("POST", "/v1/position", Done, PositionReport(lat=52.5001, lon=13.4001))
        until(lambda: wants(Mode.SPEED), "the depot")
        model = board.status().models["digits"]
        assert (model.wished_by, model.preference.max_power_w) == ("schedule depot", 4)
        client.call("POST", "/v1/position", Done, PositionReport(lat=0, lon=0))
        until(lambda: wants(Mode.ACCURACY), "to have left it")
        with pytest.raises(WireError):
            client.call("POST", "/v1/position", Done, {"lat": 91, "lon": 0})
    board.kill()
    board.start()
    assert board.status().models["digits"].preference == Preference(mode=Mode.ACCURACY, max_power_w=4)
