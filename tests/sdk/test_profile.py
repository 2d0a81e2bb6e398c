"""Profiles are data that is read strictly, found wherever the product is installed, and consistent in itself."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edge_sdk import physics
from edge_sdk import profile as profiles
from edge_sdk.errors import EdgeError, ProfileError, UnknownProfileError
from edge_sdk.manifest import Delegate
from edge_sdk.profile import Basis, Fact, Profile
from edge_sdk.wire import Wire, shaped

pytestmark = pytest.mark.device

BOARDS = [
    "android",
    "coral-dev",
    "coral-mini",
    "coral-usb",
    "imx8mp",
    "imx93",
    "jetson-nano",
    "jetson-orin-nano",
    "jetson-orin-nx",
    "jetson-xavier-nx",
    "rpi-zero2w",
    "rpi3",
    "rpi4",
    "rpi5",
    "rpi5-hailo",
    "x86-64",
]
ALL = profiles.load_all()

SMALLEST = """
id = "board"
name = "A board"
[compute]
cpu = "Cortex-A53"
cores = 4
mhz = 1500
isa = { value = ["asimd"], basis = "estimated" }
[memory]
ram_mb = [1024]
[thermal]
max_temp_c = { value = 75, basis = "estimated" }
[variants]
precisions = ["int8"]
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of the site's own profiles."""
    monkeypatch.setenv("EDGE_PROFILES", str(tmp_path))
    return tmp_path


def board(place: Path, edit: Callable[[str], str] = str, name: str = "board") -> Path:
    path = place / f"{name}.toml"
    path.write_text(edit(SMALLEST), encoding="utf-8")
    return path


# ------------------------------------------------------------------------------------------------- what is shipped


def test_every_board_that_is_promised_has_a_profile() -> None:
    assert list(profiles.ids()) == BOARDS
    assert [profile.id for profile in ALL] == BOARDS


def facts(value: object, at: str = "") -> list[tuple[str, Fact[object]]]:
    if isinstance(value, Fact):
        return [(at, value)]
    if isinstance(value, dict):
        return [found for name, part in value.items() for found in facts(part, f"{at}.{name}")]
    if not isinstance(value, Wire):
        return []
    return [found for name in value.__struct_fields__ for found in facts(getattr(value, name), f"{at}.{name}")]


@pytest.mark.parametrize("profile", ALL, ids=lambda p: p.id)
class TestShippedProfile:
    def test_every_fact_says_where_it_comes_from(self, profile: Profile) -> None:
        assert [at for at, fact in facts(profile) if not fact.source] == []
        throttle = profile.board.throttle if profile.board else None
        assert throttle is None or throttle.source
        assert profile.compute.source
        assert profile.memory.source

    def test_nothing_was_measured_on_a_board_nobody_had(self, profile: Profile) -> None:
        bases = [fact.basis for _, fact in facts(profile)]
        bases += [profile.compute.basis, profile.memory.basis]
        bases += [profile.board.throttle.basis] if profile.board and profile.board.throttle else []
        bases += [scale.basis for scale in (profile.latency.int8, profile.latency.fp32)] if profile.latency else []
        assert profile.hardware_tested or Basis.MEASURED not in bases

    def test_temperatures_rise_from_kept_below_over_throttled_to_off(self, profile: Profile) -> None:
        thermal = profile.thermal
        steps = [thermal.max_temp_c.value]
        steps += thermal.throttle_c.value if thermal.throttle_c else ()
        steps += [thermal.critical_c.value] if thermal.critical_c else ()
        assert steps == sorted(steps)
        assert 50 <= steps[0] <= 100

    def test_idle_takes_less_than_busy(self, profile: Profile) -> None:
        idle, busy = profile.power.idle_w, profile.power.active_w
        assert idle is None or busy is None or idle.value < busy.value

    def test_the_cpu_is_always_there(self, profile: Profile) -> None:
        assert Delegate.CPU in profile.variants.delegates

    def test_what_is_fast_is_not_for_accuracy_only(self, profile: Profile) -> None:
        assert not set(profile.variants.precisions) & set(profile.variants.accuracy_only)

    def test_it_can_be_recognised_or_says_nothing_of_it(self, profile: Profile) -> None:
        assert all(re.fullmatch(r"[a-z0-9,._+-]+", one) for one in profile.compatible)


def test_no_two_profiles_mean_the_same_board() -> None:
    for one, other in combinations(ALL, 2):
        assert not set(one.compatible) & set(other.compatible), f"{one.id} and {other.id}"
        assert not set(one.machine) & set(other.machine), f"{one.id} and {other.id}"


# ------------------------------------------------------------------------------------------------- read strictly


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (lambda s: s.replace("= 75", "= nan"), "max_temp_c"),
        (lambda s: s.replace("= 75", "= inf"), "max_temp_c"),
        (lambda s: s.replace("= 75", "= -inf"), "max_temp_c"),
        (lambda s: s.replace("= 75", "= 1e9"), "max_temp_c"),
        (lambda s: s.replace("= 75", '= "hot"'), "max_temp_c"),
        (lambda s: s.replace("= 75,", "= 75, colour = 1,"), "colour"),
        (lambda s: s.replace("estimated", "guessed"), "guessed"),
        (lambda s: s.replace("cores = 4", "cores = 0"), "cores"),
        (lambda s: s.replace("cores = 4", "cores = 4.5"), "cores"),
        (lambda s: s.replace("cores = 4", "cores = 9999999999999999999999"), "cores"),
        (lambda s: s.replace("cores = 4", "cores = 4\ncores = 4"), "cores|Cannot overwrite"),
        (lambda s: s.replace("[1024]", "[]"), "ram_mb"),
        (lambda s: s.replace('["int8"]', '["int9"]'), "int9"),
        (lambda s: s.replace('["int8"]', "[]"), "precisions"),
        (lambda s: s.replace('name = "A board"', "naem = 'A board'"), "naem|name"),
        (lambda s: s.replace('id = "board"', 'id = "board\\n"'), "id"),
        (lambda s: s.replace('id = "board"', 'id = "../board"'), "id"),
        (lambda s: s.replace('id = "board"', 'id = "other"'), "id is 'other' but the file is named 'board'"),
        (lambda s: s + "[power]\nidle_w = { value = nan, basis = 'measured' }", "idle_w"),
        (lambda s: s + "[latency]\nthreads = 0", "threads|latency"),
        (lambda s: s + "[extra]\nx = 1", "extra"),
        (lambda _: "", "id"),
        (lambda _: "id = [", "not TOML"),
        (lambda s: s + "#" * 2_000_000, "bytes where at most"),
    ],
)
def test_a_profile_that_breaks_a_bound_is_refused_by_name(
    tmp_path: Path, edit: Callable[[str], str], named: str
) -> None:
    path = board(tmp_path, edit)
    with pytest.raises(ProfileError, match=named) as caught:
        profiles.read(path)
    assert caught.value.where == str(path)
    assert caught.value.exit_status == 2


@pytest.mark.parametrize("field", ["factor", "band"])
@pytest.mark.parametrize("value", ["nan", "inf", "-1.0", "0"])
def test_a_latency_model_takes_no_number_that_is_none(tmp_path: Path, field: str, value: str) -> None:
    scale = {"factor": "1.0", "band": "1.5"} | {field: value}
    text = (
        "\n".join(f"{key} = {number}" for key, number in scale.items()) + '\nbasis = "published"\nsource = "a paper"\n'
    )
    with pytest.raises(ProfileError, match=field):
        profiles.read(
            board(tmp_path, lambda s: f"{s}[latency]\nthreads = 4\n[latency.int8]\n{text}[latency.fp32]\n{text}")
        )


def test_the_smallest_profile_is_one(tmp_path: Path) -> None:
    found = profiles.read(board(tmp_path))
    assert found.latency is None
    assert not found.hardware_tested


def test_a_profile_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder.toml").mkdir()
    for name in ("folder.toml", "nothing.toml"):
        with pytest.raises(ProfileError, match="cannot be read"):
            profiles.read(tmp_path / name)


@settings(deadline=None)
@given(st.binary(max_size=200))
@example(SMALLEST.encode()[:-20])
def test_no_bytes_at_all_bring_another_exception_than_ours(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(content)
    try:
        profiles.read(path)
    except EdgeError as error:
        complaint = str(error)
    assert complaint.isprintable()


# ----------------------------------------------------------------------------------------------- found everywhere


def test_a_checkout_and_a_wheel_are_looked_into_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "site-packages" / "edge_sdk" / "profile.py"
    for place in ("site-packages/device_profiles", "site-packages/edge_sdk/_profiles"):
        (tmp_path / place).mkdir(parents=True)
        board(tmp_path / place)
        monkeypatch.setattr(profiles, "__file__", str(module))
        assert profiles.directories() == (tmp_path / place,)
        assert profiles.load("board").name == "A board"


def test_the_sites_own_profiles_win_and_the_others_stay(site: Path) -> None:
    board(site, lambda s: s.replace('"board"', '"rpi4"'), "rpi4")
    board(site)
    assert profiles.load("rpi4").name == "A board"
    assert profiles.load("rpi5").name.startswith("Raspberry")
    assert list(profiles.ids()) == sorted([*BOARDS, "board"])


def test_a_site_directory_that_is_not_there_is_an_error_and_not_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_PROFILES", "/no/such/place")
    with pytest.raises(ProfileError, match="/no/such/place: no such directory") as caught:
        profiles.load("rpi4")
    assert "EDGE_PROFILES" in caught.value.hint


def test_a_file_that_leads_to_itself_is_left_out(site: Path) -> None:
    (site / "rpi4.toml").symlink_to("rpi4.toml")
    (site / "camera.toml").write_text('id = "camera"\nextends = "rpi4"\n')
    found = profiles.recognise(named="rpi4")
    assert found.profile is not None
    assert "rpi4.toml: cannot be read" in found.left_out[0]
    with pytest.raises(ProfileError, match="cannot be read"):
        profiles.load("camera")


def test_a_pipe_among_the_profiles_holds_up_nobody(site: Path) -> None:
    os.mkfifo(site / "rpi4.toml")
    found = profiles.recognise(named="rpi4")
    assert found.profile is not None
    assert "rpi4.toml" in found.left_out[0]


@pytest.mark.parametrize("said", ["r_c_per_w = { value = [0.001, 7]", "c_j_per_c = { value = [4, 1e-9]"])
def test_a_board_that_would_be_computed_without_end_is_refused(site: Path, said: str) -> None:
    (site / "rpi4.toml").write_text(f'extends = "rpi4"\n[board]\n{said}, basis = "estimated", source = "x" }}\n')
    with pytest.raises(ProfileError, match="Expected `float` >= 0"):
        profiles.load("rpi4")


def test_what_an_editor_leaves_is_no_profile(site: Path) -> None:
    (site / ".#board.toml").symlink_to("me@machine.1234")
    (site / ".board.toml").write_text("half of it")
    (site / "board.toml~").write_text("yesterday's")
    assert list(profiles.ids()) == BOARDS


@pytest.mark.parametrize(
    "id_", ["", "rpi", "RPI4", "../rpi4", "rpi4.toml", "rpi4\n", "/etc/passwd", "*", "a\0b", "x" * 10_000]
)
def test_an_unknown_id_is_refused_with_those_there_are(id_: str) -> None:
    with pytest.raises(UnknownProfileError, match="there are android, coral-dev") as caught:
        profiles.load(id_)
    assert len(str(caught.value)) < 500


# ------------------------------------------------------------------------------------------- the board recognised


def tree(root: Path, compatible: str = "", model: str = "", at: str = "proc/device-tree") -> Path:
    (root / at).mkdir(parents=True)
    if compatible:
        (root / at / "compatible").write_bytes(compatible.encode() + b"\0")
    if model:
        (root / at / "model").write_bytes(model.encode() + b"\0")
    return root


@pytest.mark.parametrize("at", ["proc/device-tree", "sys/firmware/devicetree/base"])
def test_a_board_is_recognised_by_its_device_tree(tmp_path: Path, at: str) -> None:
    root = tree(tmp_path, "raspberrypi,4-model-b\0brcm,bcm2711", "Raspberry Pi 4 Model B Rev 1.4", at)
    found = profiles.match(root, machine="aarch64")
    assert found is not None
    assert found.id == "rpi4"
    assert profiles.board_name(root) == "Raspberry Pi 4 Model B Rev 1.4"


@pytest.mark.parametrize("profile", [p for p in ALL if p.compatible], ids=lambda p: p.id)
def test_each_word_a_profile_answers_to_finds_it(tmp_path: Path, profile: Profile) -> None:
    for number, word in enumerate(profile.compatible):
        found = profiles.match(tree(tmp_path / str(number), f"vendor,unheard-of\0{word}"), machine="aarch64")
        assert found is not None
        assert found.id == profile.id


def test_the_most_telling_word_of_a_device_tree_wins(tmp_path: Path) -> None:
    root = tree(tmp_path, "raspberrypi,3-model-b\0raspberrypi,4-model-b")
    found = profiles.match(root)
    assert found is not None
    assert found.id == "rpi3"


def test_without_a_device_tree_the_architecture_decides(tmp_path: Path) -> None:
    found = profiles.match(tmp_path, machine="x86_64")
    assert found is not None
    assert found.id == "x86-64"
    assert profiles.match(tmp_path, machine="riscv64") is None
    assert profiles.board_name(tmp_path) is None


def test_a_board_of_a_very_long_name_can_still_be_told_to_a_hub(tmp_path: Path) -> None:
    assert len(profiles.board_name(tree(tmp_path, model="x" * 4000)) or "") == 200


@pytest.mark.parametrize("content", [b"", b"\0", b"\0\0\0", b"\xff" * 10_000, os.fsencode("ä,ö\0")])
def test_a_device_tree_that_says_nothing_known_is_no_board(tmp_path: Path, content: bytes) -> None:
    (tree(tmp_path) / "proc/device-tree/compatible").write_bytes(content)
    assert profiles.match(tmp_path, machine="riscv64") is None


# ------------------------------------------------------------------------------------------- a site's own, in part

COOLED = """
extends = "rpi4"
[thermal]
max_temp_c = { value = 65, basis = "measured", source = "our lab" }
[board]
r_c_per_w = { value = [3.5, 3.0], basis = "measured", source = "our lab, with a heat sink" }
[board.battery]
capacity_wh = { value = 18.5, basis = "published", source = "its label" }
"""


def test_a_site_changes_a_few_values_of_a_board_and_the_rest_stays(site: Path) -> None:
    shipped = profiles.load("rpi4")
    (site / "rpi4.toml").write_text(COOLED)
    found = profiles.load("rpi4")
    assert found.extends == "rpi4"
    assert found.thermal.max_temp_c == Fact(value=65, basis=Basis.MEASURED, source="our lab")
    assert found.thermal.throttle_c == shipped.thermal.throttle_c
    assert found.board is not None
    assert shipped.board is not None
    assert found.board.r_c_per_w == Fact(value=(3.5, 3.0), basis=Basis.MEASURED, source="our lab, with a heat sink")
    assert found.board.battery is not None
    assert found.board.c_j_per_c == shipped.board.c_j_per_c
    assert (found.id, found.name, found.compatible) == ("rpi4", shipped.name, shipped.compatible)


def test_a_profile_made_from_another_is_chosen_by_name_and_never_in_its_place(site: Path, tmp_path: Path) -> None:
    (site / "aa-camera.toml").write_text(f'id = "aa-camera"\nname = "Our camera"\n{COOLED}')
    made = profiles.load("aa-camera")
    assert (made.name, made.compatible, made.machine) == ("Our camera", (), ())
    assert made.compute == profiles.load("rpi4").compute
    found = profiles.match(tree(tmp_path / "root", "raspberrypi,4-model-b"))
    assert found is not None
    assert found.id == "rpi4"


def test_a_sites_profile_of_another_name_answers_to_the_words_it_lists_itself(site: Path, tmp_path: Path) -> None:
    words = 'id = "zz-camera"\ncompatible = ["acme,camera", "raspberrypi,4-model-b"]\n'
    (site / "zz-camera.toml").write_text(words + COOLED)
    for said in ("acme,camera\0raspberrypi,4-model-b", "raspberrypi,4-model-b"):
        found = profiles.match(tree(tmp_path / said.split("\0")[0], said))
        assert found is not None
        assert found.id == "zz-camera"


def test_a_chain_of_profiles_is_followed_to_its_end(site: Path) -> None:
    (site / "rpi4.toml").write_text(COOLED)
    (site / "camera.toml").write_text(
        'id = "camera"\nextends = "rpi4"\n[thermal]\nmax_temp_c = { value = 60, basis = "estimated" }\n'
    )
    found = profiles.load("camera")
    assert found.thermal.max_temp_c.value == 60
    assert found.board is not None
    assert found.board.r_c_per_w == Fact(value=(3.5, 3.0), basis=Basis.MEASURED, source="our lab, with a heat sink")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('extends = "board"', "extends 'board', which extends it"),
        ('extends = "abacus"', "extends 'abacus', which is not there; there are"),
        ('extends = "../rpi4"', "extends '../rpi4', which is not there"),
        ("extends = 4", "extends"),
        ('extends = "rpi4"\nid = "boar"', "id is 'boar' but the file is named 'board'"),
        ('extends = "rpi4"', "id is 'rpi4' but the file is named 'board'; write id = 'board' into it"),
        ('extends = "rpi4"\nid = "board"\n[thermal]\nmax_temp_c = 65', "max_temp_c"),
        ('extends = "rpi4"\nid = "board"\n[thermal]\nmax_temp_c = { value = 65 }', "basis"),
        ('extends = "rpi4"\nid = "board"\n[thermla]\nx = 1', "thermla"),
        ('extends = "rpi4"\nid = "board"\n[board.throttle]\nlowest_c = 86', "basis"),
        ('extends = "rpi4"\nid = "board"\nthermal = 3', "thermal"),
        ('extends = "rpi4"\nid = "board"\n[thermal]\nmax_temp_c = { value = 50, basis = "estimated" }', "53.4 C"),
    ],
)
def test_an_override_that_makes_no_sense_is_refused_by_file_and_reason(site: Path, text: str, told: str) -> None:
    path = site / "board.toml"
    path.write_text(text)
    with pytest.raises(ProfileError, match=re.escape(told)) as caught:
        profiles.load("board")
    assert str(caught.value).startswith(f"{path}: ")


def test_a_daemon_leaves_out_what_makes_no_sense_and_takes_the_next_of_that_id(site: Path, tmp_path: Path) -> None:
    root = tree(tmp_path / "root", "raspberrypi,4-model-b")
    (site / "rpi4.toml").write_text(COOLED.replace("value = 65", "value = 30"))
    (site / "other.toml").write_text("half of")
    found = profiles.recognise(root)
    assert found.profile is not None
    assert found.profile.id == "rpi4"
    assert found.profile.thermal.max_temp_c.value == 75
    assert [str(site / name) in line for name, line in zip(("other.toml", "rpi4.toml"), found.left_out, strict=True)]
    assert all("\n" not in line for line in found.left_out)
    with pytest.raises(ProfileError):
        profiles.match(root)


def test_a_daemon_looks_only_at_the_profile_it_was_told(site: Path) -> None:
    (site / "other.toml").write_text("half of")
    (site / "mine.toml").write_text("id = 'mine'")
    found = profiles.recognise(named="rpi5")
    assert (found.profile, found.left_out) == (profiles.load("rpi5"), ())
    found = profiles.recognise(named="mine")
    assert found.profile is None
    assert len(found.left_out) == 1
    with pytest.raises(UnknownProfileError):
        profiles.recognise(named="abacus")


def test_a_chain_of_profiles_has_an_end(site: Path) -> None:
    for number in range(20):
        base = f"p{number + 1}" if number < 19 else "rpi4"
        (site / f"p{number}.toml").write_text(f'id = "p{number}"\nextends = "{base}"\n')
    assert profiles.load("p13").compute == profiles.load("rpi4").compute
    with pytest.raises(ProfileError, match="more than 8 profiles extend one another"):
        profiles.load("p0")


def test_what_is_left_out_is_told_in_few_lines(site: Path) -> None:
    for number in range(30):
        (site / f"p{number}.toml").write_text("")
    told = profiles.recognise(machine="riscv64", root=site).left_out
    assert len(told) == 9
    assert told[-1] == "and 22 more"


@pytest.mark.parametrize("at", [at for at, _ in facts(profiles.load("rpi4"))])
def test_a_fact_that_a_site_gives_replaces_that_one_and_no_other(site: Path, at: str) -> None:
    shipped = dict(facts(profiles.load("rpi4")))
    # The value stays, so that it is possible; what it rests on does not.
    value = msgspec.json.encode(shipped[at].value).decode()
    *table, key = at.strip(".").split(".")
    header = f"[{'.'.join(table)}]\n" if table else ""
    (site / "rpi4.toml").write_text(
        f'extends = "rpi4"\n{header}{key} = {{ value = {value}, basis = "measured", source = "here" }}\n'
    )
    found = dict(facts(profiles.load("rpi4")))
    assert found.pop(at) == Fact(value=shipped.pop(at).value, basis=Basis.MEASURED, source="here")
    assert found == shipped


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["value", "basis", "source", "thermal", "board", "max_temp_c", "x"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["thermal", "board", "compute", "latency", "id", "notes"]), plain, max_size=4))
def test_no_override_at_all_brings_another_exception_than_ours(said: dict[str, object]) -> None:
    under = msgspec.to_builtins(profiles.load("rpi4"))
    laid = profiles._over(under, said)
    try:
        physics.of(shaped(laid, Profile, where="here", error=ProfileError))
    except ProfileError as error:
        complaint = str(error)
        assert complaint.isprintable()


def test_two_profiles_that_extend_each_other_are_refused(site: Path) -> None:
    for one, other in (("ping", "pong"), ("pong", "ping")):
        (site / f"{one}.toml").write_text(f'id = "{one}"\nextends = "{other}"\n')
    with pytest.raises(ProfileError, match="which extends it"):
        profiles.load("ping")


def test_a_number_that_a_site_changes_no_longer_rests_on_what_the_old_one_did(site: Path) -> None:
    (site / "rpi5.toml").write_text('extends = "rpi5"\n[compute]\nmhz = 3000\n')
    found = profiles.load("rpi5").compute
    assert (found.mhz, found.basis, found.source) == (3000, Basis.ESTIMATED, "")
    assert found.isa.source
    (site / "rpi5.toml").write_text('extends = "rpi5"\n[compute]\nisa = { value = ["asimd"], basis = "measured" }\n')
    found = profiles.load("rpi5").compute
    assert (found.mhz, found.basis) == (2400, Basis.PUBLISHED)
    assert found.isa == Fact(value=("asimd",), basis=Basis.MEASURED)
