"""Every error: a code of its own, an exit status, one readable line, and it survives a process border."""

from __future__ import annotations

import pickle
import re

import pytest
from every_error import every_error

from edge_sdk.errors import EXIT_FAILED, EXIT_USAGE, EdgeError, InputNameError, UsageError

pytestmark = pytest.mark.device

ERRORS = every_error()


def test_no_two_errors_have_the_same_code() -> None:
    codes = [kind.code for kind in ERRORS]
    assert len(set(codes)) == len(codes), sorted(code for code in codes if codes.count(code) > 1)


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
class TestError:
    def test_its_name_code_and_exit_status_keep_to_the_form(self, kind: type[EdgeError]) -> None:
        assert kind.__name__.endswith("Error")
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", kind.code)
        assert kind.exit_status in {EXIT_FAILED, EXIT_USAGE}
        assert "code" in vars(kind), "a code is said by each class, never inherited by accident"

    def test_its_docstring_says_what_was_found(self, kind: type[EdgeError]) -> None:
        assert (kind.__doc__ or "").splitlines()[0].endswith((".", ":"))

    def test_it_crosses_a_process_border_with_all_it_says(self, kind: type[EdgeError]) -> None:
        error = kind.__new__(kind)
        EdgeError.__init__(error, "it broke", where="here", hint="mend it")
        error.extra = 7  # type: ignore[attr-defined]  # stands for the fields of a subclass
        again = pickle.loads(pickle.dumps(error))  # noqa: S301 - made here
        assert type(again) is kind
        assert (str(again), again.__dict__, again.code) == (str(error), error.__dict__, error.code)


@pytest.mark.parametrize(
    ("where", "hint", "text"),
    [
        ("", "", "it broke"),
        ("a.toml", "", "a.toml: it broke"),
        ("", "mend it", "it broke; mend it"),
        ("a.toml", "mend it", "a.toml: it broke; mend it"),
    ],
)
def test_it_says_what_where_and_what_to_try(where: str, hint: str, text: str) -> None:
    assert str(EdgeError("it broke", where=where, hint=hint)) == text
    # KeyError would print its text in quotation marks.
    assert str(InputNameError("it broke", where=where, hint=hint)) == text


def test_catching_the_root_catches_all() -> None:
    assert all(issubclass(kind, EdgeError) for kind in ERRORS)
    assert UsageError("x").exit_status == 2
