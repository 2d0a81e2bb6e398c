"""How fast the dashboard is with a large fleet, and whether it stays so. `python benchmarks/hub_page.py --json`.

Starts `edge hub run` and `edge hub simulate` in a directory of their own (or takes a hub that runs: `--hub URL --data
DIR`) and opens the fleet's page in Chromium. Three figures:

- first paint: from the navigation until the browser has painted anything, and until it has painted rows of the fleet,
  signed in, with an empty cache;
- update: from the arrival of a piece of the stream in the browser until the frame that shows it was painted;
- memory: the page's JavaScript heap in use after a collection, over the minutes asked for.

Hub, fleet and browser share the machine: on a small one the times are upper bounds.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hub_fleet import FleetAtWork, running_hub

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
import chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

VIEW: Any = {"width": 1440, "height": 900}
PATIENCE_S = 600.0
OPENINGS = 8
SETTLE_S = 60.0  # the engine compiles and caches at first; what comes after it is what may not grow
EVERY_S = 15.0
PAINTED = """
(() => {
  const seen = (window.seen = { updates: [] });
  new PerformanceObserver((list) => { for (const entry of list.getEntries()) seen[entry.name] = entry.startTime; })
    .observe({ type: "paint", buffered: true });
  const painted = (tell) => requestAnimationFrame(() => setTimeout(() => tell(performance.now()), 0));
  const watch = new MutationObserver(() => {
    if (!document.querySelector(".table .body .tr")) return;
    watch.disconnect();
    painted((at) => { seen.rows = at; });
  });
  document.addEventListener("DOMContentLoaded", () => watch.observe(document, { childList: true, subtree: true }));
  const listen = EventSource.prototype.addEventListener;
  EventSource.prototype.addEventListener = function (topic, hear, ...more) {
    return listen.call(this, topic, topic !== "rows" ? hear : (news) => {
      hear(news);
      painted((at) => { seen.updates.push(at - news.timeStamp); });
    }, ...more);
  };
})();
"""


def main() -> int:
    """Measure; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--devices", type=int, default=5000)
    parser.add_argument("--every", type=float, default=10.0, help="seconds between two reports of a device")
    parser.add_argument("--minutes", type=float, default=10.0, help="for which the memory is watched")
    parser.add_argument("--hub", help="take this one instead of starting one")
    parser.add_argument("--data", type=Path, help="its data directory")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with contextlib.ExitStack() as ends:
        if args.hub:
            address, data = args.hub.rstrip("/"), args.data or Path("hub")
        else:
            address, data = ends.enter_context(started(args.devices, args.every))
        token = (data / "token").read_text().strip()
        result = {"machine": machine(), **measured(address, token, args.minutes)}
    print(json.dumps(result, indent=2) if args.json else told(result))
    return 0


def measured(address: str, token: str, minutes: float) -> dict[str, Any]:
    """The figures of the hub at this address."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium.program(), args=chromium.flags())
        try:
            paints = [opened(browser, address, token) for _ in range(OPENINGS)]
            context = signed_in(browser, address, token)
            page = context.new_page()
            page.add_init_script(PAINTED)
            page.goto(address)
            wait_for_rows(page)
            heap = heap_over(context, page, minutes)
            devices = int(page.locator("[role=grid]").get_attribute("aria-rowcount") or 0) - 1
            updates = page.evaluate("window.seen.updates")
        finally:
            browser.close()
    return {
        "devices": devices,
        "first_paint_ms": spread([paint["first-contentful-paint"] for paint in paints]),
        "first_rows_ms": spread([paint["rows"] for paint in paints]),
        "update_ms": spread(updates),
        "heap_mb": {"every_s": EVERY_S, "values": heap, "growth_mb": growth(heap)},
    }


def opened(browser: Browser, address: str, token: str) -> dict[str, float]:
    """The times of one opening in a fresh profile."""
    context = signed_in(browser, address, token)
    try:
        page = context.new_page()
        page.add_init_script(PAINTED)
        page.goto(address)
        wait_for_rows(page)
        seen: dict[str, float] = page.evaluate("window.seen")
    finally:
        context.close()
    return seen


def signed_in(browser: Browser, address: str, token: str) -> BrowserContext:
    """A fresh profile with a session."""
    context = browser.new_context(viewport=VIEW)
    answer = context.request.post(f"{address}/api/v1/session", data={"token": token})
    assert answer.ok, answer.text()  # noqa: S101 - a benchmark
    return context


def wait_for_rows(page: Page) -> None:
    """Until rows are painted. The page's policy forbids what Playwright would wait with."""
    painted = "Boolean(window.seen.rows && window.seen['first-contentful-paint'])"
    until(lambda: page.evaluate(painted) or page.wait_for_timeout(20), "rows")


def heap_over(context: BrowserContext, page: Page, minutes: float) -> list[float]:
    """Megabytes in use after a collection, at regular times."""
    session = context.new_cdp_session(page)
    session.send("Performance.enable")
    page.wait_for_timeout(min(SETTLE_S, minutes * 30) * 1000)
    values = []
    end = time.monotonic() + minutes * 60
    while True:
        session.send("HeapProfiler.collectGarbage")
        metrics = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
        values.append(round(metrics["JSHeapUsedSize"] / 1e6, 2))
        if time.monotonic() >= end:
            return values
        page.wait_for_timeout(EVERY_S * 1000)


def growth(values: list[float]) -> float:
    """The last quarter's median above the first's."""
    part = max(1, len(values) // 4)
    return round(statistics.median(values[-part:]) - statistics.median(values[:part]), 2)


def spread(values: list[float]) -> dict[str, float]:
    """Median, 95th percentile and most."""
    ordered = sorted(values)
    if not ordered:
        return {"n": 0}
    at = min(len(ordered) - 1, int(0.95 * len(ordered)))
    numbers = {"p50": statistics.median(ordered), "p95": ordered[at], "most": ordered[-1]}
    return {"n": len(ordered), **{name: round(value, 1) for name, value in numbers.items()}}


@contextlib.contextmanager
def started(devices: int, every_s: float) -> Iterator[tuple[str, Path]]:
    """A hub with this many played devices, all of them connected."""
    with tempfile.TemporaryDirectory(prefix="edge-page-") as folder, running_hub(Path(folder)) as hub:
        playing = FleetAtWork(hub, "--devices", str(devices), "--every", str(every_s))
        try:
            playing.until_up(hub, math.ceil(0.98 * devices))
            yield hub.url, hub.data
        finally:
            playing.finish()


def until(look: Any, what: str) -> None:
    """Wait for something to be so.

    Raises:
        SystemExit: It takes too long.
    """
    deadline = time.monotonic() + PATIENCE_S
    while not look():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what}: not within {PATIENCE_S:.0f} s")
        time.sleep(0.02)


def machine() -> dict[str, Any]:
    """Where it was measured."""
    return {
        "arch": platform.machine(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "load": os.getloadavg(),
    }


def told(result: dict[str, Any]) -> str:
    """The same for people."""
    heap = result["heap_mb"]
    return "\n".join(
        [
            f"{result['devices']} devices",
            *(f"{name:16} {result[name]}" for name in ("first_paint_ms", "first_rows_ms", "update_ms")),
            f"heap             {heap['values'][0]} to {heap['values'][-1]} MB, growth {heap['growth_mb']} MB",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
