"""What can be typed, set, sent or met is documented, and every link of the documentation leads somewhere."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import inspect

from edge_sdk import bundle, manifest, segments, wire
from edge_sdk.errors import EdgeError

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"
PACKAGES = ("edge_sdk", "edge_converter", "edge_daemon", "edge_hub", "edge_lab")
SOURCES = {"converter", "daemon", "edge_sdk", "hub", "lab"}
LINK = re.compile(r"\]\(([^)\s#]*)(?:#([^)\s]*))?\)")


def kinds(root: type[EdgeError]) -> Iterator[type[EdgeError]]:
    for kind in root.__subclasses__():
        yield kind
        yield from kinds(kind)


def errors() -> list[type[EdgeError]]:
    for package in PACKAGES:
        importlib.import_module(f"{package}.errors")
    found = dict.fromkeys(kinds(EdgeError))  # a class with two bases is met twice
    return [EdgeError, *(kind for kind in found if kind.__module__.partition(".")[0] in PACKAGES)]


def rows() -> dict[str, int]:
    """Code and exit status of every row of the table of errors."""
    text = (REFERENCE / "errors.md").read_text("utf-8")
    return {code: int(status) for code, status in re.findall(r"^\| `([a-z0-9-]+)` \| (\d) \|", text, re.MULTILINE)}


def test_every_error_code_is_documented_with_its_exit_status() -> None:
    assert rows() == {kind.code: kind.exit_status for kind in errors()}


def test_every_error_says_what_was_found_and_what_to_try() -> None:
    for line in (REFERENCE / "errors.md").read_text("utf-8").splitlines():
        if line.startswith("| `"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            assert len(cells) == 4, line
            assert all(cells), line


def test_no_two_errors_share_a_code() -> None:
    codes = [kind.code for kind in errors()]
    assert len(set(codes)) == len(codes)


def test_errors_are_defined_in_the_errors_module_of_their_package() -> None:
    known = {kind.__name__ for kind in errors()}
    for package in PACKAGES:
        folder = Path(importlib.import_module(package).__file__ or "").parent
        for path in folder.rglob("*.py"):
            classes = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.ClassDef)]
            ours = [node.name for node in classes if any(isinstance(b, ast.Name) and b.id in known for b in node.bases)]
            assert path.name == "errors.py" or not ours, f"{package}/{path.relative_to(folder)} defines {ours}"


def test_every_code_that_is_answered_without_an_error_is_documented() -> None:
    text = (REFERENCE / "errors.md").read_text("utf-8")
    answered = re.compile(r"(?:ErrorBody|Reply)\([^()]*?\bcode=\"([a-z-]+)\"|_refusal\(\s*\"([a-z-]+)\"")
    found = {
        (path.name, one or other)
        for package in PACKAGES
        for path in Path(importlib.import_module(package).__file__ or "").parent.rglob("*.py")
        for one, other in answered.findall(path.read_text("utf-8"))
    }
    assert {code for _, code in found} >= {"too-old", "interrupted", "failed"}, "the pattern finds nothing any more"
    assert {(name, code) for name, code in found if f"`{code}`" not in text} == set()


@pytest.mark.parametrize("tool", ["cli_reference.py", "device_table.py", "mqtt_schema.py"])
def test_generated_pages_are_up_to_date(tool: str) -> None:
    told = subprocess.run(
        [sys.executable, str(ROOT / "tools" / tool), "--check"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=ROOT,
    )
    assert told.returncode == 0, told.stdout + told.stderr


def test_every_request_of_the_hub_is_documented() -> None:
    app = pytest.importorskip("edge_hub.web.app", reason="the hub extra is not installed")
    text = (REFERENCE / "hub-api.md").read_text("utf-8")
    for route in app.ROUTES:
        assert f"`{route.method} {route.path}`" in text, f"{route.method} {route.path}"


def test_every_request_of_the_hub_is_described_for_programs_and_has_a_method_in_python() -> None:
    app = pytest.importorskip("edge_hub.web.app", reason="the hub extra is not installed")
    from edge_hub import client
    from edge_hub.web.openapi import document

    described = {(method.upper(), path) for path, one in document(app.ROUTES)["paths"].items() for method in one}
    assert described == {(route.method, route.path) for route in app.ROUTES}
    source = Path(client.__file__).read_text("utf-8")
    for route in app.ROUTES:
        path = re.sub(r"\\{\w+\\}", r"\\{\\w+\\}", re.escape(route.path.replace("{tenant}/{device}", "{device}")))
        method = "" if route.method == "GET" else rf'"{route.method}", '
        asked = rf'{method}f?"{path}"'
        assert re.search(asked, source), f"{route.method} {route.path}"


# The words of the page for the types that more than one field has.
WORDS: dict[str, Any] = {
    "name": wire.Name,
    "text": wire.Text,
    "hash": wire.Sha256,
    "count": wire.Count,
    "time": wire.Unix,
    "percent": wire.Percent,
    "points": manifest.Points,
    "ms": wire.Millis,
}


def named(kind: Any) -> set[str]:
    """What the cell of a type must say: its word or bounds, and those of what it holds."""
    for word, known in WORDS.items():
        if kind == inspect.type_info(known):
            return {word}
    limits = (getattr(kind, name, None) for name in ("ge", "le", "gt", "lt", "min_length", "max_length"))
    said = {str(limit) for limit in limits if limit is not None}
    if isinstance(kind, inspect.StructType):
        return {f"(#{kind.cls.__name__.lower()})"}
    if isinstance(kind, inspect.EnumType):
        return said
    parts = [getattr(kind, name) for name in ("item_type", "key_type", "value_type") if hasattr(kind, name)]
    parts += [*getattr(kind, "item_types", ()), *(part for part in getattr(kind, "types", ()))]
    return said.union(*(named(part) for part in parts))


@pytest.mark.parametrize(
    "kind",
    [
        manifest.Manifest, manifest.Source, manifest.TensorSpec, manifest.Preprocessing, manifest.Variant,
        manifest.Pass, manifest.Target, manifest.Coverage, manifest.Quality, manifest.Cost, manifest.Refused,
        manifest.Selection, manifest.Recommended, manifest.Dominated, manifest.Excluded,
        manifest.Missing, manifest.EvidenceFile, manifest.Latency,
    ],
)  # fmt: skip
def test_every_field_of_a_bundle_is_documented_with_its_type_and_bounds(kind: type[wire.Wire]) -> None:
    check_fields(kind, "bundle.md")


@pytest.mark.parametrize(
    "kind",
    [
        segments.SplitPlan, segments.WholeModel, segments.Segment, segments.SegmentInput, segments.ModelOutput,
        segments.Timing, manifest.TensorSpec,
    ],
)  # fmt: skip
def test_every_field_of_a_split_is_documented_with_its_type_and_bounds(kind: type[wire.Wire]) -> None:
    check_fields(kind, "segments.md")


def check_fields(kind: type[wire.Wire], page: str) -> None:
    """A table of the page has all fields in their order, with types, bounds and defaults."""
    text = (REFERENCE / page).read_text("utf-8")
    part = re.search(rf"^### {kind.__name__}$(.*?)(?=^##|\Z)", text, re.DOTALL | re.MULTILINE)
    assert part is not None
    table = re.findall(r"^\| `(\w+)` \| ([^|]*) \| ([^|]*) \| [^|]*\|$", part[1], re.MULTILINE)
    fields = inspect.type_info(kind).fields
    assert [name for name, _, _ in table] == [field.name for field in fields]
    for field, (name, said, default) in zip(fields, table, strict=True):
        missing = {word for word in named(field.type) if not re.search(rf"(?<!\w){re.escape(word)}(?!\w)", said)}
        assert not missing, f"{name} is {said!r}"
        assert field.required == (default == "required"), name
        assert (field.default is None) == (default == "none"), name


def test_every_value_of_a_bundle_is_documented() -> None:
    text = (REFERENCE / "bundle.md").read_text("utf-8")
    for value in (*manifest.Precision, *manifest.Delegate, *manifest.Origin, *manifest.Objective):
        assert f"`{value.value}`" in text, value
    for word, kind in WORDS.items():
        row = re.search(rf"^\| \*{word}\* \| (.*) \|$", text, re.MULTILINE)
        assert row is not None, word
        numbers = re.findall(r"-?\d+", row[1].replace("2^53", str(2**53)))
        limits = (getattr(inspect.type_info(kind), name, None) for name in ("ge", "le", "max_length"))
        assert {f"{limit:.0f}" for limit in limits if limit is not None} <= set(numbers), word


def test_the_example_of_a_manifest_is_one_to_the_byte() -> None:
    (example,) = re.findall(r"```json\n(.*?)```", (REFERENCE / "bundle.md").read_text("utf-8"), re.DOTALL)
    decoded = wire.decode(example.encode(), manifest.Manifest, where="bundle.md")
    bundle.check(decoded, where="bundle.md")
    assert wire.canonical(decoded).decode() == example


def test_every_sensor_is_documented() -> None:
    from edge_sdk.mqtt import Conditions

    text = (REFERENCE / "sensors.md").read_text("utf-8")
    for field in Conditions.__struct_fields__:
        if field not in {"missing", "played"}:
            assert f"`{field}`" in text, field


def anchors(page: Path) -> set[str]:
    """The headings of a page, as a link names them."""
    told = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in told}


def test_every_link_leads_somewhere() -> None:
    for page in [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]:
        name = page.relative_to(ROOT)
        for target, heading in LINK.findall(page.read_text("utf-8")):
            if "://" in target or target.startswith("mailto:"):
                continue
            there = (page.parent / target).resolve() if target else page
            assert there.is_relative_to(ROOT.resolve()), f"{name} links out of the project: {target}"
            top = there.relative_to(ROOT.resolve()).parts[0]
            assert top not in SOURCES, f"{name} links into a package, which moves: name the module instead of {target}"
            assert there.exists(), f"{name} links to {target}"
            assert not heading or heading in anchors(there), f"{name} links to {target}#{heading}"


def test_every_page_can_be_found_from_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text("utf-8")
    decisions = (ROOT / "docs" / "adr" / "README.md").read_text("utf-8")
    for page in sorted((ROOT / "docs").rglob("*.md")):
        name = page.relative_to(ROOT / "docs").as_posix()
        if page.name == "README.md":
            continue
        where = decisions if name.startswith("adr/") else index
        assert f"({name.removeprefix('adr/')})" in where, name


def test_every_pass_and_every_option_of_it_is_documented() -> None:
    passes = pytest.importorskip("edge_converter.passes")
    page = (ROOT / "docs" / "reference" / "recipes.md").read_text()
    for name in passes.known():
        assert f"| `{name}` |" in page
        for option in passes.find(name).options.__struct_fields__:
            assert f"| `{name}.{option}` |" in page


def test_every_recipe_is_documented() -> None:
    recipe = pytest.importorskip("edge_converter.recipe")
    page = (ROOT / "docs" / "reference" / "recipes.md").read_text()
    for name in recipe.names():
        assert f"| `{name}` |" in page
