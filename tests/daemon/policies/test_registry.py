"""Which policies there are, and what is said of one that is not there or is broken."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from policy_stage import setting

from edge_daemon.errors import PolicyImportError, UnknownPolicyError
from edge_daemon.policies import registry
from edge_daemon.policies.contract import GROUP

pytestmark = pytest.mark.device


@pytest.fixture
def plugged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path of modules with the metadata of a package that brings policies."""
    facts = tmp_path / "strangers-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: strangers\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(
        f"[{GROUP}]\nmine = strangers_policy:Mine\nbroken = strangers_broken:Mine\nstatic = strangers_policy:Mine\n"
        "number = strangers_policy:NUMBER\n"
    )
    (tmp_path / "strangers_policy.py").write_text("class Mine:\n    def __init__(self, setting): pass\nNUMBER = 1\n")
    (tmp_path / "strangers_broken.py").write_text("raise ZeroDivisionError('what a day')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in ("strangers_policy", "strangers_broken"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", [name for name in registry.BUILT_IN if name != "optimal"])
def test_each_of_ours_is_made_for_a_setting(name: str) -> None:
    policy = registry.find(name)(setting())
    assert policy.load(b"\xff nothing of ours") == policy.initial()
    assert isinstance(policy.dump(policy.initial()), bytes)


def test_an_unknown_name_is_refused_with_those_there_are() -> None:
    with pytest.raises(UnknownPolicyError, match="no policy 'best'; there are optimal, rules, alert, static") as caught:
        registry.find("best")
    assert caught.value.exit_status == 2


def test_another_package_adds_a_policy(plugged: Path) -> None:
    assert registry.names() == (*registry.BUILT_IN, "broken", "mine", "number")
    assert registry.find("mine").__module__ == "strangers_policy"


def test_another_package_does_not_replace_ours(plugged: Path) -> None:
    assert registry.find("static").__module__ == "edge_daemon.policies.static"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("broken", "policy 'broken' of 'strangers_broken:Mine': cannot be imported: ZeroDivisionError: what a day"),
        ("number", "policy 'number' of 'strangers_policy:NUMBER': is nothing that can be called"),
    ],
)
def test_a_broken_plug_in_is_named_and_harms_no_other(plugged: Path, name: str, told: str) -> None:
    assert registry.find("rules")
    with pytest.raises(PolicyImportError, match=told):
        registry.find(name)
