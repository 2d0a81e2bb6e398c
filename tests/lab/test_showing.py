"""What is shown of a play: it fits the terminal, says what was played, and repeats nothing."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from edge_daemon.sensors.suite import SensorSuite
from edge_lab import acts
from edge_lab.digits_app import Answer
from edge_lab.played import PlayedBoard
from edge_lab.stage import CALM, LIMIT_C
from edge_lab.story import CommandSent, Moment, Story, Switch
from edge_lab.view import LineView, cause_of, frame
from edge_sdk.mqtt import Conditions, Prefer, ServedVariant
from edge_sdk.preference import Mode

BECAUSE = (
    "battery 42 % (saver: entered at 50 %) allows at most 50 % of the time the best quality takes: "
    "medium-int8 (97.6 points in 0.265 ms) instead of large-dynamic (99.4 points in 1.81 ms)"
)


@pytest.fixture
def story() -> Story:
    sensed = Conditions(temp_c=55.0, temp_limit_c=85.0, battery_pct=42.0, charging=False, load_pct=12.0, played=True)
    told = Story(began=1000.0, length_s=75.0, hub_devices=1, hub_messages=12)
    told.moments.append(
        Moment(at_s=9, act="It cools down", played=CALM, sensed=sensed, real=Conditions(), active="medium-int8")
    )
    told.answers += [Answer(at=1000.0 + n / 10, ms=1.5, variant="large-dynamic", right=n % 10 > 0) for n in range(90)]
    told.answers.append(Answer(at=1009.5, failure="[red]no[/red] answer"))
    told.switches = [
        Switch(at_s=n, old="large-dynamic", new="medium-int8", code="battery", text=BECAUSE, took_ms=2.0)
        for n in range(12)
    ]
    told.commands.append(CommandSent(at_s=3, name="prefer", words="prefer speed"))
    return told


@pytest.mark.parametrize(("width", "height"), [(40, 12), (80, 24), (110, 42)])
def test_a_picture_is_never_larger_than_the_terminal(story: Story, width: int, height: int) -> None:
    out = io.StringIO()
    console = Console(file=out, width=width, height=height)
    console.print(frame(story, "It cools down", 9.0, width=width, height=height))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert len(lines) <= max(height, 18)  # below that, the live display crops
    assert "played" in out.getvalue()


def test_lines_come_once_each(story: Story, capsys: pytest.CaptureFixture[str]) -> None:
    view = LineView()
    for at_s in (9.0, 9.1):
        view.show(story, "It cools down", at_s)
    story.commands[0] = CommandSent(
        at_s=3, name="prefer", words="prefer speed", status="refused", text="pinned", took_s=1
    )
    view.show(story, "It cools down", 9.2)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[2] for line in lines] == ["act", *["switch"] * 12, "command"]
    assert lines[0].endswith("(played)")
    assert lines[-1].endswith("prefer speed: refused in 1.00 s, pinned")


def test_a_cause_keeps_its_brackets_and_leaves_the_variants_away(story: Story) -> None:
    assert cause_of(story.switches[0]).endswith("of the time the best quality takes")


def test_work_adds_up_answers_and_failures(story: Story) -> None:
    work = story.work()
    assert (work.answers, work.failed, work.p50_ms) == (90, 1, 1.5)
    assert work.accuracy == pytest.approx(90.0)
    assert list(story.by_variant()) == ["large-dynamic"]


def test_a_scaled_play_has_all_its_acts_and_the_length_asked_for() -> None:
    _, whole = acts.play(85.0)
    assert sum(act.lasts_s for act in whole) == acts.LENGTH_S
    short = acts.scaled(whole, 20.0)
    assert sum(act.lasts_s for act in short) == pytest.approx(20.0)
    assert [act.title for act in short] == [act.title for act in whole]


def test_the_deadline_lies_between_the_fast_network_and_the_slow_one() -> None:
    variants = [ServedVariant(id="best", precision="fp32", quality=99.0, size_bytes=1, latency_ms=9.0)]
    facts = acts.Facts(model="digits", variants=variants, active="best", slow_ms=9.0, rtt_ms=3.0)
    (slow,) = [act for act in acts.play(85.0)[1] if act.becomes.rtt_ms > 0]
    (command,) = slow.says(facts)
    assert isinstance(command, Prefer)
    assert command.preference.mode is Mode.ACCURACY
    deadline_ms = command.preference.deadline_ms
    assert deadline_ms is not None
    assert facts.rtt_ms + facts.slow_ms < deadline_ms < slow.becomes.rtt_ms


def test_the_daemons_sensors_read_a_played_board(tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("board")
    board = PlayedBoard(root, CALM, limit_c=LIMIT_C)
    with SensorSuite(root) as sensors:
        first = sensors.read()
        board.show(CALM.towards(acts.play(85.0)[1][1].becomes, 1.0))
        second = sensors.read()
    assert (first.temp_c, first.temp_limit_c, first.battery_pct, first.charging) == (55.0, LIMIT_C, 100.0, True)
    assert (second.battery_pct, second.charging) == (6.0, False)
    assert second.memory_available_mb  # the machine's own
