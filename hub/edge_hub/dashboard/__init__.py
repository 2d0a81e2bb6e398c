"""The dashboard: static files, and the rules under which a browser takes them. What they show comes from the API.

The page at `/` is asked for each time and names the other files below a digest of all of them (`/assets/DIGEST/...`),
so that those may be kept for ever and a new version of the hub is seen at once. Nothing comes from elsewhere, nothing
is run that is not one of these files: the policy below says so to the browser (it is `edge_hub.web.app`'s with the
import map let in), and forbids the ways by which text could become markup (`innerHTML` and its kin, by Trusted Types),
so that a device's words stay words. The other headers of an answer come from `edge_hub.web.app`.
"""

from __future__ import annotations

import base64
import functools
import gzip
import hashlib
import http
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

HERE = Path(__file__).parent
_PAGE = "static/index.html"
_DIGEST = "{digest}"  # in the page, where the digest of all files goes
_FOREVER = "public, max-age=31536000, immutable"
_WORTH_SQUEEZING_BYTES = 1024
# Python's own table asks the system's files, which may know .mjs as something no browser runs.
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_POLICY = (
    "default-src 'self'; script-src 'self' 'sha256-{imports}'; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """A file as it is sent.

    Attributes:
        etag: Of its plain bytes, quoted.
        squeezed: The same with gzip, None where that does not pay.
    """

    content: bytes
    media_type: str
    etag: str
    squeezed: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """All files.

    Attributes:
        digest: Of all of them.
        policy: The Content-Security-Policy of the page.
        assets: By path below this folder, the page aside.
    """

    digest: str
    page: Asset
    policy: str
    assets: Mapping[str, Asset]


@functools.cache
def site() -> Site:
    """The files as they are in this installation, read once."""
    files = {
        str(path.relative_to(HERE)): path.read_bytes()
        for folder in ("static", "vendor")
        for path in sorted((HERE / folder).rglob("*"))
        if path.suffix in _TYPES
    }
    total = hashlib.sha256()
    for name, content in files.items():
        total.update(f"{name}\0{len(content)}\0".encode())
        total.update(content)
    digest = total.hexdigest()[:16]
    page = files.pop(_PAGE).decode().replace(_DIGEST, digest)
    return Site(
        digest=digest,
        page=_asset(_PAGE, page.encode()),
        policy=_POLICY.format(imports=_hash_of_imports(page)),
        assets={name: _asset(name, content) for name, content in files.items()},
    )


def routes() -> list[Route]:
    """What a browser is served without asking who it is: it shows nothing until somebody has signed in."""
    return [
        Route("/", _page, methods=["GET"]),
        Route("/assets/{digest}/{name:path}", _file, methods=["GET"]),
    ]


async def _page(request: Request) -> Response:
    headers = {"Cache-Control": "no-cache", "Content-Security-Policy": site().policy}
    return _answer(request, site().page, headers)


async def _file(request: Request) -> Response:
    asset = site().assets.get(request.path_params["name"])
    if asset is None:
        return Response("no such file", status_code=http.HTTPStatus.NOT_FOUND, media_type="text/plain")
    # A page of before an update may still ask by the old digest: it gets what there is, for this once.
    current = request.path_params["digest"] == site().digest
    return _answer(request, asset, {"Cache-Control": _FOREVER if current else "no-store"})


def _answer(request: Request, asset: Asset, headers: dict[str, str]) -> Response:
    headers |= {"ETag": asset.etag, "Vary": "Accept-Encoding"}
    known = (tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(","))
    if asset.etag in known:
        return Response(status_code=http.HTTPStatus.NOT_MODIFIED, headers=headers)
    content = asset.content
    if asset.squeezed is not None and "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
        content = asset.squeezed
    return Response(content, headers=headers, media_type=asset.media_type)


def _asset(name: str, content: bytes) -> Asset:
    squeezed = gzip.compress(content, 6, mtime=0) if len(content) > _WORTH_SQUEEZING_BYTES else None
    return Asset(
        content=content,
        media_type=_TYPES[Path(name).suffix],
        etag=f'"{hashlib.sha256(content).hexdigest()[:32]}"',
        squeezed=squeezed,
    )


def _hash_of_imports(page: str) -> str:
    """Of the import map, which a browser takes only from within the page and the policy names by its hash."""
    text = page.partition('<script type="importmap">')[2].partition("</script>")[0]
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
