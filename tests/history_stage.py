"""What the tests of the hub's history are played on: telemetry messages as a device composes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from store_stage import AnyStore

from edge_hub.store.records import Arrival
from edge_sdk import mqtt
from edge_sdk.conditions import Conditions
from edge_sdk.mqtt import DeviceId, ModelStats, Sample, Tele, Up, UpEnvelope

CAM = DeviceId(tenant="acme", device="cam1")
OTHER = DeviceId(tenant="acme", device="cam2")
NOON = 1_790_000_000 // 86_400 * 86_400 + 43_200.0


def boot(number: int) -> str:
    return f"{number:032x}"


def sample(
    at: float,
    *,
    temp_c: float | None = 50.0,
    calls: int = 10,
    variant: str = "small",
    window_s: float = 10.0,
    **more: Any,
) -> Sample:
    """A window that ended at `at`."""
    return Sample(
        at=at,
        window_s=window_s,
        conditions=Conditions(temp_c=temp_c, **more),
        models={"digits": ModelStats(variant=variant, calls=calls, p50_ms=4.0, p95_ms=9.0)},
    )


def telemetry(
    seq: int, samples: Sequence[Sample], *, of: int = 0, received: float | None = None, device: DeviceId = CAM
) -> Arrival:
    """A message as it arrives; at once, unless said otherwise."""
    sent = samples[-1].at
    envelope = UpEnvelope(
        id=f"{of:016x}{seq:016x}", boot=boot(of), seq=seq, sent=sent, body=Tele(samples=tuple(samples))
    )
    return Arrival(
        device=device,
        kind=Up.TELE,
        envelope=envelope,
        payload=mqtt.pack(envelope, squeeze=True),
        received=sent + 0.5 if received is None else received,
    )


async def rolled_up(store: AnyStore) -> int:
    """Everything; how many messages that took."""
    total = 0
    while step := await store.roll_up(now=NOON):
        total += step
    return total
