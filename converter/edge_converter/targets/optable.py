"""What each accelerator's driver or compiler takes, as data: `tables/*.toml`, read here and nowhere else.

A table is a list of rows; a row names operators and the conditions on them that a file can be checked for. Every row
says where it comes from, itself or through its table, and on what it rests. What is not listed stays on the CPU.
"""

from __future__ import annotations

import enum
from functools import cache
from importlib.resources import files
from typing import Annotated

from msgspec import Meta

from edge_sdk.errors import UsageError
from edge_sdk.manifest import Delegate
from edge_sdk.profile import Basis, Profile
from edge_sdk.wire import Count, Name, Text, Wire, decode_toml

_FOLDER = "tables"
_SUFFIX = ".toml"

OpName = Annotated[str, Meta(pattern=r"\A[A-Z][A-Z0-9_]{0,60}\Z")]
Kind = Annotated[str, Meta(pattern=r"\A[a-z0-9]{1,16}\Z")]
Positive = Annotated[float, Meta(ge=0, le=1e6)]
Level = Annotated[int, Meta(ge=1, le=10_000_000)]


class Runs(enum.Enum):
    """Which of the operators that a delegate could compute it does compute."""

    ALL = "all"  # every one, in as many parts as that makes
    ONE = "one"  # one connected part: nothing that comes after an operator left on the CPU
    LARGEST = "largest"  # the part with the most operators


class Axes(enum.Enum):
    """Along which axes an operator may work; the batch is the first."""

    NOT_BATCH = "not-batch"
    SPATIAL = "spatial"  # height and width of [batch, height, width, channels]
    LAST = "last"


class Row(Wire, frozen=True, kw_only=True):
    """Conditions on some operators; what has its default is no condition.

    Attributes:
        ops: As the TFLite schema spells them, or the name of a custom operator.
        activations: Types of what it computes from and to; none takes the table's.
        weights: Types of its constant weights.
        since: The lowest API level, for tables that have levels.
        version: The highest operator version.
        fused: The activations that may be fused into it; `NONE` is none.
        constant: Positions of inputs whose value the file must hold, where they are given.
        computed: Positions of inputs whose value it must not hold.
        dilation: The largest; 1 allows none.
        equal_dilation: It must be the same in both directions.
        stride: The largest.
        stride_same: The largest with SAME padding, or where the kernel is dilated.
        kernel_same: The largest window side with SAME padding.
        kernel: The largest window height.
        unit_strides: Slices may skip nothing, and neither add an axis nor have an ellipsis.
        axes: Along which axes it may work.
        factors: By how much a resize may enlarge, in both directions; 0 stands for any size made of one point.
        half_pixel_factors: The same where pixel centres are at one half; none takes `factors`.
        elements: The most that its input may have.
        depth: The most along the last axis of its input.
        rows: The most that its output may have, all but the last axis multiplied.
        keeps_layout: Only axes of size 1 before all others may go or come.
        inputs: The most inputs.
        basis: What this rests on, where it is not what the table rests on.
        source: Where it comes from, likewise.
        note: What else the vendor says, which no file can be checked for.
    """

    ops: Annotated[tuple[OpName, ...], Meta(min_length=1, max_length=200)]
    activations: tuple[Kind, ...] = ()
    weights: tuple[Kind, ...] = ()
    since: Level | None = None
    version: Level | None = None
    fused: tuple[OpName, ...] | None = None
    constant: tuple[Count, ...] = ()
    computed: tuple[Count, ...] = ()
    dilation: Count | None = None
    equal_dilation: bool = False
    stride: Count | None = None
    stride_same: Count | None = None
    kernel_same: Count | None = None
    kernel: Count | None = None
    unit_strides: bool = False
    axes: Axes | None = None
    factors: tuple[Count, ...] = ()
    half_pixel_factors: tuple[Count, ...] = ()
    elements: Count | None = None
    depth: Count | None = None
    rows: Count | None = None
    keeps_layout: bool = False
    inputs: Count | None = None
    basis: Basis | None = None
    source: Text = ""
    note: Text = ""


class Speed(Wire, frozen=True, kw_only=True):
    """How long a fully mapped model takes there: `t0 + MACs + weights beyond the cache`.

    Attributes:
        profiles: The boards it was fitted for.
        t0_ms: Of any inference.
        ms_per_gmac: For 1e9 multiply-accumulates.
        ms_per_mb: For 1e6 bytes of weights that do not fit the cache.
        cache_mb: Of weights, kept between inferences.
        band: The truth is expected within `prediction / band .. prediction * band`.
        source: Of the figures.
    """

    profiles: tuple[Name, ...]
    t0_ms: Positive
    ms_per_gmac: Positive
    ms_per_mb: Positive
    cache_mb: Positive
    band: Annotated[float, Meta(ge=1, le=100)]
    source: Text


class Table(Wire, frozen=True, kw_only=True):
    """One driver or compiler.

    Attributes:
        id: The file's name.
        delegate: Whose table it is; a delegate may have several, one for each driver below it.
        title: For people.
        profiles: Boards whose driver this is; none means any board that has the delegate.
        runs: Which of the operators it could compute it does compute.
        activations: Types of what operators compute from and to.
        ranks: The most axes of a computed tensor; None for any.
        batch: The most samples at once; None for any.
        is_static: Shapes must be known when it compiles.
        is_per_tensor: Weights may have one scale only, not one a channel.
        takes_hybrid: Float activations with 8-bit weights are taken.
        level: The API level where none is named; None where the table has none.
        int8_since: The lowest level with signed 8-bit numbers.
        basis: What its rows rest on.
        source: Where they come from.
        note: What people should know.
        rows: The operators.
        speeds: Fitted latencies.
    """

    id: Name
    delegate: Delegate
    title: Text
    profiles: tuple[Name, ...] = ()
    runs: Runs = Runs.ALL
    activations: Annotated[tuple[Kind, ...], Meta(min_length=1)]
    ranks: Count | None = None
    batch: Count | None = None
    is_static: bool = False
    is_per_tensor: bool = False
    takes_hybrid: bool = False
    level: Level | None = None
    int8_since: Level | None = None
    basis: Basis
    source: Annotated[str, Meta(min_length=1, max_length=1000)]
    note: Text = ""
    rows: Annotated[tuple[Row, ...], Meta(min_length=1, max_length=1000)]
    speeds: tuple[Speed, ...] = ()

    def row(self, op: str) -> Row | None:
        """The row that names this operator, or None."""
        return next((row for row in self.rows if op in row.ops), None)


@cache
def tables() -> tuple[Table, ...]:
    """All tables of this package, by id.

    Raises:
        UsageError: One is malformed, which a test of this package rules out.
    """
    folder = files(__package__) / _FOLDER
    found = []
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(_SUFFIX):
            table = decode_toml(entry.read_bytes(), Table, where=entry.name, error=UsageError)
            if entry.name != table.id + _SUFFIX:
                raise UsageError(f"holds the table {table.id!r}", where=entry.name)
            found.append(table)
    return tuple(found)


def table(id: str) -> Table:  # noqa: A002 - `id` is the field's name everywhere
    """The table of this id.

    Raises:
        UsageError: There is none.
    """
    for found in tables():
        if found.id == id:
            return found
    raise UsageError(f"no operator table {id[:80]!r}", hint=f"there are {', '.join(t.id for t in tables())}")


def named(name: str) -> tuple[Table, ...]:
    """The table of this id, or all of the delegate of this name.

    Raises:
        UsageError: There is neither.
    """
    of_delegate = tuple(found for found in tables() if found.delegate.value == name)
    return of_delegate or (table(name),)


def of_board(board: Profile, delegate: Delegate) -> tuple[Table, ...]:
    """The tables of this delegate on this board: those that name the board, else those that name none."""
    mine = [found for found in tables() if found.delegate is delegate]
    return tuple([t for t in mine if board.id in t.profiles] or [t for t in mine if not t.profiles])
