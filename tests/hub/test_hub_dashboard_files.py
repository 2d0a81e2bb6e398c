"""The dashboard's files: what is sent, under which rules, and that what others wrote is unchanged."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import re

import httpx
import pytest
from starlette.applications import Starlette

from edge_hub import dashboard
from edge_hub.dashboard import HERE, site

VENDORED = re.compile(r"^\| `([^`]+)` \| [^|]+ \| [0-9.]+ \| (MIT|Apache-2\.0) \| `([0-9a-f]{64})` \|$", re.MULTILINE)
ADDRESS = re.compile(r"""https?://(?!www\.w3\.org/)[^\s"'`]+""")


class Visitor:
    """Asks the dashboard's routes, without a network."""

    def get(self, path: str, headers: dict[str, str] | None = None) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(Starlette(routes=dashboard.routes()))
            async with httpx.AsyncClient(transport=transport, base_url="http://hub") as client:
                return await client.get(path, headers=headers)

        return asyncio.run(ask())


@pytest.fixture
def visitor() -> Visitor:
    return Visitor()


def ours() -> list[str]:
    return sorted(name for name in site().assets if name.startswith("static/"))


def test_what_others_wrote_is_listed_with_licence_and_sum_and_unchanged() -> None:
    listed = {name: digest for name, _, digest in VENDORED.findall((HERE / "vendor" / "README.md").read_text())}
    there = [path for path in (HERE / "vendor").iterdir() if path.is_file() and path.name != "README.md"]
    assert {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in there} == listed


def test_each_package_of_others_brings_its_licence() -> None:
    listed = re.findall(
        r"^\| `[^`]+` \| `(?:@preact/)?([^`/]+)`", (HERE / "vendor" / "README.md").read_text(), re.MULTILINE
    )
    assert {path.stem for path in (HERE / "vendor" / "licences").iterdir()} == set(listed)


def test_the_page_is_asked_for_anew_and_its_files_are_kept_for_ever(visitor: Visitor) -> None:
    page = visitor.get("/")
    assert page.headers["cache-control"] == "no-cache"
    named = re.findall(r'(?:href|src)="(/assets/[^"]+)"', page.text)
    assert named
    for path in named:
        answer = visitor.get(path)
        assert answer.status_code == 200, path
        assert "immutable" in answer.headers["cache-control"], path


def test_a_file_that_has_not_changed_is_not_sent_again(visitor: Visitor) -> None:
    etag = visitor.get("/").headers["etag"]
    for known in (etag, f'"other", W/{etag}'):
        again = visitor.get("/", headers={"If-None-Match": known})
        assert (again.status_code, again.content) == (304, b"")


def test_a_file_by_an_old_digest_is_sent_once_and_not_kept(visitor: Visitor) -> None:
    answer = visitor.get("/assets/0000000000000000/static/app.css")
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")


@pytest.mark.parametrize(
    "path", ["static/index.html", "%2e%2e/__init__.py", "vendor/README.md", "static/nothing.js", ""]
)
def test_nothing_but_the_files_is_served(visitor: Visitor, path: str) -> None:
    assert visitor.get(f"/assets/{site().digest}/{path}").status_code == 404


def test_files_are_squeezed_for_who_takes_that(visitor: Visitor) -> None:
    path = f"/assets/{site().digest}/static/app.css"
    squeezed = visitor.get(path, headers={"Accept-Encoding": "gzip"})
    plain = visitor.get(path, headers={"Accept-Encoding": "identity"})
    assert squeezed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert squeezed.content == plain.content
    assert len(gzip.compress(plain.content)) < len(plain.content)


def test_the_policy_lets_in_these_files_and_the_import_map_alone(visitor: Visitor) -> None:
    page = visitor.get("/")
    policy = page.headers["content-security-policy"]
    inline = re.findall(r"<script(?![^>]*src=)[^>]*>(.*?)</script>", page.text, re.DOTALL)
    assert len(inline) == 1, "the import map"
    digest = base64.b64encode(hashlib.sha256(inline[0].encode()).digest()).decode()
    assert f"script-src 'self' 'sha256-{digest}';" in policy
    assert "default-src 'self'" in policy
    assert "require-trusted-types-for 'script'" in policy
    assert "unsafe" not in policy
    assert "style=" not in page.text


@pytest.mark.parametrize("name", ours())
def test_our_files_make_no_markup_of_text_and_name_no_other_host(name: str) -> None:
    text = site().assets[name].content.decode()
    for bad in ("innerHTML", "outerHTML", "insertAdjacentHTML", "dangerouslySetInnerHTML", "document.write", "eval("):
        assert bad not in text
    assert not ADDRESS.findall(text)


def test_every_module_that_is_imported_is_there() -> None:
    for name in ours():
        if name.endswith(".js"):
            text = site().assets[name].content.decode()
            for wanted in re.findall(r"""(?:from|import\()\s*"\./([^"]+)\"""", text):
                assert f"static/js/{wanted}" in site().assets, f"{name} imports {wanted}"
