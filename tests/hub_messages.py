"""Messages of one device as a hub's store gets them, with times that a test sets."""

from __future__ import annotations

from edge_hub.store.records import Arrival
from edge_sdk import mqtt
from edge_sdk.mqtt import Birth, Conditions, DeviceId, Sample, State, Tele, Up, UpEnvelope
from edge_sdk.wire import new_token

CAM = DeviceId(tenant="acme", device="cam1")
OLD, NEW = "a" * 32, "b" * 32


def came(
    kind: Up,
    body: object,
    *,
    boot: str = NEW,
    seq: int = 0,
    sent: float = 10.0,
    at: float | None = None,
    retained: bool = False,
) -> Arrival:
    envelope = UpEnvelope(id=new_token(), boot=boot, seq=seq, sent=sent, body=body)
    received = sent if at is None else at
    return Arrival(
        device=CAM, kind=kind, envelope=envelope, payload=mqtt.pack(envelope), received=received, retained=retained
    )


def born(*, boot: str = NEW, sent: float = 10.0) -> Arrival:
    return came(Up.BIRTH, Birth(online=True, board=boot[0]), boot=boot, sent=sent)


def will(*, boot: str = NEW, sent: float = 9.9, at: float = 50.0) -> Arrival:
    return came(Up.BIRTH, Birth(online=False), boot=boot, sent=sent, at=at)


def state(spooled: int, *, boot: str = NEW, sent: float = 10.0) -> Arrival:
    return came(Up.STATE, State(at=sent, conditions=Conditions(), spooled=spooled), boot=boot, sent=sent)


def tele(at: float, *, boot: str = NEW, seq: int) -> Arrival:
    sample = Sample(at=at, window_s=1.0, conditions=Conditions())
    return came(Up.TELE, Tele(samples=(sample,)), boot=boot, seq=seq, sent=at)
