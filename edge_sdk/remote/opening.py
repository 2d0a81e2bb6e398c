"""An address and what goes with it, read strictly, made into a model that can be asked."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping
from typing import TYPE_CHECKING

from edge_sdk.errors import MissingExtraError, UsageError
from edge_sdk.remote.connection import Pool, Target, reason
from edge_sdk.server_address import HINT, ServerAddress

if TYPE_CHECKING:
    from edge_sdk.remote.engine import RemoteModel

_MOST_NAME = 500
# RFC 9110: a token as the name; visible characters, spaces and tabs as the value.
_HEADER_NAME = re.compile(r"\A[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}\Z")
_HEADER_VALUE = re.compile(r"\A[\x20-\x7e\t]{0,8000}\Z")


def opened(
    address: str,
    *,
    model: str,
    version: str | None,
    token: str | None,
    headers: Mapping[str, str],
    ca_file: str | os.PathLike[str] | None,
    binary: bool | None,
    connections: int,
    most_bytes: int,
) -> RemoteModel:
    """The model at this address; nobody was asked yet.

    Raises:
        UsageError: An argument makes no sense.
        MissingExtraError: It needs gRPC, which is not installed or cannot be loaded.
    """
    shown = "" if "@" in address else ascii(address[:80])  # there may be a password in it
    try:
        parts = ServerAddress.read(address)
    except ValueError as cause:
        raise UsageError(f"the address {cause}", where=shown, hint=HINT) from cause
    for what, name in (("model", model), ("version", version)):
        if name is not None and not 0 < len(name) <= _MOST_NAME:
            raise UsageError(f"{what} is {name[:80]!r}", hint="give the name the server knows it by")
    sent = _headers(headers, token)
    # Also for gRPC, which has its own, and says less of a file that holds none.
    context = _context(ca_file) if parts.is_encrypted else None
    if parts.scheme in {"grpc", "grpcs"}:
        try:
            from edge_sdk.remote.over_grpc import GrpcModel
        except ImportError as cause:  # also where it is installed: its library lacks one of the system's
            is_there = not isinstance(cause, ModuleNotFoundError)
            raise MissingExtraError(
                f"gRPC cannot be loaded: {reason(cause)}" if is_there else "gRPC is not installed",
                where=shown,
                hint="pip install 'adaptive-edge-sdk[grpc]', or use http://",
            ) from cause
        return GrpcModel(
            parts.host, parts.port, ca_file=ca_file if parts.is_encrypted else None, is_encrypted=parts.is_encrypted,
            model=model, version=version, headers=sent, most_bytes=most_bytes,
        )  # fmt: skip
    from edge_sdk.remote.over_http import HttpModel

    target = Target(host=parts.host, port=parts.port, tls=context, where=address.rstrip("/"))
    return HttpModel(
        Pool(target, most=connections), prefix=parts.prefix, model=model, version=version, headers=sent, binary=binary,
        most_bytes=most_bytes,
    )  # fmt: skip


def _headers(headers: Mapping[str, str], token: str | None) -> dict[str, str]:
    """What is sent with each request; the text of an error never repeats a value, which may be a secret."""
    sent = dict(headers)
    if token is not None:
        sent["Authorization"] = f"Bearer {token}"
    for name, value in sent.items():
        if not _HEADER_NAME.match(name) or not _HEADER_VALUE.match(value):
            raise UsageError(
                f"the header {name[:80]!a} cannot be sent", hint="names and values are printable ASCII on one line"
            )
    return sent


def _context(ca_file: str | os.PathLike[str] | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ValueError) as cause:  # ssl.SSLError is one; a zero byte in the path
        raise UsageError(
            f"the certificates cannot be read: {reason(cause)}", where=str(ca_file), hint="give a file in PEM form"
        ) from cause
