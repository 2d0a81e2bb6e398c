"""What a route of the API is: one row of the table from which requests are checked and the OpenAPI document is made."""

from __future__ import annotations

import http
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from edge_hub.api import Kept, to_json
from edge_hub.errors import UnknownDeviceError
from edge_hub.store.records import DeviceRecord
from edge_hub.web.auth import Caller, Role
from edge_sdk.errors import WireError
from edge_sdk.mqtt import DeviceId
from edge_sdk.wire import Count, Name, Token, Unix

if TYPE_CHECKING:
    from edge_hub.service import Hub

JSON = "application/json"
_WHOLE = re.compile(r"-?[0-9]+")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?")

Seconds = Annotated[float, Meta(ge=0, le=366 * 86_400)]
Flag = Annotated[int, Meta(ge=0, le=1)]
Words = Annotated[str, Meta(max_length=2000)]

# Path parameters have one type each, whatever the route.
PATH: Mapping[str, Any] = {"tenant": Name, "device": Name, "id": Token, "number": Count, "name": Name, "what": Kept}


@dataclass(frozen=True, slots=True, kw_only=True)
class Param:
    """A parameter of the query string.

    Attributes:
        kind: Its type, as msgspec reads it.
        text: What it says, for the document.
    """

    name: str
    kind: Any
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A request that was let in.

    Attributes:
        query: Its parameters, those that were given.
        body: As the operation's type, None where it has none.
        path: The parts of the path.
    """

    hub: Hub
    request: Request
    caller: Caller
    query: Mapping[str, Any]
    path: Mapping[str, Any]
    body: Any = None

    @property
    def device(self) -> DeviceId:
        """Of the path."""
        return DeviceId(tenant=self.path["tenant"], device=self.path["device"])

    async def record(self) -> DeviceRecord:
        """The device of the path.

        Raises:
            UnknownDeviceError: There is none.
        """
        record = await self.hub.store.device(self.device)
        if record is None:
            raise UnknownDeviceError("no such device", where=str(self.device), hint="'edge hub devices' lists them")
        return record


Handler = Callable[[Ask], Awaitable[Response]]
# As how many cheap requests one counts, by its parameters.
Weight = Callable[[Mapping[str, Any]], int]


def weighs(count: int) -> Weight:
    """The same, whatever the parameters."""
    return lambda _query: count


ONE = weighs(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One route.

    Attributes:
        role: Who may; None is open to everybody.
        answer: The type of the body of its answer.
        body: The type of the request's.
        query: Its parameters.
        status: Of an answer that is no error.
        unwell: Another status under which the same is answered.
        weight: What it costs the hub, beside a cheap one.
        media: Of its answer; several where the request says which.
    """

    method: str
    path: str
    text: str
    handler: Handler
    role: Role | None
    answer: Any = None
    body: Any = None
    query: tuple[Param, ...] = ()
    status: int = http.HTTPStatus.OK
    unwell: int | None = None
    weight: Weight = ONE
    media: tuple[str, ...] = (JSON,)

    @property
    def name(self) -> str:
        """Unique among the routes, for programs that are generated from them."""
        words = [word.strip("{}") for word in self.path.removeprefix("/api/v1").split("/") if word]
        return "-".join((self.method.lower(), *words))


def json_answer(value: Any, *, status: int = http.HTTPStatus.OK, headers: dict[str, str] | None = None) -> Response:
    """An answer with this value as its body."""
    return Response(to_json(value), status_code=status, media_type=JSON, headers=headers)


def read_query(operation: Operation, request: Request) -> dict[str, Any]:
    """The parameters.

    Raises:
        WireError: One is not known, given twice, or out of bounds.
    """
    known = {param.name: param for param in operation.query}
    found: dict[str, Any] = {}
    for name, given in request.query_params.multi_items():
        param = known.get(name)
        if param is None or name in found:
            told = "is given twice" if param is not None else "is no parameter of this"
            raise WireError(f"{name[:40]!r} {told}", where="query", hint=f"there are: {', '.join(known) or 'none'}")
        found[name] = _read(param.kind, given, f"query, {name}")
    return found


def read_path(request: Request) -> dict[str, Any]:
    """The parts of the path.

    Raises:
        WireError: One cannot be a name of such a thing.
    """
    return {name: _read(PATH[name], given, f"path, {name}") for name, given in request.path_params.items()}


def _read(kind: Any, given: str, where: str) -> Any:
    try:
        found = msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as cause:
        raise WireError(f"{given[:40]!r}: {cause}", where=where) from cause
    # Python reads more as a number than people write: 1_000, digits of other scripts, nan.
    if isinstance(found, (int, float)) and not (_WHOLE if isinstance(found, int) else _NUMBER).fullmatch(given):
        raise WireError(f"{given[:40]!r} is no number", where=where)
    return found


BEFORE = Param(name="before", kind=Count, text="only those with a lower id")
BEFORE_TIME = Param(name="before", kind=Unix, text="only those sent before this time")
LIMIT = Param(
    name="limit", kind=Annotated[int, Meta(ge=1, le=1000)], text="how many at most, 100 where it is not given"
)
QUERY = Param(name="query", kind=Words, text="which devices, in the query language; all where it is not given")
