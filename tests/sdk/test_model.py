"""`EdgeModel` on real files and real runtimes, without a daemon."""

from __future__ import annotations

import gc
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from daemon_stage import tiny_bundle, until
from msgspec import to_builtins

from edge_sdk import EdgeModel
from edge_sdk.bundle import Bundle
from edge_sdk.errors import (
    BlobMismatchError,
    BundleError,
    DaemonUnreachableError,
    DelegateError,
    DelegateUnavailableError,
    InputDtypeError,
    InputNameError,
    InputShapeError,
    InputValueError,
    ModelClosedError,
    ModelLoadError,
    SwitchCancelledError,
    SwitchTimeoutError,
    UnknownVariantError,
    UsageError,
)
from edge_sdk.preference import Mode, Preference

pytestmark = pytest.mark.device

TINY = Path(__file__).parent.parent / "data" / "tiny"
ONE = {"inputs": [{"name": "x", "shape": [1, 4], "dtype": "float32"}]}
IO = ONE | {"outputs": [{"name": "scores", "shape": [1, 3], "dtype": "float32"}]}
X = np.array([[0.5, -0.25, 1.0, 0.0]], np.float32)

Make = Callable[..., Bundle]


@pytest.fixture(autouse=True)
def _no_daemon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGE_DAEMON_SOCKET", str(tmp_path / "no.sock"))


def tiny(*names: str) -> dict[str, bytes]:
    return {name: (TINY / f"{name}.tflite").read_bytes() for name in names}


@pytest.fixture
def dense(make_bundle: Make) -> Path:
    return make_bundle(contents=tiny("dense_fp32", "dense_int8"), **IO).path


@pytest.fixture
def model(dense: Path) -> Iterator[EdgeModel]:
    with EdgeModel(dense) as opened:
        yield opened


def test_float_in_and_float_out_whatever_the_variant_is_inside(model: EdgeModel) -> None:
    answers = {}
    for variant in model.variants:
        model.switch(variant)
        answers[variant] = model(X)
        assert answers[variant].dtype == np.float32
        assert answers[variant].shape == (1, 3)
    np.testing.assert_allclose(answers["dense_fp32"], answers["dense_int8"], atol=0.05)


def test_a_sample_alone_a_batch_and_an_empty_batch(model: EdgeModel) -> None:
    assert model(X[0]).shape == (3,)
    batch = model(np.repeat(X, 5, axis=0))
    assert batch.shape == (5, 3)
    np.testing.assert_array_equal(batch[0], model(X[0]))
    assert model(np.empty((0, 4), np.float32)).shape == (0, 3)


def test_how_long_a_slow_call_waited_for_its_turn_is_known_apart_from_what_it_took(dense: Path) -> None:
    with EdgeModel(dense, variant="dense_fp32") as model:
        tally, turn = model._tally, model._seat._turn
        tally.limit_ms = 0.0
        thread = threading.Thread(target=model, args=(X,))
        with turn:
            thread.start()
            until(lambda: turn._waiting, "the call to wait")
            threading.Event().wait(0.05)
        thread.join()
        taken = tally.take("dense_fp32")
        assert taken.waited_ms is not None
        assert taken.waited_ms >= 50.0
        model(X)
        assert tally.take("dense_fp32").waited_ms == 0.0


def test_inputs_by_position_by_name_and_as_a_mapping(make_bundle: Make) -> None:
    two = {
        "inputs": [{"name": name, "shape": [1, 2], "dtype": "float32"} for name in ("a", "b")],
        "outputs": [{"name": name, "shape": [1, 2], "dtype": "float32"} for name in ("total", "product")],
    }
    a, b = np.array([[1.0, 2.0]], np.float32), np.array([[3.0, 4.0]], np.float32)
    with EdgeModel(make_bundle(contents=tiny("two_by_two"), **two).path) as model:
        for answer in (model(a, b), model(b=b, a=a), model({"b": b, "a": a})):
            np.testing.assert_array_equal(answer["total"], [[4.0, 6.0]])
            np.testing.assert_array_equal(answer["product"], [[3.0, 8.0]])
        with pytest.raises(InputNameError, match="'c'"):
            model(a=a, c=b)
        with pytest.raises(InputNameError, match="'b' is not given"):
            model(a=a)
        with pytest.raises(InputShapeError, match="at once"):
            model(a, b=b)


def test_variants_come_best_first_and_switch_returns_when_the_new_one_answers(model: EdgeModel) -> None:
    assert model.variants == ("dense_fp32", "dense_int8")
    model.switch("dense_int8")
    assert model.active == "dense_int8"
    model.switch("dense_fp32")
    assert model.active == "dense_fp32"


def test_a_preference_decides_where_nobody_else_does(dense: Path) -> None:
    with EdgeModel(dense, preference=Preference(mode=Mode.ACCURACY)) as model:
        assert model.active == "dense_fp32"


def test_an_app_changes_its_mind_and_hears_what_only_a_daemon_could_keep(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with EdgeModel(tiny_bundle(tmp_path / "d.edge").path, preference=Preference(mode=Mode.ACCURACY)) as model:
        best = model.active
        model.prefer(Preference(mode=Mode.SPEED, max_power_w=3.0, battery_until="18:30"))
        until(lambda: model.active != best, "the fast one")
        assert "max_power_w and battery_until binds nothing here" in caplog.text
        model.prefer(Preference(mode=Mode.ACCURACY))
        until(lambda: model.active == best, "the best one")


def test_a_pin_is_given_back(dense: Path) -> None:
    with EdgeModel(dense, preference=Preference(mode=Mode.ACCURACY)) as model:
        model.switch("dense_int8")
        assert model.active == "dense_int8"
        model.switch(None)
        assert model.active in model.variants  # from here on the policy decides, in its own time


def test_the_static_choice_starts_no_thread(dense: Path) -> None:
    before = threading.active_count()
    with EdgeModel(dense, variant="dense_int8") as model:
        assert threading.active_count() == before
        assert model.active == "dense_int8"


@pytest.mark.parametrize("standby", [0, 1])
def test_no_call_is_lost_or_wrong_while_variants_are_switched_under_several_threads(dense: Path, standby: int) -> None:
    with EdgeModel(dense, standby=standby) as model:
        done = threading.Event()
        answers: list[set[bytes]] = [set() for _ in range(4)]
        expected = set()
        for variant in model.variants:
            model.switch(variant)
            expected.add(model(X).tobytes())
        failed: list[Exception] = []

        def work(mine: set[bytes]) -> None:
            try:
                while not done.is_set():
                    mine.add(model(X).tobytes())
            except Exception as error:  # noqa: BLE001 - whatever it is, it is one too many
                failed.append(error)

        threads = [threading.Thread(target=work, args=(mine,)) for mine in answers]
        for thread in threads:
            thread.start()
        for turn in range(60):
            model.switch(model.variants[turn % 2])
        done.set()
        for thread in threads:
            thread.join(20.0)
        assert not failed
        assert all(answers)
        assert set.union(*answers) <= expected  # to the bit


def test_a_newer_order_takes_the_place_of_one_that_is_under_way(model: EdgeModel) -> None:
    here, there = model.active, next(each for each in model.variants if each != model.active)
    with model._switcher._one_load:  # as if the load took long
        away = model.begin_switch(there)
        assert not away.done
        assert model(X).shape == (1, 3)
        model.switch(here)
        assert away.done
        assert isinstance(away.error, SwitchCancelledError)
    assert model.active == here
    assert model.begin_switch(there).wait(20.0)
    assert model.active == there


def test_a_switch_that_takes_too_long_is_called_off_and_pins_nothing(model: EdgeModel) -> None:
    model.switch("dense_int8")
    with model._switcher._one_load:
        with pytest.raises(SwitchTimeoutError, match=r"within 0\.01 s"):
            model.switch("dense_fp32", deadline_s=0.01)
        held = model.begin_switch("dense_fp32")
        assert held.cancel()
    assert model.active == "dense_int8"
    assert model._pin == "dense_int8"
    model.switch("dense_fp32", deadline_s=20.0)
    assert model.active == "dense_fp32"


def test_closing_calls_off_a_switch_under_way(dense: Path) -> None:
    model = EdgeModel(dense, variant="dense_fp32")
    with model._switcher._one_load:
        switch = model.begin_switch("dense_int8")
        closing = threading.Thread(target=model.close)
        closing.start()
        assert switch.wait(20.0)
    closing.join(20.0)
    assert isinstance(switch.error, ModelClosedError)
    with pytest.raises(ModelClosedError):
        model(X)


def test_a_variant_that_stands_by_is_back_at_once(dense: Path) -> None:
    with EdgeModel(dense, variant="dense_fp32", standby=1) as model:
        model.stand_by("dense_int8")
        assert model.standby == ("dense_int8",)
        assert model.begin_switch("dense_int8").done
        assert (model.active, model.standby) == ("dense_int8", ("dense_fp32",))
        assert model(X).shape == (1, 3)


def test_nothing_stands_by_where_it_was_not_asked_for(model: EdgeModel) -> None:
    model.switch("dense_int8")
    assert model.standby == ()
    with pytest.raises(UsageError, match="standby=1"):
        model.stand_by("dense_fp32")


def test_with_tight_memory_a_switch_reports_its_gap(dense: Path) -> None:
    with EdgeModel(dense, memory="tight") as model:
        model.switch("dense_int8")
        model.switch("dense_fp32")
        assert model.gap_ms is not None
        assert model.gap_ms > 0
        assert model(X).shape == (1, 3)


@pytest.mark.parametrize("memory", ["auto", "ample", "tight"])
def test_a_variant_that_cannot_be_loaded_leaves_the_old_one(make_bundle: Make, memory: str) -> None:
    path = make_bundle(contents=tiny("dense_fp32", "newer_op"), **IO).path
    with EdgeModel(path, memory=memory, preference=Preference(mode=Mode.ACCURACY)) as model:
        with pytest.raises(ModelLoadError):
            model.switch("newer_op")
        assert model.active == "dense_fp32"
        assert model(X).shape == (1, 3)
        assert model._pin is None


def test_a_first_choice_that_cannot_be_loaded_gives_way_to_the_next(make_bundle: Make) -> None:
    path = make_bundle(contents=tiny("custom_op", "dense_int8"), **IO).path
    with EdgeModel(path, preference=Preference(mode=Mode.ACCURACY)) as model:
        assert model.active == "dense_int8"
        assert model.variants == ("dense_int8",)


def test_where_no_variant_loads_the_reason_is_told(make_bundle: Make) -> None:
    with pytest.raises(DelegateError):
        EdgeModel(make_bundle(contents=tiny("custom_op"), **IO).path)


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (np.zeros((2, 2, 2), np.float32), InputShapeError),
        (np.zeros((1, 5), np.float32), InputShapeError),
        (np.zeros((1, 4), np.complex64), InputDtypeError),
        (np.array([["a", "b", "c", "d"]]), InputDtypeError),
        ([[1, 2], [3]], InputShapeError),
    ],
)
def test_what_the_model_does_not_take_is_refused_with_its_name(
    model: EdgeModel, bad: object, error: type[Exception]
) -> None:
    with pytest.raises(error, match="x"):
        model(bad)


def test_nan_is_refused_where_integers_compute(model: EdgeModel) -> None:
    nan = np.full((1, 4), np.nan, np.float32)
    model.switch("dense_int8")
    with pytest.raises(InputValueError):
        model(nan)
    model.switch("dense_fp32")
    assert np.isnan(model(nan)).any()


def test_bad_arguments_are_named(dense: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownVariantError, match="dense_fp32"):
        EdgeModel(dense, variant="int4")
    with pytest.raises(UsageError, match="threads"):
        EdgeModel(dense, threads=0)
    with pytest.raises(UsageError, match="memory"):
        EdgeModel(dense, memory="little")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="preference"):
        EdgeModel(dense, preference="fast")  # type: ignore[arg-type]
    with EdgeModel(dense) as model:
        for deadline_s in (-1.0, float("nan"), float("inf"), 1e12):
            with pytest.raises(UsageError, match="deadline_s"):
                model.switch("dense_int8", deadline_s=deadline_s)
        assert model.begin_switch("dense_int8").wait(float("inf"))
    with pytest.raises(UsageError, match="no delegate 'abacus'"):
        EdgeModel(dense, delegate="abacus")
    with pytest.raises(BundleError):
        EdgeModel(tmp_path / "nothing.edge")
    with pytest.raises(DaemonUnreachableError, match="no daemon serves"):
        EdgeModel("digits")


def with_accelerated(make_bundle: Make) -> Bundle:
    from bundle_stage import manifest_of

    contents = tiny("dense_fp32", "dense_int8")
    plain = [*to_builtins(manifest_of(contents, **IO).variants)]
    plain.append(plain[1] | {"id": "int8-edgetpu", "target": {"delegate": "edgetpu", "fallback": "dense_int8"}})
    return make_bundle(contents=contents, **IO, variants=plain, accelerated={"coral-usb": ["int8-edgetpu"]})


def test_a_variant_for_an_accelerator_is_never_run_on_the_cpu(make_bundle: Make) -> None:
    bundle = with_accelerated(make_bundle)
    with EdgeModel(bundle.path) as model:
        assert set(model.variants) == {"dense_fp32", "dense_int8"}
        with pytest.raises(UnknownVariantError, match="cannot run on this machine"):
            model.switch("int8-edgetpu")
    with pytest.raises(DelegateUnavailableError, match=r"'int8-edgetpu' is for the delegate 'edgetpu'.*'dense_int8'"):
        EdgeModel(bundle.path, variant="int8-edgetpu", delegate="cpu")


def test_where_there_is_no_such_accelerator_the_twin_answers(
    make_bundle: Make, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = with_accelerated(make_bundle)
    with (
        EdgeModel(bundle.path, variant="int8-edgetpu") as model,
        EdgeModel(bundle.path, variant="dense_int8") as twin,
    ):
        assert model.active == "int8-edgetpu"
        np.testing.assert_array_equal(model(X), twin(X))
    assert "edgetpu cannot be used, the CPU computes: libedgetpu.so.1 is not installed" in caplog.text


def test_switching_to_an_unknown_variant_names_those_there_are(model: EdgeModel) -> None:
    with pytest.raises(UnknownVariantError, match="dense_int8"):
        model.switch("int4")


def test_a_tampered_blob_is_never_loaded(dense: Path) -> None:
    for blob in (dense / "blobs" / "sha256").iterdir():
        blob.write_bytes(blob.read_bytes()[:-1] + b"\0")
    with pytest.raises(BlobMismatchError):
        EdgeModel(dense)


def test_after_close_everything_says_so(dense: Path) -> None:
    model = EdgeModel(dense)
    model.close()
    model.close()
    with pytest.raises(ModelClosedError):
        model(X)
    with pytest.raises(ModelClosedError):
        model.switch("dense_int8")


def test_a_forgotten_model_is_collected_and_its_thread_ends(dense: Path) -> None:
    model = EdgeModel(dense)
    (thread,) = [each for each in threading.enumerate() if each.name == "edge-deciding"]
    alive = weakref.ref(model)
    del model
    gc.collect()
    assert alive() is None
    thread.join(10.0)
    assert not thread.is_alive()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_is_told_to_open_its_own(model: EdgeModel) -> None:
    model(X)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            model(X)
        except ModelClosedError as error:
            status = 0 if "fork" in str(error) else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert model(X).shape == (1, 3)


def test_damaged_evidence_keeps_no_app_from_its_model(dense: Path, caplog: pytest.LogCaptureFixture) -> None:
    (dense / "evidence.json").write_text("{")
    with EdgeModel(dense) as model:
        model(X)
    assert "evidence is left out: " in caplog.text


def test_a_variant_too_new_for_the_runtime_is_refused_before_it_is_loaded_whoever_chose_it(make_bundle: Make) -> None:
    from bundle_stage import manifest_of

    contents = tiny("dense_fp32", "dense_int8")
    plain = [*to_builtins(manifest_of(contents, **IO).variants)]
    plain[1] |= {"target": {"delegate": "cpu", "min_runtime": "99.0"}}
    bundle = make_bundle(contents=contents, **IO, variants=plain)
    with EdgeModel(bundle.path) as model:
        assert model.variants == ("dense_fp32",)
    with pytest.raises(ModelLoadError, match=r"operators need TensorFlow Lite 99\.0"):
        EdgeModel(bundle.path, variant="dense_int8")
