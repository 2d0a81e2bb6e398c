"""The query language: what is written means what the page says, and what cannot be read points at its column."""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_hub.errors import QueryError
from edge_hub.query import FLAGS, MAX_CHARS, NUMBERS, WORDS, glob_matches, parse
from edge_hub.rows import Facts, Fleet, facts_of
from edge_hub.store.records import DeviceRecord
from edge_sdk.mqtt import (
    Birth,
    Conditions,
    DeviceId,
    ModelState,
    ModelStats,
    Sample,
    ServedModel,
    ServedVariant,
    State,
)

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "queries.md"


def facts(*, fleet: Fleet | None = None, labels: dict[str, str] | None = None, **more: Any) -> Facts:
    """A device on which `digits` runs int8 at 71 °C, and late now and then."""
    variants = tuple(
        ServedVariant(id=name, precision=name, quality=quality, size_bytes=1)
        for name, quality in (("fp32", 99.0), ("int8", 95.0))
    )
    birth = Birth(
        online=True,
        profile="rpi4",
        software="edge 1",
        models=(ServedModel(name="digits", version="1", variants=variants),),
    )
    conditions = Conditions(temp_c=71.0, temp_limit_c=75.0, charging=False)
    known: dict[str, Any] = {
        "online": True,
        "birth": birth,
        "state": State(at=100.0, conditions=conditions, models={"digits": ModelState(active="int8", on="cpu")}),
        "sample": Sample(
            at=99.0,
            window_s=5.0,
            conditions=conditions,
            models={"digits": ModelStats(variant="int8", calls=100, late=5, p95_ms=8.0)},
        ),
    }
    record = DeviceRecord(
        device=DeviceId(tenant="acme", device="cam1"),
        enrolled=1.0,
        first_seen=1.0,
        last_seen=90.0,
        boot=None,
        messages=1,
        duplicates=0,
        desired_version=0,
        labels=labels or {},
        skew_s=-3.0,
        **(known | more),
    )
    return facts_of(record, fleet or Fleet(now=100.0, software="edge 1", versions={"digits": "1"}))


BARE = facts(online=False, birth=None, state=None, sample=None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "device = acme/cam1",
        "device = cam1 and tenant = acme",
        "device ~ acme/cam?",
        "profile = rpi4 AND temp_c > 70",
        "profile in (rpi3, rpi4)",
        "temp_c in (70, 71)",
        "model = digits and variant = int8 and on = cpu",
        "variant != fp32",
        "label.site = 'the roof'",
        'label.site = "the roof" and not label.floor = 1',
        "label.nothing != x",
        "online",
        "online = yes and charging = no and not pinned",
        "late_pct = 5 and p95_ms <= 8 and p95_ms >= 8",
        "age_s = 10",
        "clock_skew_s = 3",
        "quality_drop = 4",
        "headroom_c = 4",
        "not version_skew and in_step",
        "temp_c < 0 or temp_c > 70 and online",
        "(temp_c < 0 or temp_c > 70) and online",
        "group:hot",
        "not (group:hot and not online)",
    ],
)
def test_it_holds(text: str) -> None:
    assert parse(text, {"hot": "temp_c > 60 and group:here", "here": "online"})(facts(labels={"site": "the roof"}))


@pytest.mark.parametrize(
    ("text", "with_values", "without"),
    [
        ("temp_c > 60", True, False),
        ("not temp_c > 60", False, True),
        ("temp_c != 71", False, True),
        ("profile = rpi4", True, False),
        ("profile != rpi4", False, True),
        ("charging = no", True, False),
        ("not charging", True, True),
        ("quality_drop >= 0", True, False),
    ],
)
def test_what_a_device_does_not_know_makes_a_comparison_false(text: str, with_values: bool, without: bool) -> None:
    assert parse(text)(facts()) is with_values
    assert parse(text)(BARE) is without


@pytest.mark.parametrize(
    ("text", "column", "told"),
    [
        ("temp > 3", 1, "did you mean temp_c?"),
        ("online and temp_c > hot", 21, "no number"),
        ("profile = ", 10, "the end"),
        ("(online", 8, "')'"),
        ("online)", 7, "'and', 'or' or the end"),
        ("online and", 11, "a field"),
        ("profile < 3", 9, "compares numbers"),
        ("temp_c ~ 3", 8, "compares text"),
        ("profile = 'a", 11, "never closed"),
        ("a ! b", 3, "!="),
        ("variant in int8", 12, "'('"),
        ("variant in (int8 fp32)", 18, "','"),
        ("online = maybe", 10, "yes or no"),
        ("temp_c > nan", 10, "no number"),
        ("group:nobody", 1, "there is no group"),
        ("group:loop", 1, "names itself"),
        ("not " * 30 + "online", 97, "nested deeper"),
        ("online " + "x" * MAX_CHARS, MAX_CHARS + 1, "longer than"),
        ("label. = x", 1, "there is no field"),
    ],
)
def test_what_cannot_be_read_points_at_its_column(text: str, column: int, told: str) -> None:
    with pytest.raises(QueryError) as caught:
        parse(text, {"loop": "group:other", "other": "group:loop"})
    assert caught.value.column == column
    assert told in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_groups_cannot_make_a_query_grow_without_bound() -> None:
    groups = {f"g{n}": " or ".join([f"group:g{n + 1}"] * 20) for n in range(8)} | {"g8": "online"}
    with pytest.raises(QueryError, match="more than 300 comparisons"):
        parse("group:g0", groups)


@given(st.text(max_size=60))
def test_any_text_is_either_a_query_or_refused_within_its_length(text: str) -> None:
    column = 1
    try:
        parse(text)(BARE)
    except QueryError as error:
        column = error.column
    assert 1 <= column <= len(text) + 1


TERMS = st.sampled_from(["online", "temp_c > 60", "profile = x", "charging"])


def joined(parts: st.SearchStrategy[tuple[str, Any]]) -> st.SearchStrategy[tuple[str, Any]]:
    two = st.tuples(parts, parts)
    return st.one_of(
        two.map(lambda p: (f"({p[0][0]}) and ({p[1][0]})", ("and", p[0][1], p[1][1]))),
        two.map(lambda p: (f"({p[0][0]}) or ({p[1][0]})", ("or", p[0][1], p[1][1]))),
        parts.map(lambda p: (f"not ({p[0]})", ("not", p[1]))),
    )


def truth(tree: Any, one: Facts) -> bool:
    if isinstance(tree, str):
        return parse(tree)(one)
    sign, *parts = tree
    told = [truth(part, one) for part in parts]
    return not told[0] if sign == "not" else all(told) if sign == "and" else any(told)


@given(st.recursive(TERMS.map(lambda term: (term, term)), joined, max_leaves=8))
def test_and_or_not_mean_what_they_say(query: tuple[str, Any]) -> None:
    text, tree = query
    for one in (facts(), BARE):
        assert parse(text)(one) is truth(tree, one)


@given(st.text("ab*?", max_size=12), st.text("ab", max_size=12))
def test_patterns_fit_as_those_of_file_names_do(pattern: str, text: str) -> None:
    assert glob_matches(pattern, text) is fnmatch.fnmatchcase(text, pattern)


def test_a_hostile_pattern_takes_no_time() -> None:
    assert not glob_matches("*a" * 200 + "b", "a" * 2000)


def test_a_version_that_most_do_not_have_is_skewed() -> None:
    assert parse("version_skew")(facts(fleet=Fleet(now=100.0, software="edge 2", versions={"digits": "1"})))
    assert parse("version_skew")(facts(fleet=Fleet(now=100.0, software="edge 1", versions={"digits": "2"})))
    assert not parse("version_skew")(BARE)


def test_every_field_is_documented_with_its_kind() -> None:
    rows = dict(re.findall(r"^\| `([a-z0-9_]+)` \| (text|number|yes or no)", PAGE.read_text("utf-8"), re.MULTILINE))
    kinds = dict.fromkeys(WORDS, "text") | dict.fromkeys(NUMBERS, "number") | dict.fromkeys(FLAGS, "yes or no")
    assert rows == kinds
