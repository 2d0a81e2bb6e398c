"""A delegate that was found here, in a form that crosses a process border."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from edge_sdk.wire import Name, Wire

# As libraries spell devices: `usb:0`, `pci`, `:1`, `0`.
Device = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9:._/-]{0,64}\Z")]
Path = Annotated[str, Meta(max_length=4096)]
Options = Annotated[dict[Name, Annotated[str, Meta(max_length=4096)]], Meta(max_length=64)]


class Delegation(Wire, frozen=True, kw_only=True):
    """All that any process needs to load a delegate.

    Attributes:
        name: Of the backend that found it, such as `edgetpu`.
        device: Which, as the library spells it; empty leaves it to the library.
        library: The file to load; empty where LiteRT itself brings the accelerator.
        options: Given to the library.
        exclusive: One process at a time can use the device, so engines on it share a worker.
    """

    name: Name
    device: Device = ""
    library: Path = ""
    options: Options = {}
    exclusive: bool = False

    def __str__(self) -> str:
        return f"{self.name}:{self.device}" if self.device else self.name
