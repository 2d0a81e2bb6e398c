"""Why a decision fell as it did: the policy's reason, or the frame's own, as one `Because`."""

from __future__ import annotations

import msgspec

from edge_daemon.policies.contract import Action, Setting, Why
from edge_daemon.policies.explain import MAX_CHARS, sentence
from edge_daemon.policy.setting import asked, is_deadline_tighter, left_out
from edge_daemon.policy.state import SERVER, ModelRecord, PolicyState, VariantRecord
from edge_sdk.mqtt import Because, Decision
from edge_sdk.preference import Preference

_MOST_NUMBERS = 32
_SHOWN_REASON = 300
_LARGEST = 1e12  # of `edge_sdk.mqtt.Finite`


def because(
    why: Why,
    state: PolicyState,
    model: ModelRecord,
    new: VariantRecord,
    *,
    asks: bool = False,
    word: str | None = None,
    cause: str = "",
) -> Because:
    """The reason of a decision.

    Args:
        why: The policy's, or the frame's own.
        state: For the conditions.
        model: As it was before the decision.
        new: What is to run.
        asks: The server is asked, and `new` stands by.
        word: The code under which somebody's word, or a thing the frame knows, goes before the policy's.
        cause: What bound in words, where the frame knows it.
    """
    code = word or ("deadline" if why.code == "latency" and is_deadline_tighter(state, model) else why.code)
    setting: Setting | None = None if state.plugged is None else state.plugged.setting
    old = model.current
    text = sentence(
        msgspec.structs.replace(why, code=code),
        setting,
        None if old is None else _action(model, old, asks=model.asks),
        _action(model, new, asks=asks),
        cause=cause or _cause(code, state, model),
        metered=state.senses.power_w is not None,
    )
    if (why_not := left_out(state, model)) and not text.startswith(f"{why_not}: "):
        text = f"{text}; the server is left out: {why_not}"[:MAX_CHARS]
    numbers = {name: value for name, value in why.numbers[:_MOST_NUMBERS] if _is_name(name) and abs(value) <= _LARGEST}
    margin = why.margin if why.margin is not None and abs(why.margin) <= _LARGEST else None  # false for NaN
    runner_up = None if why.runner_up is None else why.runner_up.removeprefix(SERVER)
    runner_up = runner_up if runner_up != new.id else None  # what differs by the server alone stands in the text
    return Because(code=code, text=text, runner_up=runner_up, margin=margin, numbers=numbers)


def explained(state: PolicyState, model: str | None = None) -> tuple[Decision, ...]:
    """The last decisions, newest first; the one in force says why a server is left out, also if that came after it."""
    found = []
    for decision in state.explain(model):
        record = state.model(decision.model)
        why_not = left_out(state, record) if record is not None and decision is record.decision else ""
        if why_not and why_not not in decision.because.text:
            text = f"{decision.because.text}; the server is left out: {why_not}"[:MAX_CHARS]
            told = msgspec.structs.replace(decision.because, text=text)
            found.append(msgspec.structs.replace(decision, because=told))
        else:
            found.append(decision)
    return tuple(found)


def action(variant: VariantRecord) -> Action:
    """A variant as explanations show it."""
    return Action(
        id=variant.id, quality=variant.quality, latency_ms=variant.latency_ms, power_w=variant.power_w,
        measured=variant.measured, size_bytes=variant.size_bytes,
    )  # fmt: skip


def _action(model: ModelRecord, variant: VariantRecord, *, asks: bool) -> Action:
    return asked(model.server, variant) if asks and model.server is not None else action(variant)


def failed(reason: str) -> str:
    """That a variant could not be loaded, in words."""
    return f"could not be loaded ({reason[:_SHOWN_REASON]})" if reason else "could not be loaded"


def wished(preference: Preference) -> str:
    """A preference in words."""
    parts = [preference.mode.value]
    if preference.max_latency_ms is not None:
        parts.append(f"at most {preference.max_latency_ms:g} ms")
    if preference.deadline_ms is not None:
        parts.append(f"at the hub within {preference.deadline_ms:g} ms")
    if preference.min_accuracy is not None:
        parts.append(f"quality at least {preference.min_accuracy:g} points")
    if preference.max_temp_c is not None:
        parts.append(f"at most {preference.max_temp_c:g} °C")
    if preference.max_power_w is not None:
        parts.append(f"at most {preference.max_power_w:g} W")
    if preference.battery_until is not None:
        parts.append(f"battery until {preference.battery_until}")
    return ", ".join(parts)


def _wished(model: ModelRecord) -> str:
    return wished(model.preference) + (f", by {model.wished_by}" if model.wished_by else "")


def _cause(code: str, state: PolicyState, model: ModelRecord) -> str:
    """What the frame knows better than the code alone says."""
    wish = model.preference
    if code == "start":
        return f"first choice ({_wished(model)})"
    if code == "preference":
        return f"asked for is {_wished(model)}"
    if code == "recovered":
        return f"what bound has eased ({model.bound})"
    if code == "deadline":
        trip = (
            "an unknown round trip, counted as 0"
            if state.senses.rtt_ms is None
            else f"{state.trip_ms:.3g} ms round trip"
        )
        return f"answers have to be at the hub within {wish.deadline_ms or 0:g} ms, {trip} included"
    return ""


def _is_name(name: str) -> bool:
    return 0 < len(name) <= 64 and name.isascii() and name.isidentifier() and name[0] != "_"  # noqa: PLR2004 - a `Name`
