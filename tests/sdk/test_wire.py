"""Bytes from elsewhere become values, or an error of ours: never another exception, never an unbounded value."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import Meta

from edge_sdk.errors import ConfigError, EdgeError, WireError
from edge_sdk.mqtt import Down, Up, unpack_down, unpack_up
from edge_sdk.wire import (
    Count,
    Name,
    Percent,
    Sha256,
    Text,
    Token,
    Wire,
    canonical,
    decode,
    decode_toml,
    encode,
    new_token,
)

pytestmark = pytest.mark.device


class Sample(Wire, frozen=True, kw_only=True):
    """One of each kind of bound."""

    name: Name = "a"
    part: Percent = 0.0
    count: Count = 0
    text: Text = ""
    ratio: Annotated[float, Meta(gt=0, lt=1)] = 0.5
    anything: Any = None


def test_a_value_survives_the_way_there_and_back() -> None:
    value = Sample(name="digits-1.edge", part=99.5, count=2**53, text="grün\n", anything={"a": [1, None]})
    assert decode(encode(value), Sample, where="here") == value


@pytest.mark.parametrize(
    ("payload", "named"),
    [
        (b'{"surprise":1}', "surprise"),
        (b'{"count":-1}', "count"),
        (b'{"count":9007199254740993}', "count"),
        (b'{"count":' + b"9" * 5000 + b"}", "count"),
        (b'{"count":1.5}', "count"),
        (b'{"count":"1"}', "count"),
        (b'{"part":100.1}', "part"),
        (b'{"part":1e400}', "part"),
        (b'{"ratio":1}', "ratio"),
        (b'{"text":"' + b"x" * 1001 + b'"}', "text"),
        (b'{"name":"../etc"}', "name"),
        (b'{"name":""}', "name"),
        (b'{"name":".hidden"}', "name"),
        (b'{"name":"a\\n"}', "name"),
        (b'{"name":"' + b"a" * 65 + b'"}', "name"),
    ],
)
def test_a_value_out_of_bounds_is_refused_by_the_name_of_its_field(payload: bytes, named: str) -> None:
    with pytest.raises(WireError, match=named) as caught:
        decode(payload, Sample, where="the socket")
    assert str(caught.value).startswith("the socket: ")
    assert caught.value.code == "malformed"


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"nonsense",
        b'{"part":NaN}',
        b'{"part":Infinity}',
        b'{"text":"\xff\xfe"}',
        b'{"text":"\\ud800"}',
        b'{"anything":"\xff"}',
        b'{"anything":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        b"[" * 200_000,
        b'{"name":"a"}{"name":"b"}',
    ],
)
def test_what_is_no_json_of_that_kind_is_refused(payload: bytes) -> None:
    with pytest.raises(WireError):
        decode(payload, Sample, where="here", max_bytes=10**6)


def test_size_is_looked_at_before_anything_is_parsed() -> None:
    with pytest.raises(WireError, match="101 bytes where at most 100"):
        decode(b"x" * 101, Sample, where="here", max_bytes=100)


def test_the_error_shows_the_start_of_hostile_bytes_and_nothing_that_steers_a_terminal() -> None:
    with pytest.raises(WireError) as caught:
        decode(b"\x1b[2J\x00" + b"A" * 10_000, Sample, where="here")
    text = str(caught.value)
    assert "\x1b" not in text
    assert len(text) < 400


@pytest.mark.parametrize(
    "payload",
    [
        b'{"' + b"x" * 100_000 + b'":1}',
        b'{"\\u001b[2J\\nedge: all is well\\u202e":1}',
        '{"\x9b2J":1}'.encode(),
    ],
)
def test_the_error_quotes_a_hostile_key_bounded_and_on_one_line(payload: bytes) -> None:
    with pytest.raises(WireError) as caught:
        decode(payload, Sample, where="here")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600
    with pytest.raises(WireError) as caught:
        decode_toml(payload[1:].replace(b":", b" = ").rstrip(b"}"), Sample, where="here")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


def test_of_a_key_that_stands_twice_the_last_counts() -> None:
    assert decode(b'{"count":1,"count":2}', Sample, where="here").count == 2


def test_the_family_of_the_error_is_the_callers_choice() -> None:
    with pytest.raises(ConfigError):
        decode(b"{", Sample, where="here", error=ConfigError)


@pytest.mark.parametrize("kind", [Name, Sha256, Token])
def test_no_pattern_takes_a_trailing_newline(kind: Any) -> None:
    longest = "a" * 64
    assert decode(encode(longest), kind, where="here") == longest
    with pytest.raises(WireError):
        decode(encode(longest[1:] + "\n"), kind, where="here")


@pytest.mark.parametrize(
    "payload",
    [
        b"part = nan",
        b"part = inf",
        b"ratio = nan",
        b"part = -inf",
        b"surprise = 1",
        b"count = " + b"9" * 5000,
        b"count = 0x" + b"f" * 5000,
        b"part = 0x" + b"f" * 5000,
        b"name = 0x" + b"f" * 5000,
        b"count = 1\ncount = 2",
        b"count = true",
        b"name = 2024-01-01",
        b"text = '\xff'",
        b"anything = " + b"[" * 50_000,
        b"not toml",
        b"#" * (1024 * 1024 + 1),
    ],
)
def test_toml_that_breaks_a_bound_or_is_none_is_refused(payload: bytes) -> None:
    with pytest.raises(WireError):
        decode_toml(payload, Sample, where="file")


def test_toml_takes_a_whole_number_where_a_fraction_may_stand() -> None:
    assert decode_toml(b"part = 50", Sample, where="file").part == 50.0


def test_an_unknown_key_of_toml_is_refused_by_name() -> None:
    with pytest.raises(WireError, match="surprise"):
        decode_toml(b"surprise = 1", Sample, where="file")


def test_canonical_json_does_not_depend_on_the_order_of_keys() -> None:
    assert canonical({"b": 1, "a": {"d": 2, "c": 3}}) == canonical({"a": {"c": 3, "d": 2}, "b": 1})
    assert canonical({"a": 1}) == b'{\n  "a": 1\n}\n'


def test_tokens_are_random_and_fit_their_own_pattern() -> None:
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert all(decode(encode(token), Token, where="here") == token for token in tokens)


@settings(deadline=None)
@given(st.binary(max_size=300))
@example(b"\x78\x9c")
@example(b'{"id":')
def test_no_bytes_at_all_bring_another_exception_than_ours(payload: bytes) -> None:
    decoders: tuple[Callable[[], object], ...] = (
        lambda: decode(payload, Sample, where="here"),
        lambda: decode_toml(payload, Sample, where="here"),
        *(partial(unpack_up, kind, payload) for kind in Up),
        *(partial(unpack_down, kind, payload) for kind in Down),
    )
    assert all(_complaint(decoder).isprintable() for decoder in decoders)


def _complaint(decoder: Callable[[], object]) -> str:
    try:
        decoder()
    except EdgeError as error:
        return str(error)
    return ""
