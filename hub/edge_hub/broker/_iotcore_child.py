"""The child process of `edge_hub.broker.iotcore`: rumqttd behind a door that sorts by protocol version.

rumqttd serves MQTT 3.1.1 and 5 on different ports only, while a device's configuration names one. The door reads the
version out of the CONNECT packet (MQTT 5, section 3.1.2: remaining length, then the name `MQTT`, then the level) and
joins the connection to the right one.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import threading
from pathlib import Path

from edge_sdk.mqtt import MAX_UP_BYTES

_MQTT_5 = 5
_CONNECT_S = 10.0
_BLOCK_BYTES = 64 * 1024

_LISTENER = """
[v{version}.1]
name = "v{version}"
listen = "127.0.0.1:{port}"
next_connection_delay_ms = 1
[v{version}.1.connections]
connection_timeout_ms = 60000
max_payload_size = {max_bytes}
max_inflight_count = 1000
dynamic_filters = true
"""
_ROUTER = """
id = 0
[router]
id = 0
max_connections = 10000
max_outgoing_packet_count = 200
max_segment_size = 104857600
max_segment_count = 10
"""


def main() -> None:
    """Run until the process is ended; arguments: host, port, directory."""
    host, port, directory = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    ports = {4: _free_port(), _MQTT_5: _free_port()}
    configuration = _ROUTER + "".join(
        _LISTENER.format(version=version, port=inner, max_bytes=MAX_UP_BYTES + 4096) for version, inner in ports.items()
    )
    path = directory / "iotcore.toml"
    path.write_text(configuration, "utf-8")
    from iotcore.iotcore import IotCoreBroker

    # rumqttd has no way to stop, so it lives in a thread that ends with the process.
    threading.Thread(target=IotCoreBroker(config_path=str(path)).run_forever, daemon=True).start()
    asyncio.run(_door(host, port, ports))


async def _door(host: str, port: int, ports: dict[int, int]) -> None:
    for inner in ports.values():
        await _until_open(inner)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.TimeoutError, ValueError):
            first, version = await asyncio.wait_for(_connect_packet(reader), _CONNECT_S)
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", ports[min(max(version, 4), 5)])
            inner_writer.write(first)
            await asyncio.gather(_pump(reader, inner_writer), _pump(inner_reader, writer))
        writer.close()

    server = await asyncio.start_server(serve, host, port)
    async with server:
        await server.serve_forever()


async def _connect_packet(reader: asyncio.StreamReader) -> tuple[bytes, int]:
    """The bytes read so far, and the protocol level they name."""
    head = await reader.readexactly(2)
    while head[-1] & 0x80:
        if len(head) > 4:  # noqa: PLR2004 - a remaining length has at most four bytes
            raise ValueError("not a CONNECT packet")
        head += await reader.readexactly(1)
    name_length = await reader.readexactly(2)
    name = await reader.readexactly(min(int.from_bytes(name_length, "big"), 16) + 1)
    return head + name_length + name, name[-1]


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while block := await reader.read(_BLOCK_BYTES):
            writer.write(block)
            await writer.drain()
    finally:
        writer.close()


async def _until_open(port: int) -> None:
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:  # noqa: PERF203 - that is what the loop is for
            await asyncio.sleep(0.02)
        else:
            writer.close()
            return


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
