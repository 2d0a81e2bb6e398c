"""`edge serve`: a model of this machine for others, until it is told to end."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from edge_sdk.address import Address, bind, refuse_unsafe
from edge_sdk.cli.output import emit, say
from edge_sdk.errors import EXIT_FAILED, MissingExtraError, UsageError

_BYTES_PER_MB = 1_000_000
_MAX_TOKEN_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """What `edge serve --json` prints once it answers.

    Attributes:
        url: Where; `RemoteEngine(url, model=model)`.
        grpc: The same over gRPC; None where that is not served.
        variant: Of a bundle: the one that would compute now.
    """

    url: str
    grpc: str | None
    model: str
    version: str
    variant: str | None


def run(args: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM."""
    try:
        from edge_sdk.serving.server import Limits, serve
    except ModuleNotFoundError as cause:
        raise MissingExtraError(
            f"edge serve needs {cause.name}, which is not installed", hint="pip install 'adaptive-edge-sdk[serve]'"
        ) from cause
    from edge_sdk.serving.served import opened

    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S"
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    token = None if args.token_file is None else _token(Path(args.token_file))
    address = Address(host=args.host, port=args.port)
    refuse_unsafe(address, what="edge serve", allowed=args.insecure_listen or token is not None)
    served = opened(
        args.model, name=args.name, variant=args.variant, segment=args.segment, stored=args.stored, threads=args.threads
    )
    try:
        listener = bind(address, what="edge serve", hint="stop what listens there, or take another --port")
        bound = Address(host=args.host, port=listener.getsockname()[1])
        told = Serving(
            url=f"http://{bound}", grpc=None, model=served.name, version=served.version, variant=served.active()
        )
        is_idle = serve(
            served,
            listener,
            limits=Limits(queue=args.queue, max_body_bytes=int(args.max_body_mb * _BYTES_PER_MB)),
            token=token,
            started=lambda: emit(args, told, lambda: f"{told.url}/v2/models/{told.model}"),
        )
        if not is_idle:
            say("edge: an inference does not end; it is left behind")
            os._exit(EXIT_FAILED)  # closing the model would wait for it
    finally:
        served.close()
    return 0


def _token(path: Path) -> str:
    """The secret in this file.

    Raises:
        UsageError: It cannot be read, or holds none.
    """
    try:
        raw = path.read_bytes()[: _MAX_TOKEN_BYTES + 1]
    except OSError as cause:
        raise UsageError(f"the token cannot be read: {cause.strerror}", where=str(path)) from cause
    token = raw.strip()
    if not 16 <= len(token) <= _MAX_TOKEN_BYTES or not token.isascii() or not token.decode().isprintable():  # noqa: PLR2004
        raise UsageError(
            "holds no token", where=str(path), hint="one line of 16 printable ASCII characters or more, kept secret"
        )
    return token.decode()
