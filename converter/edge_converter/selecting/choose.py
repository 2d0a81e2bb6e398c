"""Which hardware for a model: every known board tested against what is wanted of it, the best first.

A board is judged by compute (what its fastest suitable variant takes), storage and memory (whether the files and the
running model fit), communication (how long what is to be shipped travels), power, heat and price. A limit is met,
broken, or it cannot be told: a prediction's band may reach to both sides of a bound, a fact may be known of no one.
What cannot be told rules nothing out and is said.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from edge_converter.graph import Graph
from edge_converter.selecting import accelerated, endurance, selection
from edge_converter.selecting.endurance import Endurance
from edge_converter.selecting.evidence import deciding
from edge_converter.selecting.fronts import span
from edge_sdk.manifest import Latency, Precision, Variant
from edge_sdk.profile import Fact, Profile

# Python, numpy, the runtime and this SDK take 62 MB resident, and an interpreter of next to nothing 3 MB more; the
# runtime keeps a packed copy of the weights beside the mapped file: EfficientNet-Lite0 grew the process by 46.2 MB,
# where its arena and twice its file are 43.9 MB (measured, x86-64, Python 3.11, ai-edge-litert 2.3.0).
_PROGRAM_BYTES = 65_000_000
_WEIGHT_COPIES = 2
_MS_PER_S = 1000
_CAPACITY = re.compile(r"(\d+(?:\.\d+)?) GB")
_CARRIED = ("microsd", "sd card", "usb", "nvme", "ssd")


class Verdict(enum.Enum):
    """What is known of a limit, or of all limits of a board."""

    MET = "met"
    UNSURE = "unsure"
    BROKEN = "broken"


class By(enum.Enum):
    """What the boards that are left are ordered by, the least first."""

    PRICE = "price"
    LATENCY = "latency"
    POWER = "power"
    ENERGY = "energy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the hardware must do; None wants nothing.

    Attributes:
        max_latency_ms: Of one inference.
        max_power_w: Of the busy board.
        budget_usd: For one board.
        link_mbps: Of the network that variants travel over, in 1e6 bits a second.
        max_transfer_s: What shipping the recommended variants may take over that link.
        rate: Inferences a second that the board has to sustain.
        ambient_c: Of the air around it.
        min_memory_mb: Of the board's memory left for everything else.
        offline: No network where it stands: variants are carried there.
    """

    max_latency_ms: float | None = None
    max_power_w: float | None = None
    budget_usd: float | None = None
    link_mbps: float | None = None
    max_transfer_s: float | None = None
    rate: float | None = None
    ambient_c: float = 25.0
    min_memory_mb: int = 0
    offline: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """What is to run.

    Attributes:
        variants: In the bundle, or what a bare model would become; those that run on a CPU.
        graphs: Of the variants, by id.
        peak_bytes: Of the values between layers, by variant id.
        evidence: Latencies from devices.
        compiled: The variants for accelerators.
        accelerated: Their latencies, by whoever told them.
        judged: The variants' quality was measured; a bare model's was not.
    """

    variants: tuple[Variant, ...]
    graphs: Mapping[str, Graph]
    peak_bytes: Mapping[str, int]
    evidence: tuple[Latency, ...] = ()
    compiled: tuple[Variant, ...] = ()
    accelerated: tuple[Latency, ...] = ()
    judged: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One way to run the model on a board.

    Attributes:
        variant: Its id.
        runs_on: `cpu`, or the accelerator's name.
        delegate: By which name a profile tells the power it draws.
        ms: Of one inference.
        low_ms: The truth is expected above this.
        high_ms: And below this.
        known: How: `measured`, `published` or `predicted`.
        quality: Of the variant; None where it was not measured.
        if_mapped: It holds only if the accelerator's compiler takes all of the graph.
    """

    variant: str
    runs_on: str
    delegate: str
    ms: float
    low_ms: float
    high_ms: float
    known: str
    quality: float | None
    if_mapped: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One limit, and what is known of it."""

    limit: str
    verdict: Verdict
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """What is known of one board for this model.

    Attributes:
        options: The fastest first: on the CPU, and on an accelerator where something published predicts it.
        best: The most accurate that is within the latency bound, or may be; without a bound, the fastest. None where no
            latency is known.
        recommended: What to ship, by id.
        storage_bytes: Of the recommended files.
        transfer_bytes: The same, compressed.
        transfer_s: Over the link.
        memory_bytes: Of a process that runs `best`: an estimate.
        energy_mj: Of one inference by `best`, at the busy board's power.
        endurance: What it sustains with `best`; None where its heat or the latency is not known.
    """

    profile: str
    name: str
    verdict: Verdict
    checks: tuple[Check, ...]
    options: tuple[Option, ...]
    best: Option | None
    recommended: tuple[str, ...]
    storage_bytes: int
    transfer_bytes: int
    transfer_s: float | None
    memory_bytes: int
    ram_mb: tuple[int, ...]
    storage: Fact[tuple[str, ...]] | None
    communication: Fact[tuple[str, ...]] | None
    power_w: Fact[float] | None
    price_usd: Fact[float] | None
    energy_mj: float | None
    endurance: Endurance | None


def rank(model: Model, boards: Sequence[Profile], wanted: Wanted, *, by: By = By.PRICE) -> tuple[Board, ...]:
    """All boards: first those that meet every limit, then those that may, then those that a limit rules out."""
    found = [_board(model, profile, wanted) for profile in boards]
    order = (Verdict.MET, Verdict.UNSURE, Verdict.BROKEN)

    def key(board: Board) -> tuple[float, ...]:
        latency = board.best.ms if board.best else None
        price, power = board.price_usd, board.power_w
        values = {
            By.PRICE: price.value if price else None,
            By.LATENCY: latency,
            By.POWER: power.value if power else None,
            By.ENERGY: board.energy_mj,
        }
        first = values[by]
        # Of what nobody knows nothing good is assumed.
        rest = (value if value is not None else float("inf") for value in (first, latency))
        return (order.index(board.verdict), *rest)

    return tuple(sorted(sorted(found, key=lambda board: board.profile), key=key))


def _board(model: Model, profile: Profile, wanted: Wanted) -> Board:
    chosen = selection.select(
        profile, model.variants, model.graphs, evidence=model.evidence, max_latency_ms=wanted.max_latency_ms
    )
    options = tuple(sorted(_options(model, profile, chosen), key=lambda option: (option.ms, option.variant)))
    best = _best(options, wanted.max_latency_ms)
    by_id = {variant.id: variant for variant in model.variants}
    recommended = tuple(one.id for one in chosen.selection.recommended)
    shipped = {by_id[id_].blob: by_id[id_] for id_ in recommended}.values()
    transfer_bytes = sum(variant.transfer_bytes for variant in shipped)
    transfer_s = 8 * transfer_bytes / (wanted.link_mbps * 1e6) if wanted.link_mbps else None
    every = by_id | {variant.id: variant for variant in model.compiled}
    runs = every[best.variant] if best else min(model.variants, key=lambda v: v.size_bytes)
    memory_bytes = _PROGRAM_BYTES + model.peak_bytes.get(runs.id, 0) + _WEIGHT_COPIES * runs.size_bytes
    storage_bytes = sum(variant.size_bytes for variant in shipped)
    lasting = None
    if best is not None:
        lasting = endurance.of(
            profile, ms=best.ms, delegate=best.delegate, ambient_c=wanted.ambient_c, wanted_rate=wanted.rate
        )
    checks = (
        *_latency_check(best, wanted),
        *_rate_check(best, lasting, wanted),
        _memory_check(profile, memory_bytes, wanted),
        _storage_check(profile, storage_bytes, wanted),
        *_transfer_check(transfer_s, wanted),
        *_fact_check("power", profile.power.active_w, wanted.max_power_w, "W"),
        *_fact_check("price", profile.purchase.price_usd, wanted.budget_usd, "USD"),
    )
    power = profile.power.active_w
    return Board(
        profile=profile.id,
        name=profile.name,
        verdict=_together(checks),
        checks=checks,
        options=options,
        best=best,
        recommended=recommended,
        storage_bytes=storage_bytes,
        transfer_bytes=transfer_bytes,
        transfer_s=transfer_s,
        memory_bytes=memory_bytes,
        ram_mb=profile.memory.ram_mb,
        storage=profile.storage,
        communication=profile.communication,
        power_w=power,
        price_usd=profile.purchase.price_usd,
        energy_mj=power.value * best.ms if power and best else None,
        endurance=lasting,
    )


def _options(model: Model, profile: Profile, chosen: selection.Selected) -> Iterator[Option]:
    """What the board can do with the variants that are allowed there.

    Of an accelerator, by what is known of the files compiled for it; else by a fit, which holds for int8 alone.
    """
    latencies = chosen.front.latencies
    # What a bound excluded is shown as well: the board's best may still be too slow.
    ids = chosen.front.ids or tuple(one.id for one in chosen.selection.recommended)
    by_id = {variant.id: variant for variant in model.variants}
    for id_ in ids:
        known = latencies.get(id_)
        if known is not None:
            yield _option(known, by_id[id_], judged=model.judged)
    made = tuple(deciding(profile, model.accelerated).values())
    compiled = {variant.id: variant for variant in model.compiled}
    for known in made:
        yield _option(known, compiled[known.variant], judged=model.judged)
    rates = None if made else accelerated.rates(profile.id)
    int8 = [v for v in model.variants if v.precision is Precision.INT8 and v.id in model.graphs]
    if rates is not None and int8:
        best = max(int8, key=lambda v: (v.quality.value, v.id))
        ms = accelerated.predicted_ms(rates, model.graphs[best.id].work)
        yield Option(
            variant=best.id,
            runs_on=rates.name,
            delegate=rates.delegate,
            ms=ms,
            low_ms=ms / rates.band,
            high_ms=ms * rates.band,
            known="predicted",
            quality=best.quality.value if model.judged else None,
            if_mapped=True,
        )


def _option(known: Latency, variant: Variant, *, judged: bool) -> Option:
    low, high = span(known)
    return Option(
        variant=variant.id,
        runs_on=variant.target.delegate.value,
        delegate=variant.target.delegate.value,
        ms=known.median_ms,
        low_ms=low,
        high_ms=high,
        known=known.origin.value,
        quality=variant.quality.value if judged else None,
    )


def _best(options: Sequence[Option], bound_ms: float | None) -> Option | None:
    if bound_ms is None or not options:
        return options[0] if options else None

    def worth(option: Option) -> tuple[float, ...]:
        sure, may = option.high_ms <= bound_ms and not option.if_mapped, option.low_ms <= bound_ms
        return sure, may, (option.quality or 0.0) if may else 0.0, -option.ms

    return max(options, key=worth)


def _latency_check(best: Option | None, wanted: Wanted) -> Iterator[Check]:
    bound_ms = wanted.max_latency_ms
    if bound_ms is None:
        return
    if best is None:
        yield Check(limit="latency", verdict=Verdict.UNSURE, text="no latency is known or predicted")
        return
    text = f"{best.variant} on {best.runs_on} takes {_ms(best)}, where at most {bound_ms:g} ms are allowed"
    if best.low_ms > bound_ms:
        verdict = Verdict.BROKEN
    else:
        verdict = Verdict.UNSURE if best.high_ms > bound_ms or best.if_mapped else Verdict.MET
    yield Check(limit="latency", verdict=verdict, text=text)


def _rate_check(best: Option | None, lasting: Endurance | None, wanted: Wanted) -> Iterator[Check]:
    """Whether it computes fast enough at all, and whether it stays cool doing so."""
    rate = wanted.rate
    if rate is None:
        return
    if best is None:
        yield Check(limit="rate", verdict=Verdict.UNSURE, text="no latency is known or predicted")
        return
    text = f"{best.variant} on {best.runs_on} takes {_ms(best)}, and {rate:g} a second are wanted"
    if rate * best.low_ms > _MS_PER_S:
        verdict = Verdict.BROKEN
    else:
        verdict = Verdict.UNSURE if rate * best.high_ms > _MS_PER_S or best.if_mapped else Verdict.MET
    yield Check(limit="rate", verdict=verdict, text=text)
    if lasting is None:
        yield Check(limit="heat", verdict=Verdict.UNSURE, text="how hot it becomes is not known")
        return
    within = f"about {lasting.frames_per_s:.3g} a second keep it below its limit in air of {wanted.ambient_c:g} C"
    cool = lasting.share == 1 or lasting.frames_per_s >= rate
    hot = Verdict.UNSURE if lasting.estimated else Verdict.BROKEN  # an estimate of heat rules nothing out
    yield Check(limit="heat", verdict=Verdict.MET if cool else hot, text=f"{within}, and {rate:g} are wanted")


def _ms(option: Option) -> str:
    within = f" ({option.low_ms:.3g} to {option.high_ms:.3g})" if option.high_ms > option.low_ms else ""
    mapped = ", if it maps whole" if option.if_mapped else ""
    return f"{option.ms:.3g} ms{within} {option.known}{mapped}"


def _memory_check(profile: Profile, needs_bytes: int, wanted: Wanted) -> Check:
    needs_mb = needs_bytes / 2**20 + wanted.min_memory_mb
    sizes = profile.memory.ram_mb
    fitting = [size for size in sizes if size >= needs_mb]
    text = f"about {needs_mb:,.0f} MB are needed, and it is sold with {', '.join(f'{size:,}' for size in sizes)} MB"
    if not fitting:
        return Check(limit="memory", verdict=Verdict.BROKEN, text=text)
    only = f": take one with {min(fitting):,} MB or more" if len(fitting) < len(sizes) else ""
    return Check(limit="memory", verdict=Verdict.UNSURE if only else Verdict.MET, text=text + only)


def _storage_check(profile: Profile, needs_bytes: int, wanted: Wanted) -> Check:
    """What lies on the board: its capacity is only known where the fact names gigabytes."""
    media = profile.storage.value if profile.storage else ()
    capacities = [float(found[1]) for medium in media if (found := _CAPACITY.search(medium))]
    where = ", ".join(media) or "nothing known"
    text = f"{needs_bytes / 1e6:.3g} MB of variants on {where}"
    grows = any(any(word in medium.lower() for word in _CARRIED) for medium in media)
    if capacities and needs_bytes > max(capacities) * 1e9 and not grows:
        return Check(limit="storage", verdict=Verdict.BROKEN, text=text)
    if wanted.offline and not grows:
        verdict = Verdict.BROKEN if media and "the host's" not in media else Verdict.UNSURE
        return Check(limit="storage", verdict=verdict, text=f"{text}: nothing that is carried to a board off the net")
    return Check(limit="storage", verdict=Verdict.MET if media else Verdict.UNSURE, text=text)


def _transfer_check(transfer_s: float | None, wanted: Wanted) -> Iterator[Check]:
    if wanted.max_transfer_s is None or transfer_s is None or wanted.offline:
        return
    text = f"the recommended variants travel {transfer_s:.3g} s, where at most {wanted.max_transfer_s:g} s are allowed"
    yield Check(
        limit="transfer", verdict=Verdict.MET if transfer_s <= wanted.max_transfer_s else Verdict.BROKEN, text=text
    )


def _fact_check(limit: str, fact: Fact[float] | None, bound: float | None, unit: str) -> Iterator[Check]:
    if bound is None:
        return
    if fact is None:
        yield Check(limit=limit, verdict=Verdict.UNSURE, text=f"its {limit} is not known")
        return
    text = f"{fact.value:g} {unit} ({fact.basis.value}), where at most {bound:g} are allowed"
    yield Check(limit=limit, verdict=Verdict.MET if fact.value <= bound else Verdict.BROKEN, text=text)


def _together(checks: Sequence[Check]) -> Verdict:
    found = {check.verdict for check in checks}
    if Verdict.BROKEN in found:
        return Verdict.BROKEN
    return Verdict.UNSURE if Verdict.UNSURE in found else Verdict.MET
