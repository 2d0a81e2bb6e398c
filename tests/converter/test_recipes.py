"""Recipes: which variants are made is data, and what is misspelt in it is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_converter import passes, recipe
from edge_converter.errors import RecipeError
from edge_converter.request import ConvertRequest
from edge_sdk import profile
from edge_sdk.manifest import Precision


def request(**fields: object) -> ConvertRequest:
    return ConvertRequest(models=(Path("m.tflite"),), data=Path("d.npz"), output=Path("o.edge"), **fields)


def file(tmp_path: Path, text: str) -> str:
    path = tmp_path / "own.toml"
    path.write_text(text)
    return str(path)


OWN = """
format = 1
[[variant]]
id = "tiny"
precision = "int8"
passes = [{ name = "calibrate" }, { name = "quantize" }, { name = "cluster", price = 1e-6 }]
"""


@pytest.mark.parametrize("name", recipe.names())
def test_every_recipe_that_is_shipped_names_passes_and_options_there_are(name: str) -> None:
    for variant in recipe.load(name).variant:
        for step, options in variant.steps:
            passes.options_of(passes.find(step), options, where=variant.id)


def test_every_profile_names_a_recipe_that_is_shipped() -> None:
    for board in profile.load_all():
        assert recipe.load(board.variants.recipe).variant


def test_what_two_boards_want_alike_is_made_once() -> None:
    boards = [profile.load("rpi4"), profile.load("rpi5")]
    variants = recipe.chosen(request(), boards)
    assert len({(one.id, one.of) for one in variants}) == len(variants)
    assert variants == recipe.chosen(request(), boards[:1])


def test_what_is_searched_for_is_made_where_a_size_or_the_format_is_asked_for() -> None:
    def ids(**fields: object) -> list[str]:
        return [one.id for one in recipe.chosen(request(**fields), [])]

    assert "mixed" not in ids()
    assert "mixed" in ids(max_size=10_000)
    assert ids(precisions=(Precision.MIXED,)) == ["mixed"]


def test_a_file_takes_the_place_of_the_profiles_recipes(tmp_path: Path) -> None:
    (only,) = recipe.chosen(request(recipe=file(tmp_path, OWN)), [profile.load("rpi4")])
    assert only.id == "tiny"
    assert only.steps[-1] == ("cluster", {"price": 1e-6})


def test_a_file_may_begin_with_the_mark_that_some_editors_write(tmp_path: Path) -> None:
    assert recipe.load(file(tmp_path, "\ufeff" + OWN)) == recipe.load(file(tmp_path, OWN))


def test_an_option_is_set_in_one_variant_or_in_all(tmp_path: Path) -> None:
    own = file(tmp_path, OWN)
    for setting in ("tiny.cluster.max_transfer=3100", "*.cluster.max_transfer=3100"):
        (only,) = recipe.chosen(request(recipe=own, settings=(setting,)), [])
        assert only.steps[-1] == ("cluster", {"price": 1e-6, "max_transfer": 3100})
        assert only.steps[0] == ("calibrate", {})


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ("levels=31", "'levels=31' is no VARIANT.PASS.OPTION=VALUE"),
        ("other.cluster.max_transfer=3100", "fits no variant; there are tiny.calibrate, tiny.quantize, tiny.cluster"),
        ("tiny.compensate.x=1", "fits no variant"),
    ],
)
def test_a_setting_that_fits_nothing_is_refused(tmp_path: Path, setting: str, line: str) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe.chosen(request(recipe=file(tmp_path, OWN), settings=(setting,)), [])
    assert line in str(caught.value)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"price": 2}, "Expected `float` <= 1"),
        ({"price": "dear"}, "Expected `float`, got `str`"),
        ({"prize": 1}, "unknown field `prize`"),
    ],
)
def test_an_option_out_of_its_bounds_is_refused_with_those_there_are(options: dict[str, object], line: str) -> None:
    with pytest.raises(RecipeError) as caught:
        passes.options_of(passes.find("cluster"), options, where="int8")
    assert line in str(caught.value)
    assert "int8.cluster" in str(caught.value)
    assert "its options: levels, price, max_transfer" in str(caught.value)


def test_a_pass_nobody_has_is_refused_with_those_there_are() -> None:
    with pytest.raises(RecipeError, match="no pass 'shrink'; there are fold, equalize, calibrate, quantize"):
        passes.find("shrink")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("format = 2\n", "Invalid enum value 2"),
        ("format = 1\nvariant = []\n", "length >= 1"),
        (OWN + "more = 1\n", "unknown field `more`"),
        (OWN.replace("int8", "int7"), "Invalid enum value 'int7'"),
        (OWN.replace('name = "quantize"', "price = 2"), "a pass of tiny has no name"),
        ("format = [", "not TOML"),
    ],
)
def test_a_malformed_recipe_is_one_line(tmp_path: Path, text: str, line: str) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe.load(file(tmp_path, text))
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_recipe_that_is_not_there_names_those_there_are() -> None:
    with pytest.raises(
        RecipeError, match=r"fast: no recipe: No such file or directory; there are careful, default, npu, quick"
    ):
        recipe.load("fast")


def test_two_ways_to_make_one_variant_are_refused() -> None:
    first = recipe.load("quick")
    other = recipe.Recipe(
        format=1, variant=(recipe.VariantRecipe(id="int8", precision=Precision.INT8, passes=({"name": "quantize"},)),)
    )
    with pytest.raises(RecipeError, match="two recipes make int8 in different ways"):
        recipe.joined([first, other])


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (('id = "tiny"', 'id = "tiny"\nof = "zzz"'), "Invalid enum value 'zzz'"),
        (('id = "tiny"', 'id = "fp32"'), "no variant can be called fp32"),
    ],
)
def test_a_recipe_that_would_make_nothing_or_two_of_a_name_is_refused(
    tmp_path: Path, change: tuple[str, str], line: str
) -> None:
    with pytest.raises(RecipeError, match=line):
        recipe.load(file(tmp_path, OWN.replace(*change)))


def test_a_pass_is_not_swapped_by_a_setting(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no pass has an option called name"):
        recipe.chosen(request(recipe=file(tmp_path, OWN), settings=("tiny.calibrate.name=quantize",)), [])


def test_an_empty_name_is_no_recipe() -> None:
    with pytest.raises(RecipeError, match="no recipe is named"):
        recipe.chosen(request(recipe=""), [])
