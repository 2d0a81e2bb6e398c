"""Takes the pictures of the dashboard in docs/img anew: `python tools/hub_pages.py --hub URL --data DIR`.

The hub has to run, with a fleet that has reported for a quarter of an hour:

    edge hub run --data hub & edge hub simulate --data hub --devices 200 --churn 0.02
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
import dashboard_stage as stage

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ROOT = Path(__file__).resolve().parent.parent
MAX_BYTES = 150_000
COLOURS = 256
WIDE: Any = {"width": 1440, "height": 900}
TALL: Any = {"width": 1440, "height": 1240}
PHONE: Any = {"width": 360, "height": 740}
SETTLE_MS = 4000.0


def main() -> int:
    """Take them; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--hub", default="http://127.0.0.1:8080")
    parser.add_argument("--data", type=Path, default=Path("hub"))
    parser.add_argument("--device", default="sim/rpi4-00001")
    parser.add_argument("--to", type=Path, default=ROOT / "docs" / "img")
    args = parser.parse_args()
    token = (args.data / "token").read_text().strip()
    shots = (
        ("hub-fleet", "fleet", WIDE, "light"),
        ("hub-fleet-dark", "fleet", WIDE, "dark"),
        ("hub-fleet-phone", "fleet", PHONE, "light"),
        ("hub-device", f"devices/{args.device}", TALL, "light"),
        ("hub-device-dark", f"devices/{args.device}", TALL, "dark"),
        ("hub-models", "models", WIDE, "light"),
        ("hub-alerts", "alerts", WIDE, "light"),
        ("hub-rules", "alerts/rules", WIDE, "light"),
        ("hub-audit", "audit", WIDE, "light"),
        ("hub-tokens", "tokens", WIDE, "light"),
    )
    with stage.browser() as browser:
        for name, where, view, scheme in shots:
            content = squeezed(picture(browser, args.hub, token, where=where, view=view, scheme=scheme))
            if len(content) > MAX_BYTES:
                print(f"{name}: {len(content)} bytes are too many", file=sys.stderr)
                return 1
            (args.to / f"{name}.png").write_bytes(content)
            print(f"{name}.png {len(content)} bytes")
    return 0


def picture(browser: Browser, address: str, token: str, *, where: str, view: Any, scheme: Any) -> bytes:
    """A page as it looks once it has settled."""
    context = browser.new_context(viewport=view, color_scheme=scheme)
    try:
        stage.sign_in(context, address, token)
        page = context.new_page()
        page.goto(f"{address}/#/{where}")
        page.locator("main h1").wait_for()
        page.locator(".loading").wait_for(state="detached")
        page.wait_for_timeout(SETTLE_MS)
        taken: bytes = page.screenshot()
    finally:
        context.close()
    return taken


def squeezed(picture: bytes) -> bytes:
    """The same with a palette."""
    target = io.BytesIO()
    plain = Image.open(io.BytesIO(picture)).convert("RGB")
    # By colours, not by how often they occur: a lone green dot stays green.
    # Then each nearer to what it stands for, so that the ground keeps its tint.
    few = plain.quantize(COLOURS, method=Image.Quantize.MAXCOVERAGE, kmeans=2, dither=Image.Dither.NONE)
    few.save(target, "PNG", optimize=True)
    return target.getvalue()


if __name__ == "__main__":
    sys.exit(main())
