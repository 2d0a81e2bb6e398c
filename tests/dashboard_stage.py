"""What the dashboard's tests are played on: a hub that knows a made fleet already, and a browser that looks at it."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import chromium
import httpx
from store_stage import AnyStore, within

from edge_hub.store.records import Arrival
from edge_sdk.mqtt import (
    Because,
    Birth,
    Conditions,
    Decision,
    DeviceId,
    Event,
    ModelState,
    ModelStats,
    Sample,
    ServedModel,
    ServedVariant,
    State,
    Tele,
    Up,
    UpEnvelope,
    pack,
)
from edge_sdk.wire import new_token

if TYPE_CHECKING:
    from hub_stage import HubProcess
    from playwright.sync_api import Browser, BrowserContext, Locator, Page

WIDE: Any = {"width": 1440, "height": 900}

SCRIPT = "<script>document.title='run'</script><img src=x onerror=\"document.title='run'\">"
TURNED = "safe\u202egnp.exe\u202c and \u0000 and \u2066inside\u2069"
ENDLESS = "A" * 900
HOSTILE = DeviceId(tenant="evil", device="one")
WATCHED = DeviceId(tenant="acme", device="cam0001")
PROFILES = (("rpi4", "Raspberry Pi 4 Model B"), ("rpi5", "Raspberry Pi 5"), ("jetson-orin-nano", "Jetson Orin Nano"))
VARIANTS = ("large-fp16", "base-int8", "small-int8", "tiny-int8")
WINDOW_S = 10.0
_BATCH = 1000


def fill(path: Path, devices: int, *, tenant: str = "acme", more: Iterable[Arrival] = ()) -> None:
    """Give a hub's database devices that have reported for the last minutes, and one that says hostile things."""

    async def tell(store: AnyStore) -> None:
        arrivals = [*hostile(), *more]
        for number in range(devices):
            arrivals += made(DeviceId(tenant=tenant, device=f"cam{number:04}"), random.Random(number))
        arrivals += reports(WATCHED, minutes=12)
        for first in range(0, len(arrivals), _BATCH):
            await store.commit(arrivals[first : first + _BATCH])

    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    within(path, tell)


def made(device: DeviceId, chance: random.Random) -> Iterator[Arrival]:
    """What a device said of itself."""
    now, boot = time.time(), new_token()
    profile, board = chance.choice(PROFILES)
    running = chance.choice(VARIANTS)
    seen = Conditions(
        temp_c=round(chance.gauss(58, 8), 1),
        battery_pct=float(chance.randrange(101)) if chance.random() < 0.5 else None,
        load_pct=40.0,
        rtt_ms=12.0,
    )
    variants = tuple(
        ServedVariant(id=name, precision=name[-4:], quality=98.0 - n, size_bytes=4_000_000 >> n, latency_ms=40 / 2**n)
        for n, name in enumerate(VARIANTS)
    )
    served = ServedModel(name="digits", version="1.2.0", variants=variants)
    because = Because(
        code="thermal",
        text=f"{seen.temp_c} °C is too near the limit of 70 °C for {VARIANTS[0]}; next is {VARIANTS[1]}, 1.2 points a "
        "request behind; draws 3.1 W (estimated)",
        runner_up=VARIANTS[1],
        margin=1.2,
    )
    decision = Decision(model="digits", variant=running, because=because, at=now - 300)
    state = State(at=now, conditions=seen, models={"digits": ModelState(active=running, decision=decision, apps=1)})
    stats = ModelStats(variant=running, calls=300, late=chance.randrange(4), p50_ms=12.0, p95_ms=20.0)
    birth = Birth(online=True, profile=profile, board=board, software="edge 0.5", models=(served,))
    yield arrived(device, Up.BIRTH, birth, boot=boot, seq=0)
    yield arrived(device, Up.STATE, state, boot=boot, seq=0)
    sample = Sample(at=now, window_s=WINDOW_S, conditions=seen, models={"digits": stats})
    yield arrived(device, Up.TELE, Tele(samples=(sample,)), boot=boot, seq=1)


def reports(device: DeviceId, *, minutes: int) -> Iterator[Arrival]:
    """A while of telemetry with a switch in it."""
    now, boot = time.time(), new_token()
    count = int(minutes * 60 / WINDOW_S)
    for step in range(count):
        at = now - (count - step) * WINDOW_S
        running = VARIANTS[0] if step < count // 2 else VARIANTS[2]
        seen = Conditions(temp_c=60 + 8 * math.sin(step / 9), battery_pct=80 - step / count * 10, power_w=3.5)
        stats = ModelStats(variant=running, calls=300, late=1, p50_ms=14.0, p95_ms=20 + 4 * math.sin(step / 5))
        sample = Sample(at=at, window_s=WINDOW_S, conditions=seen, models={"digits": stats})
        yield arrived(device, Up.TELE, Tele(samples=(sample,)), boot=boot, seq=step + 1)
    event = Event(
        at=now - count // 2 * WINDOW_S,
        kind="switch",
        model="digits",
        old=VARIANTS[0],
        new=VARIANTS[2],
        because=Because(code="thermal", text="68.0 °C and rising: small-int8 keeps it below 70 °C"),
        took_ms=41.0,
    )
    yield arrived(device, Up.EVENT, event, boot=boot, seq=count + 1)


def hostile() -> Iterator[Arrival]:
    """A device whose every word is an attack on whoever shows it."""
    now, boot = time.time(), new_token()
    because = Because(code="thermal", text=SCRIPT)
    decision = Decision(model="digits", variant="base-int8", because=because, at=now)
    state = State(
        at=now,
        conditions=Conditions(temp_c=50.0),
        models={"digits": ModelState(active="base-int8", decision=decision, wished_by=TURNED)},
    )
    yield arrived(HOSTILE, Up.BIRTH, Birth(online=True, board=SCRIPT, software=TURNED + ENDLESS), boot=boot, seq=0)
    yield arrived(HOSTILE, Up.STATE, state, boot=boot, seq=0)
    yield arrived(HOSTILE, Up.EVENT, Event(at=now, kind="sensor", text=SCRIPT + TURNED), boot=boot, seq=1)


def odd(device: DeviceId) -> Iterator[Arrival]:
    """A device that calls everything by names which each object of a page's language has already."""
    now, boot = time.time(), new_token()
    names = ("constructor", "toString", "valueOf", "hasOwnProperty")
    variants = tuple(ServedVariant(id=name, precision=name, quality=1e308, size_bytes=1) for name in names)
    models = tuple(ServedModel(name=name, version=name, variants=variants) for name in names)
    because = Because(code=names[0], text="x", runner_up=names[0], margin=1.0, numbers=dict.fromkeys(names, 1e12))
    running = {
        name: ModelState(active=name, decision=Decision(model=name, variant=name, because=because, at=now), on=name)
        for name in names
    }
    seen = Conditions(temp_c=50.0, missing=dict.fromkeys((*names, "__proto__"), "why"))
    yield arrived(device, Up.BIRTH, Birth(online=True, profile=names[0], models=models), boot=boot, seq=0)
    yield arrived(device, Up.STATE, State(at=now, conditions=seen, models=running), boot=boot, seq=0)
    event = Event(at=now, kind=names[0], model=names[0], old=names[0], new=names[1], because=because)
    yield arrived(device, Up.EVENT, event, boot=boot, seq=1)
    stats = {name: ModelStats(variant=name, calls=3, p50_ms=1.0, p95_ms=2.0) for name in names[:2]}
    for step in range(3):
        at = now - 60.0 * (2 - step)
        tele = Tele(samples=(Sample(at=at, window_s=WINDOW_S, conditions=seen, models=stats if step else {}),))
        yield arrived(device, Up.TELE, tele, boot=boot, seq=step + 2)


def arrived(device: DeviceId, kind: Up, body: Any, *, boot: str, seq: int) -> Arrival:
    """A message as the hub takes it in."""
    envelope = UpEnvelope(id=new_token(), boot=boot, seq=seq, sent=time.time(), body=body)
    return Arrival(device=device, kind=kind, envelope=envelope, payload=pack(envelope), received=time.time())


@contextmanager
def browser() -> Iterator[Browser]:
    """A Chromium of its own."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium.program(), args=chromium.flags())
        try:
            yield opened
        finally:
            opened.close()


def sign_in(context: BrowserContext, address: str, token: str) -> None:
    """Give a profile a session: its pages begin with the fleet."""
    answer = context.request.post(f"{address}/api/v1/session", data={"token": token})
    assert answer.ok, answer.text()


class Visit:
    """A person at the dashboard. What the browser complains of is in `complaints`."""

    def __init__(self, context: BrowserContext, hub: HubProcess) -> None:
        self.context = context
        self.hub = hub
        self.address = hub.url
        self.complaints: list[str] = []
        self._expected: tuple[str, ...] = ()
        self.page = context.new_page()
        self.page.on("pageerror", lambda error: self._complain(str(error)))
        self.page.on("console", lambda line: line.type == "error" and self._complain(line.text))

    def expects(self, *complaints: str) -> None:
        """What belongs to this visit; the browser says it some time after the page has shown what came of it."""
        self._expected += complaints
        self.complaints[:] = [one for one in self.complaints if not self._is_expected(one)]

    def _complain(self, text: str) -> None:
        if not self._is_expected(text):
            self.complaints.append(text)

    def _is_expected(self, text: str) -> bool:
        return any(one in text for one in self._expected)

    def enter(self, token: str | None = None) -> Page:
        """Signed in already."""
        sign_in(self.context, self.address, token or self.hub.token)
        self.page.goto(self.address)
        return self.page

    def go(self, where: str) -> Page:
        self.page.goto(f"{self.address}/#/{where}")
        return self.page

    def token_of(self, role: str) -> str:
        answer = ask(self.hub, "POST", "/tokens", json={"name": f"{role}-{new_token()}", "role": role})
        token: str = answer.json()["token"]
        return token


@contextmanager
def visits(browser: Browser, hub: HubProcess) -> Iterator[Callable[..., Visit]]:
    """Makes visits to this hub or another, each in a context with these options; in the end no page has complained."""
    contexts: list[BrowserContext] = []
    made: list[Visit] = []

    def make(scheme: Any = "light", hub: HubProcess = hub, **more: Any) -> Visit:
        contexts.append(browser.new_context(**{"viewport": WIDE, "color_scheme": scheme} | more))
        made.append(Visit(contexts[-1], hub))
        return made[-1]

    yield make
    for context in contexts:
        context.close()
    assert [visit.complaints for visit in made if visit.complaints] == []


def ask(hub: HubProcess, method: str, path: str, **more: Any) -> httpx.Response:
    """The administrator's word to the API."""
    address, headers = f"http://127.0.0.1:{hub.http}/api/v1{path}", {"Authorization": f"Bearer {hub.token}"}
    answer = httpx.request(method, address, headers=headers, **more)
    assert answer.is_success, answer.text
    return answer


def go_by_keys(page: Page, key: str, there: Locator) -> None:
    """Press G and this, again where a busy machine took longer from one to the other than the page waits for that."""
    from playwright.sync_api import TimeoutError as NotYetError

    for _ in range(5):
        page.keyboard.press("g")
        page.keyboard.press(key)
        with suppress(NotYetError):
            there.wait_for(timeout=10_000)
            return
    raise AssertionError(f"G and {key} lead nowhere")


def serious(page: Page, only: str) -> list[tuple[str, str]]:
    """What axe-core finds that keeps people out: the rule, and the beginning of the element."""
    found = page.evaluate(f"axe.run(document, {{resultTypes: ['violations'], runOnly: {only}}})")
    bad = [one for one in found["violations"] if one["impact"] in {"serious", "critical"}]
    return [(one["id"], one["nodes"][0]["html"][:200]) for one in bad]
