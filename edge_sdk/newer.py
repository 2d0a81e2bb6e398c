"""What a newer peer sends that we do not know: which fields, and the message without them.

The types of `edge_sdk.wire` refuse unknown fields, so that a typing error is found where it is made. Where a peer may
be newer than we are, this is asked after such a refusal; the ordinary message never comes here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import msgspec

_MAX_NAMES: Final = 16
_MAX_NAME_CHARS: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Ignored:
    """What was left out.

    Attributes:
        names: As `State.lux`: each field once, 16 at most.
        rest: The JSON without them.
    """

    names: tuple[str, ...]
    rest: bytes


def unknown_fields(payload: bytes, kind: Any) -> Ignored | None:
    """The fields of a JSON payload that `kind` does not know; None where there are none, or it is no JSON at all.

    Args:
        payload: Not larger than what may be taken apart.
        kind: A type msgspec knows, which may hold others.
    """
    try:
        value = msgspec.json.decode(payload)
        names: dict[str, None] = {}
        rest = _known(value, _described(kind), names)
        return Ignored(names=tuple(names)[:_MAX_NAMES], rest=msgspec.json.encode(rest)) if names else None
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


@lru_cache(maxsize=64)
def _described(kind: Any) -> Any:
    from msgspec import inspect  # half a millisecond that only this needs

    return inspect.type_info(kind)


def _known(value: Any, kind: Any, names: dict[str, None]) -> Any:
    """The part of a value that its type knows. As deep as the type nests, whatever the value does."""
    from msgspec import inspect

    if isinstance(kind, inspect.UnionType):
        kind = next((one for one in kind.types if _fits(value, one)), None)
    if isinstance(value, dict) and isinstance(kind, inspect.StructType):
        fields = {field.encode_name: field.type for field in kind.fields}
        for name in value:
            if name in fields or name == kind.tag_field:
                continue
            names[f"{kind.cls.__name__}.{ascii(name)[1:-1][:_MAX_NAME_CHARS]}"] = None
        return {name: _known(value[name], type_, names) for name, type_ in fields.items() if name in value}
    if isinstance(value, dict) and isinstance(kind, inspect.DictType):
        return {name: _known(one, kind.value_type, names) for name, one in value.items()}
    if isinstance(value, list) and isinstance(kind, inspect.CollectionType):
        return [_known(one, kind.item_type, names) for one in value]
    return value


def _fits(value: Any, kind: Any) -> bool:
    from msgspec import inspect

    if isinstance(value, dict):
        return isinstance(kind, inspect.StructType | inspect.DictType)
    return isinstance(value, list) and isinstance(kind, inspect.CollectionType)
