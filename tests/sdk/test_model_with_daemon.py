"""`EdgeModel` and a real daemon: who decides, what is reported, and what happens when one of the two goes away."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from daemon_stage import DaemonProcess, tiny_bundle, until

from edge_sdk import EdgeModel
from edge_sdk.bundle import Bundle
from edge_sdk.errors import CommandError, DaemonUnreachableError, PinnedError, UsageError
from edge_sdk.local import AppStatus, Done, LocalClient, PinRequest, PreferRequest, UnpinRequest
from edge_sdk.preference import Mode, Preference

pytestmark = pytest.mark.device

X = np.array([[0.5, -0.25, 1.0, 0.0]], np.float32)
ACCURACY, SPEED = Preference(mode=Mode.ACCURACY), Preference(mode=Mode.SPEED)


@pytest.fixture
def digits(tmp_path: Path) -> Bundle:
    return tiny_bundle(tmp_path / "digits-1.edge")


@pytest.fixture
def daemon(digits: Bundle) -> Iterator[DaemonProcess]:
    place = Path(tempfile.mkdtemp(prefix="edge-"))  # short: a unix socket lies in it
    process = DaemonProcess(place / "d", f'[models]\ndigits = "{digits.path}"\n')
    process.start()
    yield process
    process.kill()
    shutil.rmtree(place)


def order(daemon: DaemonProcess, path: str, body: object) -> None:
    with LocalClient(daemon.socket) as client:
        client.call("POST", path, Done, body)


def runs(model: EdgeModel, variant: str) -> None:
    until(lambda: model.active == variant, f"{variant} to run; {model.active} does")


def seen(daemon: DaemonProcess) -> AppStatus | None:
    return next(iter(daemon.status().apps), None)


def test_the_daemon_decides_for_an_app_that_names_the_model(daemon: DaemonProcess) -> None:
    with EdgeModel("digits", socket=daemon.socket, name="door camera", preference=ACCURACY) as model:
        assert model.active == "exact"
        order(daemon, "/v1/prefer", PreferRequest(preference=SPEED))
        runs(model, "quick")
        app = until(lambda: (found := seen(daemon)) and found.active == "quick" and found, "the report")
        assert (app.name, app.model) == ("door camera", "digits")
    until(lambda: not daemon.status().apps, "the goodbye")


def test_an_app_changes_its_mind_and_the_daemon_hears_of_it_also_after_a_restart(daemon: DaemonProcess) -> None:
    with EdgeModel("digits", socket=daemon.socket, preference=ACCURACY) as model:
        assert model.active == "exact"
        model.prefer(SPEED)
        runs(model, "quick")
        daemon.kill()
        model.prefer(ACCURACY)  # nobody hears it: the daemon that comes does
        daemon.start()
        runs(model, "exact")
        assert daemon.status().models["digits"].preference == ACCURACY
        with pytest.raises(UsageError):
            model.prefer("accuracy")  # type: ignore[arg-type]  # what is refused


def test_the_daemon_decides_for_an_app_that_opened_the_bundle_itself(daemon: DaemonProcess, digits: Bundle) -> None:
    with EdgeModel(digits.path, socket=daemon.socket, preference=SPEED) as model:
        assert model.active == "quick"
        order(daemon, "/v1/pin", PinRequest(model="digits", variant="exact"))
        runs(model, "exact")


def test_a_static_choice_leaves_the_daemon_out_of_it(daemon: DaemonProcess, digits: Bundle) -> None:
    with EdgeModel(digits.path, socket=daemon.socket, variant="quick") as model:
        assert model.active == "quick"
        assert not daemon.status().apps


def test_a_bundle_the_daemon_does_not_serve_is_decided_in_the_process(daemon: DaemonProcess, tmp_path: Path) -> None:
    other = tiny_bundle(tmp_path / "other-1.edge", name="other")
    with EdgeModel(other.path, socket=daemon.socket, preference=ACCURACY) as model:
        assert model.active == "exact"
        assert not daemon.status().apps


def test_the_apps_own_pin_holds_until_it_is_given_back(daemon: DaemonProcess) -> None:
    with EdgeModel("digits", socket=daemon.socket, preference=ACCURACY) as model:
        model.switch("quick")
        assert model.active == "quick"
        model.switch(None)
        runs(model, "exact")


def test_an_operators_pin_is_above_the_apps(daemon: DaemonProcess) -> None:
    with EdgeModel("digits", socket=daemon.socket, preference=ACCURACY) as model:
        order(daemon, "/v1/pin", PinRequest(model="digits", variant="exact"))
        with pytest.raises(PinnedError, match="operator"):
            model.switch("quick")
        assert model.active == "exact"
        order(daemon, "/v1/unpin", UnpinRequest())
        model.switch("quick")
        assert model.active == "quick"


def test_calls_are_counted_and_timed(daemon: DaemonProcess) -> None:
    with EdgeModel("digits", socket=daemon.socket) as model:
        for _ in range(50):
            model(X)
        app = until(lambda: (found := seen(daemon)) and found.calls >= 50 and found, "the calls")
        assert app.p50_ms is not None
        assert app.p50_ms > 0


def test_an_app_works_on_without_its_daemon_and_is_heard_again_after_its_restart(daemon: DaemonProcess) -> None:
    with EdgeModel("digits", socket=daemon.socket, preference=ACCURACY) as model:
        daemon.kill()
        assert model(X).shape == (1, 3)
        model.switch("quick")  # nobody is there to say no
        assert model.active == "quick"
        daemon.start()
        until(lambda: seen(daemon), "the app to register again")
        order(daemon, "/v1/pin", PinRequest(model="digits", variant="exact"))
        runs(model, "exact")


def test_a_variant_that_cannot_be_loaded_is_reported_and_another_assigned(
    daemon: DaemonProcess, digits: Bundle
) -> None:
    with EdgeModel("digits", socket=daemon.socket, preference=ACCURACY) as model:
        quick = digits.path / "blobs" / "sha256" / digits.variant("quick").blob
        model.bundle._verified.discard(quick.name)  # as if it had not been looked at yet
        quick.write_bytes(b"not a model")
        order(daemon, "/v1/prefer", PreferRequest(preference=SPEED))
        until(lambda: "quick" in daemon.said and "is left out" in daemon.said, "the failure to be known")
        assert model.active == "exact"
        assert model(X).shape == (1, 3)


def test_a_name_no_daemon_knows_is_named(daemon: DaemonProcess, tmp_path: Path) -> None:
    with pytest.raises(DaemonUnreachableError, match="no daemon serves"):
        EdgeModel("digits", socket=tmp_path / "nothing.sock")
    with pytest.raises(CommandError, match="no model 'faces'"):
        EdgeModel("faces", socket=daemon.socket)
