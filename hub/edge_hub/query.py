"""Which devices: the query language of lists, commands, groups and alert rules. Pure.

    profile = rpi4 and temp_c > 70 and not label.site = "roof" or variant in (int8, small-int8)

`or` binds weaker than `and`, `and` weaker than `not`; parentheses bind first. A query is compiled once and asked of
many devices. What a device does not know makes each comparison with it false, so that `not temp_c > 70` also takes the
devices without a sensor; `!=` is `not ... =`. Of a field with several values (`model`, `variant`, `on`, `p95_ms`: one
a model) a comparison holds where it does for any. `group:NAME` stands for the query that is kept under this name.
`docs/reference/queries.md` describes it for people.
"""

from __future__ import annotations

import difflib
import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from edge_hub.errors import QueryError
from edge_hub.rows import Facts

MAX_CHARS = 2000
MAX_DEPTH = 24
MAX_TERMS = 300  # with those of the groups that are named

# docs/reference/queries.md describes each of these; a test holds it to that.
WORDS: Mapping[str, str] = MappingProxyType(
    {
        "device": "`TENANT/DEVICE`, or the second part alone",
        "tenant": "the first part of it",
        "profile": "the profile its daemon runs with",
        "board": "what the board calls itself",
        "model": "models it serves",
        "variant": "variants that run now",
        "on": "who computes them: `cpu`, or an accelerator",
        "throttle": "`none`, `soft`, `thermal`, `power`, `critical`",
        "software": "what its daemon calls itself, with the version",
    }
)
NUMBERS: Mapping[str, str] = MappingProxyType(
    {
        "temp_c": "of the hottest zone that counts",
        "headroom_c": "how far that is below the limit its policy keeps to; negative above it",
        "battery_pct": "charge",
        "power_w": "draw of the board; an estimate where there is no sensor",
        "rtt_ms": "network round trip to the broker",
        "late_pct": "late calls of all, in the newest telemetry window",
        "p95_ms": "95th percentile of a model's latency there",
        "alerts": "open ones",
        "age_s": "time since it was last heard of",
        "clock_skew_s": "how far its clock is off, either way",
        "quality_drop": "points of quality that the running variant is below the device's best",
        "switches_h": "switches within the last hour",
    }
)
FLAGS: Mapping[str, str] = MappingProxyType(
    {
        "online": "it was born and its will has not come",
        "charging": "mains is there",
        "pinned": "a model is pinned",
        "in_step": "it has applied the desired document",
        "version_skew": "its software or a model's version is not the one most devices have",
    }
)
_LABEL = "label."
_GROUP = "group:"
_YES = MappingProxyType({"yes": True, "true": True, "no": False, "false": False})
_ORDER: Mapping[str, Callable[[float, float], bool]] = MappingProxyType(
    {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "=": operator.eq}
)
_TOKEN = re.compile(
    r"""\s*(?:
        (?P<quoted>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
      | (?P<sign><=|>=|!=|[=<>~(),])
      | (?P<word>[^\s"'<>=!~(),]+)
    )""",
    re.VERBOSE | re.DOTALL,
)

Matches = Callable[[Facts], bool]


@dataclass(frozen=True, slots=True)
class Query:
    """A compiled query.

    Attributes:
        text: As it was written.
        fields: Those it asks of, with those of the groups it names.
    """

    text: str
    fields: frozenset[str]
    _matches: Matches

    def __call__(self, facts: Facts) -> bool:
        """Whether it holds for a device."""
        return self._matches(facts)


def parse(text: str, groups: Mapping[str, str] = MappingProxyType({})) -> Query:
    """Compile a query; an empty one holds for every device.

    Args:
        text: The query.
        groups: Queries by the name of the group.

    Raises:
        QueryError: It is none; `column` says where, from 1.
    """
    if len(text) > MAX_CHARS:
        raise QueryError(f"longer than {MAX_CHARS} characters", column=MAX_CHARS + 1, hint="name parts of it as groups")
    shared = _Shared()
    matches = _Parser(text, groups, shared, ()).whole()
    return Query(text, frozenset(shared.fields), matches)


def glob_matches(pattern: str, text: str) -> bool:
    """`*` stands for any characters, `?` for one. Takes time in proportion to the product of the lengths at most."""
    at, back, resume = 0, -1, 0
    for_text = 0
    while for_text < len(text):
        if at < len(pattern) and pattern[at] == "*":
            back, resume, at = at, for_text, at + 1
        elif at < len(pattern) and pattern[at] in {"?", text[for_text]}:
            at, for_text = at + 1, for_text + 1
        elif back >= 0:
            resume += 1
            at, for_text = back + 1, resume
        else:
            return False
    return all(char == "*" for char in pattern[at:])


@dataclass(slots=True)
class _Shared:
    """What a query has in common with the groups it names: the comparisons they may still make, the fields read."""

    terms: int = MAX_TERMS
    fields: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _Token:
    """`kind` is `quoted`, `sign`, `word` or `end`; `value` without quotes; `column` from 1."""

    kind: str
    value: str
    column: int


class _Parser:
    """One pass over a query's tokens."""

    def __init__(self, text: str, groups: Mapping[str, str], shared: _Shared, within: tuple[str, ...]) -> None:
        self._tokens = _tokens(text)
        self._next = 0
        self._depth = 0
        self._groups = groups
        self._shared = shared
        self._within = within

    def whole(self) -> Matches:
        if self._token.kind == "end":
            return lambda _facts: True
        found = self._or()
        if self._token.kind != "end":
            raise self._error(f"{self._said()} where 'and', 'or' or the end belongs")
        return found

    def _or(self) -> Matches:
        parts = [self._and()]
        while self._takes_word("or"):
            parts.append(self._and())
        if len(parts) == 1:
            return parts[0]
        return lambda facts: any(part(facts) for part in parts)

    def _and(self) -> Matches:
        parts = [self._not()]
        while self._takes_word("and"):
            parts.append(self._not())
        if len(parts) == 1:
            return parts[0]
        return lambda facts: all(part(facts) for part in parts)

    def _not(self) -> Matches:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._error(f"nested deeper than {MAX_DEPTH} levels", hint="name parts of it as groups")
        try:
            if self._takes_word("not"):
                inner = self._not()
                return lambda facts: not inner(facts)
            if self._takes_sign("("):
                inner = self._or()
                if not self._takes_sign(")"):
                    raise self._error(f"{self._said()} where ')' belongs")
                return inner
            return self._term()
        finally:
            self._depth -= 1

    def _term(self) -> Matches:
        self._shared.terms -= 1
        if self._shared.terms < 0:
            raise self._error(f"more than {MAX_TERMS} comparisons", hint="use 'in (...)', or labels")
        named = self._token
        if named.kind != "word" or named.value.lower() in {"and", "or", "not", "in"}:
            raise self._error(f"{self._said()} where a field belongs", hint="such as profile = rpi4")
        self._next += 1
        if named.value.startswith(_GROUP):
            return self._group(named)
        self._shared.fields.add(named.value)
        if named.value in FLAGS and self._token.value not in {"=", "!="}:
            return _flag(named.value, wanted=True)
        return self._compared(named)

    def _compared(self, named: _Token) -> Matches:
        name = named.value
        read = _texts(name)
        if read is None and name not in NUMBERS and name not in FLAGS:
            raise _error_at(named, f"there is no field {_shown(name)}", hint=_nearest(name))
        sign = self._token
        if self._takes_word("in"):
            return self._one_of(name, read)
        if sign.kind != "sign" or sign.value in "(),":
            raise self._error(f"{self._said()} after {name}", hint="give =, !=, <, <=, >, >=, ~ or in (...)")
        self._next += 1
        value = self._value()
        if sign.value == "!=":
            inner = self._one(name, "=", sign, value, read)
            return lambda facts: not inner(facts)
        return self._one(name, sign.value, sign, value, read)

    def _one(
        self, name: str, sign: str, at: _Token, value: _Token, read: Callable[[Facts], tuple[str, ...]] | None
    ) -> Matches:
        """One comparison."""
        if name in FLAGS:
            if sign != "=" or value.value.lower() not in _YES:
                raise _error_at(value, f"{name} is yes or no", hint=f"write {name}, or not {name}")
            return _flag(name, wanted=_YES[value.value.lower()])
        if read is None:
            if sign == "~":
                raise _error_at(at, f"{name} is a number, '~' compares text", hint="give <, <=, =, >= or >")
            return _number(name, _ORDER[sign], _finite(value, name))
        wanted = value.value
        if sign == "=":
            return lambda facts: wanted in read(facts)
        if sign == "~":
            return lambda facts: any(glob_matches(wanted, text) for text in read(facts))
        raise _error_at(at, f"{name} is text, {sign!r} compares numbers", hint="give =, != or ~ (with * and ?)")

    def _one_of(self, name: str, read: Callable[[Facts], tuple[str, ...]] | None) -> Matches:
        """`FIELD in (VALUE, ...)`."""
        if not self._takes_sign("("):
            raise self._error(f"{self._said()} where '(' belongs", hint="such as variant in (int8, fp16)")
        values = [self._value()]
        while self._takes_sign(","):
            values.append(self._value())
        if not self._takes_sign(")"):
            raise self._error(f"{self._said()} where ',' or ')' belongs")
        if read is None:
            parts = [self._one(name, "=", value, value, None) for value in values]
            return lambda facts: any(part(facts) for part in parts)
        wanted = frozenset(value.value for value in values)
        return lambda facts: not wanted.isdisjoint(read(facts))

    def _group(self, token: _Token) -> Matches:
        name = token.value.removeprefix(_GROUP)
        if name in self._within:
            raise _error_at(token, f"group {_shown(name)} names itself", hint="through " + " > ".join(self._within))
        text = self._groups.get(name)
        if text is None:
            raise _error_at(token, f"there is no group {_shown(name)}", hint="'edge hub groups' lists them")
        if len(self._within) >= MAX_DEPTH:
            raise _error_at(token, f"groups within groups, more than {MAX_DEPTH} levels", hint="name fewer")
        try:
            return _Parser(text, self._groups, self._shared, (*self._within, name)).whole()
        except QueryError as cause:
            raise _error_at(token, f"group {name}: {cause.what}", hint=cause.hint) from cause

    # ---------------------------------------------------------------------------------------------------- tokens

    @property
    def _token(self) -> _Token:
        return self._tokens[self._next]

    def _takes_word(self, word: str) -> bool:
        token = self._token
        return self._takes(token.kind == "word" and token.value.lower() == word)

    def _takes_sign(self, sign: str) -> bool:
        token = self._token
        return self._takes(token.kind == "sign" and token.value == sign)

    def _takes(self, fits: bool) -> bool:
        self._next += fits
        return fits

    def _value(self) -> _Token:
        token = self._token
        if token.kind not in {"word", "quoted"}:
            raise self._error(f"{self._said()} where a value belongs", hint="put text with other signs in quotes")
        self._next += 1
        return token

    def _said(self) -> str:
        return "the end" if self._token.kind == "end" else _shown(self._token.value)

    def _error(self, what: str, *, hint: str = "") -> QueryError:
        return _error_at(self._token, what, hint=hint)


def _tokens(text: str) -> list[_Token]:
    found: list[_Token] = []
    at, end = 0, len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None:
            column = len(text) - len(text[at:].lstrip()) + 1
            char = text[column - 1]
            hint = "the quote is never closed" if char in "\"'" else "write !=" if char == "!" else ""
            raise QueryError(f"{_shown(char)} makes no sense here", column=column, hint=hint)
        kind = match.lastgroup or ""
        value = match[kind]
        if kind == "quoted":
            value = re.sub(r"\\(.)", r"\1", value[1:-1], flags=re.DOTALL)
        found.append(_Token(kind, value, match.start(kind) + 1))
        at = match.end()
    return [*found, _Token("end", "", end + 1)]


def _texts(name: str) -> Callable[[Facts], tuple[str, ...]] | None:
    """How to read a field that holds text; None where it does not."""
    if name in WORDS:
        return lambda facts: facts.words[name]
    if name.startswith(_LABEL) and len(name) > len(_LABEL):
        key = name.removeprefix(_LABEL)

        def label(facts: Facts) -> tuple[str, ...]:
            value = facts.record.labels.get(key)
            return () if value is None else (value,)

        return label
    return None


def _flag(name: str, *, wanted: bool) -> Matches:
    return lambda facts: facts.flags[name] is wanted


def _number(name: str, compare: Callable[[float, float], bool], limit: float) -> Matches:
    return lambda facts: any(compare(value, limit) for value in facts.numbers[name])


def _finite(token: _Token, name: str) -> float:
    try:
        value = float(token.value)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        unit = {"c": "°C", "s": "seconds", "ms": "milliseconds", "pct": "percent", "w": "watts"}.get(
            name.rpartition("_")[2], ""
        )
        told = f"{_shown(token.value)} is no number"
        raise _error_at(token, told, hint=f"{name} is in {unit}, give a number alone" if unit else "give a number")
    return value


def _nearest(name: str) -> str:
    known = [*WORDS, *NUMBERS, *FLAGS, f"{_LABEL}KEY"]
    near = difflib.get_close_matches(name[:64], known, n=1)
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"


def _shown(text: str) -> str:
    return ascii(text[:40]) if len(text) <= 40 else f"{text[:40]!a}..."  # noqa: PLR2004 - as many as are shown


def _error_at(token: _Token, what: str, *, hint: str = "") -> QueryError:
    return QueryError(what, column=token.column, hint=hint)
