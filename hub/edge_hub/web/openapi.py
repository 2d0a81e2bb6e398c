"""The description of the API for programs: OpenAPI 3.1, made from the table of routes and the types of their values."""

from __future__ import annotations

import http
import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from edge_hub.web.auth import COOKIE, CSRF_HEADER, HOST_ONLY
from edge_hub.web.operation import JSON, PATH, Operation
from edge_sdk._version import __version__
from edge_sdk.local import ErrorBody

_REFERENCE = "#/components/schemas/{name}"
_IN_PATH = re.compile(r"{(\w+)}")
_ABOUT = (
    "See and steer a fleet. Times are seconds since 1970; the unit of a number is the end of its name. "
    "Send `Authorization: Bearer TOKEN`, or the cookie of a session and, with what is not GET, its value for "
    f"`{CSRF_HEADER}`. Names of cookies begin with `{HOST_ONLY}` where the hub speaks TLS itself."
)


def document(operations: Iterable[Operation]) -> dict[str, Any]:
    """The whole document, as JSON takes it."""
    listed = tuple(operations)
    schemas, components = _schemas(listed)
    paths: dict[str, dict[str, Any]] = {}
    for operation in listed:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(operation, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "edge hub", "version": __version__, "description": _ABOUT},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "session": {"type": "apiKey", "in": "cookie", "name": COOKIE},
            },
        },
    }


def _schemas(operations: tuple[Operation, ...]) -> tuple[Mapping[Any, Any], dict[str, Any]]:
    """The schema of each type by the type, and of what they are made of by name."""
    kinds: list[Any] = [ErrorBody]
    for operation in operations:
        kinds += [kind for kind in (operation.answer, operation.body) if kind is not None]
        kinds += [param.kind for param in operation.query]
    kinds += PATH.values()
    found, components = msgspec.json.schema_components(kinds, ref_template=_REFERENCE)
    schemas = {_key(kind): _portable(schema) for kind, schema in zip(kinds, found, strict=True)}
    return schemas, _portable(components)


def _described(operation: Operation, schemas: Mapping[Any, Any]) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": schemas[_key(PATH[name])]}
        for name in _IN_PATH.findall(operation.path)
    ]
    parameters += [
        {"name": param.name, "in": "query", "description": param.text, "schema": schemas[_key(param.kind)]}
        for param in operation.query
    ]
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.text,
        "parameters": parameters,
        "responses": _answers(operation, schemas),
        "security": [] if operation.role is None else [{"token": []}, {"session": []}],
    }
    if operation.role is not None:
        described["x-role"] = operation.role.word
    if operation.body is not None:
        described["requestBody"] = {
            "required": True,
            "content": {JSON: {"schema": schemas[_key(operation.body)]}},
        }
    return described


def _answers(operation: Operation, schemas: Mapping[Any, Any]) -> dict[str, Any]:
    good: dict[str, Any] = {"description": http.HTTPStatus(operation.status).phrase}
    if operation.status != http.HTTPStatus.NO_CONTENT:
        schema = {"type": "string"} if operation.answer is None else schemas[_key(operation.answer)]
        good["content"] = {media.partition(";")[0]: {"schema": schema} for media in operation.media}
    error = {JSON: {"schema": schemas[_key(ErrorBody)]}}
    bad = {"description": "an error: a stable code and a sentence", "content": error}
    found = {str(int(operation.status)): good, "4XX": bad, "5XX": bad}
    if operation.unwell is not None:
        found[str(int(operation.unwell))] = good
    return found


def _key(kind: Any) -> Any:
    """What tells types apart; annotated ones are not equal to their likes in every Python, but are written alike."""
    return repr(kind)


def _portable(schema: Any) -> Any:
    r"""The same with patterns as ECMAScript writes them, which has no `\A` and `\Z`."""
    if isinstance(schema, dict):
        return {
            key: value.replace(r"\A", "^").replace(r"\Z", "$") if key == "pattern" else _portable(value)
            for key, value in schema.items()
        }
    return [_portable(part) for part in schema] if isinstance(schema, (list, tuple)) else schema
