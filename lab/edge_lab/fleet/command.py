"""`edge hub simulate`: a fleet of played devices that reports to a real hub."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edge_hub.client import HubClient
from edge_hub.named import device_named
from edge_lab.fleet.fleet import Fleet, Outcome, Plan, allow_files, enrol, names, tracks_of
from edge_sdk.cli.output import emit, say


def run(args: argparse.Namespace) -> int:
    """Enrol, play, and print what came of it; 1 if the hub has not confirmed everything."""
    plan = Plan(
        devices=args.devices,
        tenant=args.tenant,
        duration_s=args.duration,
        report_s=args.every,
        churn=args.churn,
        slow=args.slow,
        seed=args.seed,
    )
    logging.getLogger("edge_daemon").setLevel(logging.ERROR)  # each device would tell of its own
    allow_files(plan.devices)
    cast = names(plan)
    device_named(str(cast[0][0]))  # whose tenant is somebody's word
    with HubClient.asked(url=args.hub, data=Path(args.data), ca=args.hub_ca) as client:
        client.health()  # no use in rehearsing for a hub that is not there
        say(f"edge: rehearsing what {plan.devices} devices go through")
        tracks = tracks_of([fate for _, fate in cast], plan.seed)
        say(f"edge: enrolling {plan.devices} devices")
        credentials = enrol(client, [device for device, _ in cast])
    outcome = asyncio.run(_play(Fleet(plan, credentials, [tracks[fate] for _, fate in cast])))
    emit(args, as_json(outcome), lambda: as_text(outcome))
    return 0 if outcome.waiting == 0 and outcome.tally.confirmed else 1


async def _play(fleet: Fleet) -> Outcome:
    loop = asyncio.get_running_loop()
    for each in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(each, fleet.stop)
    say(f"edge: {len(fleet.devices)} devices connect; Ctrl-C ends it")
    return await fleet.run()


def as_json(outcome: Outcome) -> dict[str, Any]:
    """For programs."""
    counts = asdict(outcome.tally)
    del counts["waits_s"]
    return {
        "devices": outcome.devices,
        "connected": outcome.connected,
        "lasted_s": round(outcome.lasted_s, 1),
        "cpu_s": round(outcome.cpu_s, 2),
        **counts,
        "unconfirmed": outcome.waiting,
        "confirmed_p50_s": outcome.tally.wait_s(0.5),
        "confirmed_p99_s": outcome.tally.wait_s(0.99),
    }


def as_text(outcome: Outcome) -> str:
    """For people."""
    tally = outcome.tally
    p50_s, p99_s = tally.wait_s(0.5), tally.wait_s(0.99)
    waits = "" if p50_s is None or p99_s is None else f"; half within {p50_s:.2f} s, 99 % within {p99_s:.2f} s"
    return "\n".join(
        (
            f"{outcome.devices} devices for {outcome.lasted_s:.0f} s, {outcome.connected} connected at the end",
            f"sent       {tally.sent} ({tally.reports} reports, {tally.events} events, {tally.replies} replies)",
            f"confirmed  {tally.confirmed} by the hub{waits}",
            f"waiting    {outcome.waiting} unconfirmed, {tally.dropped} dropped for want of room",
            f"retained   {tally.births} births, {tally.states} states",
            f"orders     {tally.commands} commands and {tally.desired} desired documents arrived",
            (
                f"trouble    {tally.lost} connections lost, {tally.reconnects} came back, {tally.restarts} restarts, "
                f"{tally.refused} refusals"
            ),
        )
    )
