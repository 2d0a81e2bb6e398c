"""`edge serve`: a model of this machine for others, until it is told to end."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_sdk.address import Address, bind, refuse_unsafe
from edge_sdk.cli.output import emit, say
from edge_sdk.errors import EXIT_FAILED, MissingExtraError
from edge_sdk.tokenfile import read_token

if TYPE_CHECKING:
    from edge_sdk.serving.gate import Gate
    from edge_sdk.serving.served import Served
    from edge_sdk.serving.server import Limits

_BYTES_PER_MB = 1_000_000
_LEAST_TOKEN = 16  # characters: less is found by trying


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

    def text(self) -> str:
        """For people."""
        return "\n".join([f"{self.url}/v2/models/{self.model}", *([self.grpc] if self.grpc else [])])


def run(args: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM."""
    try:
        from edge_sdk.serving.server import Limits, serve
    except ModuleNotFoundError as cause:
        raise MissingExtraError(
            f"edge serve needs {cause.name}, which is not installed", hint="pip install 'adaptive-edge-sdk[serve]'"
        ) from cause
    from edge_sdk.serving.gate import Gate
    from edge_sdk.serving.served import opened

    token = None if args.token_file is None else read_token(args.token_file, least=_LEAST_TOKEN)
    address = Address(host=args.host, port=args.port)
    refuse_unsafe(
        address,
        what="edge serve",
        allowed=args.insecure_listen or token is not None,
        hint="give --token-file FILE, or, in a network you trust, --insecure-listen",
    )
    served = opened(
        args.model,
        name=args.name,
        variant=args.variant,
        segment=args.segment,
        stored=args.stored,
        delegate=args.delegate,
        threads=args.threads,
    )
    try:
        listener = bind(address, what="edge serve", hint="stop what listens there, or take another --port")
        bound = Address(host=args.host, port=listener.getsockname()[1])
        gate = Gate(args.queue)
        limits = Limits(max_body_bytes=int(args.max_body_mb * _BYTES_PER_MB))
        with listener, _beside(args, served, gate, limits, token) as grpc:
            told = Serving(
                url=f"http://{bound}",
                grpc=None if grpc is None else f"grpc://{grpc}",
                model=served.name,
                version=served.version,
                variant=served.active(),
            )
            _log_to_stderr()
            is_idle = serve(
                served, listener, gate=gate, limits=limits, token=token, started=lambda: emit(args, told, told.text)
            )
        if not is_idle:
            say("edge: an inference does not end; it is left behind")
            os._exit(EXIT_FAILED)  # closing the model would wait for it
    finally:
        served.close()
    return 0


def _log_to_stderr() -> None:
    """Once it is known that there is something to serve."""
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S"
    )
    logging.getLogger("uvicorn").setLevel(logging.ERROR)  # its warnings are a line for each request that is no HTTP


@contextlib.contextmanager
def _beside(
    args: argparse.Namespace, served: Served, gate: Gate, limits: Limits, token: str | None
) -> Iterator[Address | None]:
    """The gRPC server, where one is asked for; gives its address.

    Raises:
        MissingExtraError: gRPC is not installed.
        AddressInUseError: The port is taken.
    """
    if args.grpc_port is None:
        yield None
        return
    try:
        from edge_sdk.serving.grpc_server import GrpcServer
    except ModuleNotFoundError as cause:
        raise MissingExtraError("gRPC is not installed", hint="pip install 'adaptive-edge-sdk[grpc]'") from cause
    address = Address(host=args.host, port=args.grpc_port)
    with GrpcServer(
        served, address, gate=gate, token=token, max_body_bytes=limits.max_body_bytes, grace_s=limits.grace_s
    ) as server:
        yield server.address
