"""Which variants are made, and by which passes: data, read from TOML.

A recipe belongs to a board's profile (`[variants] recipe`), or is named by `--recipe`. Several boards' recipes are one
list: what two of them ask for in the same way is made once. Single options are changed on the command line
(`--set int8.calibrate.method=mse`). What a pass does is in `edge_converter.passes`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from edge_converter.errors import RecipeError
from edge_converter.request import ConvertRequest
from edge_sdk.manifest import Precision
from edge_sdk.profile import Profile
from edge_sdk.wire import MAX_TOML_BYTES, Name, Text, Wire, decode_toml

Value = bool | int | float | str
Options = Mapping[str, Value]

DEFAULT = "default"
# What sources are called, by the format they are given in.
_RESERVED = frozenset({"fp32"})
_FOLDER = Path(__file__).resolve().parent / "recipes"
_SETTING = re.compile(
    r"(?P<variant>[^=]+)\.(?P<step>[a-z][a-z0-9-]*)\.(?P<option>[a-z][a-z0-9_]*)=(?P<value>.*)\Z", re.DOTALL
)


class VariantRecipe(Wire, frozen=True, kw_only=True):
    """How one variant is made.

    Attributes:
        id: Of the variant, without what stands for the source.
        precision: The number format it is to have.
        of: What it is made of: the source as it was `given`, or a twin that training made of it.
        searched: It takes minutes, so it is made only where it is asked for.
        passes: In order; each has a `name`, and the options that differ from the pass's own.
    """

    id: Name
    precision: Precision
    of: Literal["given", "prune", "slim", "qat"] = "given"
    searched: bool = False
    passes: Annotated[tuple[dict[str, Value], ...], Meta(min_length=1, max_length=32)]

    @property
    def steps(self) -> tuple[tuple[str, Options], ...]:
        """Name and options of each pass."""
        return tuple(
            (str(step["name"]), {key: value for key, value in step.items() if key != "name"}) for step in self.passes
        )


class Recipe(Wire, frozen=True, kw_only=True):
    """The variants that are made of every float model."""

    format: Literal[1]
    summary: Text = ""
    variant: Annotated[tuple[VariantRecipe, ...], Meta(min_length=1, max_length=200)]


def names() -> tuple[str, ...]:
    """The recipes that are shipped."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.toml")))


def load(name: str) -> Recipe:
    """The recipe of this name, or in this file.

    Raises:
        RecipeError: There is none, or it is malformed.
    """
    path = _FOLDER / f"{name}.toml" if name in names() else Path(name)
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_TOML_BYTES + 1)
    except OSError as cause:
        hint = f"there are {', '.join(names())}; anything else is a file's path"
        raise RecipeError(f"no recipe: {cause.strerror}", where=name[:200], hint=hint) from cause
    found = decode_toml(raw, Recipe, where=str(path), error=RecipeError)
    for variant in found.variant:
        if any(not isinstance(step.get("name"), str) for step in variant.passes):
            raise RecipeError(f"a pass of {variant.id} has no name", where=str(path))
        if variant.id in _RESERVED and variant.of == "given":
            raise RecipeError(
                f"no variant can be called {variant.id}: a source given in that format is", where=str(path)
            )
    return found


def joined(recipes: Iterable[Recipe]) -> tuple[VariantRecipe, ...]:
    """The variants of all recipes, each once, in the order they come.

    Raises:
        RecipeError: Two make a variant of one id in different ways.
    """
    found: dict[tuple[str, str], VariantRecipe] = {}
    for recipe in recipes:
        for variant in recipe.variant:
            key = (variant.id, variant.of)
            if found.setdefault(key, variant) != variant:
                raise RecipeError(f"two recipes make {variant.id} in different ways", hint="give one another id")
    return tuple(found.values())


def changed(variants: Sequence[VariantRecipe], settings: Sequence[str]) -> tuple[VariantRecipe, ...]:
    """The same with options set, each as `VARIANT.PASS.OPTION=VALUE`; the variant `*` is all that have the pass.

    Raises:
        RecipeError: A setting is not of that form, or fits no variant.
    """
    found = list(variants)
    for setting in settings:
        match = _SETTING.match(setting)
        if match is None:
            raise RecipeError(f"{setting[:80]!r} is no VARIANT.PASS.OPTION=VALUE", hint="int8.calibrate.method=mse")
        fitting = [
            number
            for number, variant in enumerate(found)
            if match["variant"] in {variant.id, "*"} and any(name == match["step"] for name, _ in variant.steps)
        ]
        if match["option"] == "name":
            raise RecipeError(f"{setting[:80]!r}: no pass has an option called name")
        if not fitting:
            known = ", ".join(dict.fromkeys(f"{variant.id}.{name}" for variant in found for name, _ in variant.steps))
            raise RecipeError(f"{setting[:80]!r} fits no variant", hint=f"there are {known}")
        for number in fitting:
            passes = tuple(
                {**step, match["option"]: _value(match["value"])} if step["name"] == match["step"] else step
                for step in found[number].passes
            )
            found[number] = msgspec.structs.replace(found[number], passes=passes)
    return tuple(found)


def chosen(request: ConvertRequest, boards: Sequence[Profile]) -> tuple[VariantRecipe, ...]:
    """The variants that a request asks for.

    Args:
        request: Names a recipe, or leaves it to the boards; chooses formats and sets options.
        boards: Whose recipes count where the request names none.

    Raises:
        RecipeError: A recipe is missing or malformed, or an option fits nothing.
    """
    if request.recipe == "":
        raise RecipeError("no recipe is named", hint=f"there are {', '.join(names())}; anything else is a file's path")
    of_boards = tuple(board.variants.recipe for board in boards) or (DEFAULT,)
    variants = joined(load(name) for name in dict.fromkeys((request.recipe,) if request.recipe else of_boards))
    if request.precisions:
        variants = tuple(variant for variant in variants if variant.precision in request.precisions)
    elif request.max_size is None:
        variants = tuple(variant for variant in variants if not variant.searched)
    return changed(variants, request.settings)


def _value(text: str) -> Value:
    """A number or truth value where it reads as one, else the text."""
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return text
    return value if isinstance(value, bool | int | float | str) else text
