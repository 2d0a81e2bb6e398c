"""The dashboard in a real browser, before a real hub that knows a fleet already."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dashboard_stage as stage
import pytest
from dashboard_stage import Visit, ask, go_by_keys, serious
from hub_stage import CAM, FakeDevice, HubProcess, until

from edge_hub.query import FLAGS, NUMBERS, WORDS
from edge_sdk.mqtt import Conditions, DeviceId, ModelState, Preference, Reply, ReplyStatus, State, Up

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.browser, pytest.mark.broker]

DEVICES = 120
MANY = 5000
ODD = DeviceId(tenant="constructor", device="toString")
LIVE = DeviceId(tenant="live", device="one")
WIDE = stage.WIDE
PHONE: Any = {"width": 360, "height": 740}
PAGES = ("fleet", "devices/acme/cam0000", "models", "alerts", "audit")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    directory = tmp_path_factory.mktemp("dashboard")
    stage.fill(directory / "hub" / "hub.db", DEVICES)
    with HubProcess(directory) as hub:
        yield hub


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> HubProcess:
    directory = tmp_path_factory.mktemp("large")
    stage.fill(directory / "hub" / "hub.db", MANY)
    hub = HubProcess(directory)
    yield hub
    hub.stop()


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    directory = tmp_path_factory.mktemp("odd")
    stage.fill(directory / "hub" / "hub.db", 1, more=stage.odd(ODD))
    with HubProcess(directory) as hub:
        yield hub


@pytest.fixture(scope="module")
def browser(
    fleet: HubProcess, large: HubProcess, odd: HubProcess
) -> Iterator[Browser]:  # after it: Playwright holds an event loop of this thread
    with stage.browser() as opened:
        yield opened


@pytest.fixture
def visit(browser: Browser, fleet: HubProcess) -> Iterator[Callable[..., Visit]]:
    with stage.visits(browser, fleet) as make:
        yield make


@pytest.fixture
def live(fleet: HubProcess) -> Iterator[FakeDevice]:
    with fleet.client() as client:
        password = client.enrol(LIVE, again=True).password
    device = FakeDevice(fleet.mqtt, password, LIVE)
    device.born()
    yield device
    device.close()


def reports(device: FakeDevice, temp_c: float, **more: Any) -> None:
    """Its state anew."""
    models = {"digits": ModelState(active="base-int8", preference=Preference())}
    state = State(at=time.time(), conditions=Conditions(temp_c=temp_c), models=models, **more)
    device.send(Up.STATE, state, seq=0)


def rows(page: Page) -> int:
    return int(page.get_by_role("grid").get_attribute("aria-rowcount") or 0) - 1


def test_a_token_lets_in_and_a_wrong_one_is_refused_with_a_hint(visit: Callable[..., Visit]) -> None:
    someone = visit()
    page = someone.page
    page.goto(someone.address)
    page.get_by_label("Token").fill("guessed")
    page.keyboard.press("Enter")
    page.get_by_role("alert").get_by_text("no token of this hub").wait_for()
    assert page.get_by_text("cat hub/token").is_visible()
    someone.expects("status of 401")
    page.get_by_label("Token").fill(someone.hub.token)
    page.keyboard.press("Enter")
    page.get_by_role("grid").wait_for()
    page.get_by_role("button", name="Sign out").click()
    page.get_by_label("Token").wait_for()
    page.reload()
    page.get_by_label("Token").wait_for()


def test_five_thousand_devices_are_a_table_of_a_screenful(visit: Callable[..., Visit], large: HubProcess) -> None:
    large.start()
    try:
        page = visit(hub=large).enter()
        page.get_by_role("grid").wait_for()
        assert rows(page) == MANY + 1
        assert page.locator(".table .body .tr").count() < 60
        page.locator("main").evaluate("main => main.scrollTo(0, main.scrollHeight)")
        page.get_by_role("link", name="evil/one").wait_for()
        assert page.get_by_text(f"{MANY + 1:,} devices").is_visible()
        page.close()
    finally:
        large.stop()


def test_the_filter_asks_the_hub_says_what_is_wrong_and_stands_in_the_address(visit: Callable[..., Visit]) -> None:
    someone = visit()
    page = someone.enter()
    page.get_by_role("grid").wait_for()
    page.keyboard.press("/")
    page.keyboard.type("profile = rpi4 and temp_c > 60")
    until(lambda: 0 < rows(page) < DEVICES, "the filtered table")
    some = rows(page)
    assert page.get_by_text(f"{some:,} of").is_visible()
    assert page.locator(".table .body small", has_text="rpi5").count() == 0
    page.reload()
    until(lambda: page.get_by_role("grid").count() and rows(page) == some, "the same after a reload")
    page.get_by_label("Filter the fleet").fill("temp_c > ")
    page.locator(".says").get_by_text("query").wait_for()
    assert page.get_by_label("Filter the fleet").get_attribute("aria-invalid") == "true"
    assert rows(page) == some, "a filter that makes no sense leaves what is shown"
    someone.expects("status of 400")
    page.get_by_label("Filter the fleet").fill("device = nobody")
    page.get_by_role("button", name="Show all").click()
    until(lambda: rows(page) >= DEVICES, "all again")


def test_every_example_of_the_filter_is_one(visit: Callable[..., Visit], fleet: HubProcess) -> None:
    page = visit().enter()
    page.get_by_role("button", name="How to filter").click()
    examples = page.get_by_role("dialog").locator(".examples code").all_inner_texts()
    fields = " ".join(page.get_by_role("dialog").locator("tbody td:first-child").all_inner_texts())
    assert len(examples) > 5
    for example in examples:
        ask(fleet, "GET", "/rows", params={"query": example})
    assert set(re.findall(r"[a-z_0-9]+", fields)) >= {*WORDS, *NUMBERS, *FLAGS}


def test_what_a_device_reports_is_shown_at_once(visit: Callable[..., Visit], live: FakeDevice) -> None:
    page = visit().enter()
    page.get_by_label("Filter the fleet").fill("tenant = live")
    until(lambda: page.get_by_role("grid").count() and rows(page) == 1, "the device")
    page.locator("[data-stream=live]").wait_for()
    for temp_c in (41.5, 63.5):
        reports(live, temp_c)
        page.get_by_role("gridcell", name=f"{temp_c:.1f} °C").wait_for()


def test_a_dropped_stream_is_said_and_what_was_missed_is_read_again(
    visit: Callable[..., Visit], tmp_path: Path
) -> None:
    hub = HubProcess(tmp_path / "h")
    hub.start()
    try:
        hub.enrol()
        someone = visit(hub=hub)
        page = someone.enter()
        page.locator("[data-stream=live]").wait_for()
        hub.stop()
        page.get_by_text("The live stream dropped").wait_for()
        assert page.locator("[data-stream=dropped]").count() == 1
        hub.start()
        ask(hub, "PUT", f"/devices/{CAM}/labels", json={"labels": {"site": "missed"}})
        page.locator("[data-stream=live]").wait_for()
        page.get_by_text("site=missed").first.wait_for()
        assert page.get_by_text("The live stream dropped").count() == 0
        someone.complaints.clear()  # the browser notes each connection that was refused
        page.close()
    finally:
        hub.stop()


def test_what_ails_the_hub_is_said_while_the_stream_goes_on(visit: Callable[..., Visit]) -> None:
    someone = visit()
    told = {"ok": False, "trouble": "hub.db: the database refuses: database or disk is full"}
    someone.context.route("**/api/v1/health", lambda route: route.fulfill(status=503, json=told))
    page = someone.enter()
    page.get_by_text("The hub is in trouble: hub.db: the database refuses").wait_for()
    someone.expects("status of 503")


def test_a_device_that_never_came_is_said_to_be_one(visit: Callable[..., Visit], fleet: HubProcess) -> None:
    with fleet.client() as client:
        client.enrol(DeviceId(tenant="new", device="never"), again=True)
    someone = visit()
    someone.enter()
    page = someone.go("devices/new/never")
    page.get_by_text("never heard of").wait_for()
    page.get_by_text("has never connected").wait_for()


def test_a_name_of_usual_length_is_whole_and_a_device_without_a_report_is_not_said_to_be_on_mains(
    visit: Callable[..., Visit], fleet: HubProcess
) -> None:
    with fleet.client() as client:
        client.enrol(DeviceId(tenant="new", device="jetson-orin-nano-00024"), again=True)
    page = visit().enter()
    page.get_by_label("Filter the fleet").fill("tenant = new and device ~ *orin*")
    until(lambda: page.get_by_role("grid").count() and rows(page) == 1, "the device")
    name = page.locator(".table .body .device")
    assert name.get_attribute("title") == "new/jetson-orin-nano-00024"
    assert name.evaluate("cell => cell.scrollWidth <= cell.clientWidth")
    assert page.locator(".table .body .battery").inner_text() == "–"  # noqa: RUF001 - a dash for what is not there


def test_a_reader_that_was_too_slow_reads_again(visit: Callable[..., Visit]) -> None:
    someone = visit()
    asked: list[str] = []
    someone.page.on("request", lambda request: "/rows" in request.url and asked.append(request.url))
    someone.context.route(
        "**/api/v1/stream",
        lambda route: route.fulfill(content_type="text/event-stream", body="event: missed\ndata: {}\n\n"),
        times=1,
    )
    someone.enter()
    until(lambda: _waited(someone.page) and len(asked) >= 2, "the rows to be read again")


def _waited(page: Page) -> bool:
    page.wait_for_timeout(50)  # lets the browser's news in
    return True


def test_hostile_words_stay_words(visit: Callable[..., Visit], fleet: HubProcess) -> None:
    ask(fleet, "PUT", "/devices/evil/one/labels", json={"labels": {"a": stage.SCRIPT[:99], "b": "\u202egnp.exe"}})
    page = visit().enter()
    page.get_by_label("Filter the fleet").fill("tenant = evil")
    until(lambda: page.get_by_role("grid").count() and rows(page) == 1, "the device")
    page.get_by_role("link", name="evil/one").click()
    page.get_by_role("region", name="Why it runs").wait_for()
    page.get_by_text("What happened").wait_for()
    text = page.locator("main").inner_text()
    assert "<script>document.title='run'</script>" in text
    assert "⟨U+202E⟩gnp.exe" in text
    assert "⟨U+0000⟩" in text
    assert not set("\u202e\u2066\u2069\0") & set(page.content())
    assert page.title() == "evil/one · edge hub"
    assert page.locator("main script, main img").count() == 0
    assert stage.ENDLESS not in page.locator(".facts").inner_text(), "what goes on and on is cut"
    assert page.evaluate("document.documentElement.scrollWidth") <= WIDE["width"]


def test_a_device_is_removed_by_keyboard_and_leaves_every_page(visit: Callable[..., Visit], odd: HubProcess) -> None:
    axe = Path(pytest.importorskip("axe_playwright_python").__file__).with_name("axe.min.js").read_text("utf-8")
    who = DeviceId(tenant="hasOwnProperty", device="valueOf")
    odd.enrol(who)
    ask(odd, "PUT", f"/devices/{who}/labels", json={"labels": {"a": stage.SCRIPT[:99]}})
    looker = visit(hub=odd)
    looker.enter()
    looker.go(f"devices/{who}")
    looker.page.get_by_role("button", name="Remove…").wait_for()
    someone = visit(hub=odd)
    someone.enter()
    page = someone.go(f"devices/{who}")
    page.get_by_role("button", name="Remove…").press("Enter")
    dialog = page.get_by_role("dialog", name=f"Remove {who}?")
    dialog.wait_for()
    page.evaluate(axe)
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme)
        assert serious(page, "['wcag2a', 'wcag2aa', 'wcag21aa', 'wcag22aa']") == [], scheme
    page.keyboard.press("Escape")
    dialog.wait_for(state="detached")
    until(lambda: page.evaluate("document.activeElement.textContent") == "Remove…", "the focus to come back")
    page.keyboard.press("Enter")
    dialog.get_by_role("button", name="Remove it").press("Enter")
    page.get_by_text(f"{who} is not in the fleet any more.").wait_for()
    page.get_by_role("grid").wait_for()
    until(lambda: _waited(page) and page.get_by_role("link", name=str(who)).count() == 0, "its row to go")
    looker.page.get_by_text("No such device").wait_for()


def test_names_that_every_object_has_already_are_names_like_others(
    odd: HubProcess, visit: Callable[..., Visit]
) -> None:
    ask(odd, "PUT", f"/devices/{ODD}/labels", json={"labels": {"constructor": "valueOf"}})
    ask(odd, "PUT", f"/devices/{ODD}/desired", json={"pins": {"valueOf": "toString"}})
    guest = visit(hub=odd)
    page = guest.enter()
    until(lambda: page.get_by_role("grid").count() and rows(page) > 1, "the devices")
    guest.go(f"devices/{ODD}")
    page.get_by_role("region", name="Why it runs").wait_for()
    page.get_by_text("What happened").wait_for()
    page.get_by_role("button", name="Command").first.click()
    page.get_by_role("dialog").wait_for()
    page.get_by_role("dialog").get_by_label("Command").select_option("pin")
    options = page.get_by_role("dialog").locator("label").filter(has_text=re.compile("^Variant")).locator("option")
    until(lambda: options.all_inner_texts() == ["constructor", "hasOwnProperty", "toString", "valueOf"], "variants")
    page.keyboard.press("Escape")
    guest.go("models")
    page.get_by_role("heading", name="hasOwnProperty").wait_for()
    for nowhere in ("constructor", "toString/x"):
        guest.go(nowhere)
        page.get_by_text("No such page").wait_for()


def test_the_keyboard_alone_filters_moves_selects_commands_and_opens(visit: Callable[..., Visit]) -> None:
    page = visit().enter()
    page.get_by_role("grid").wait_for()
    page.locator("body").press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "filter"
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.getAttribute('role')") == "grid"
    page.keyboard.press("End")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Space")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Space")
    page.get_by_text("2 selected").wait_for()
    active = page.get_by_role("grid").get_attribute("aria-activedescendant")
    assert page.locator(f"#{active}").get_attribute("aria-selected") == "true"
    page.keyboard.press("c")
    page.get_by_role("dialog", name="Command to 2 devices").wait_for()
    page.keyboard.press("Escape")
    until(lambda: page.evaluate("document.activeElement.getAttribute('role')") == "grid", "the focus to come back")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="acme/cam0002").wait_for()
    go_by_keys(page, "m", page.get_by_role("heading", name="Models"))
    page.keyboard.press("/")
    until(lambda: page.evaluate("document.activeElement.id") == "filter", "the filter of the fleet")


def test_a_command_to_what_is_selected_is_sent_told_and_can_be_cancelled(
    visit: Callable[..., Visit], live: FakeDevice
) -> None:
    page = visit().enter()
    page.get_by_label("Filter the fleet").fill("tenant = live")
    until(lambda: page.get_by_role("grid").count() and rows(page) == 1, "the device")
    page.get_by_label("Select live/one").check()
    page.get_by_role("button", name="Command…").click()
    page.locator("dialog select").first.select_option("pause")
    page.get_by_role("button", name="Send to 1 device").click()
    command = live.command(1)
    live.send(Up.REPLY, Reply(status=ReplyStatus.DONE), reply_to=command.id)
    page.get_by_text("pause: 1 done.").wait_for()
    page.get_by_role("link", name="live/one").click()
    page.locator("li[data-state=done]", has_text="pause").wait_for()
    page.get_by_role("button", name="Command…").click()
    page.locator("dialog select").first.select_option("report")
    page.get_by_role("button", name="Send to 1 device").click()
    page.locator("li[data-state=pending]", has_text="report").get_by_role("button", name="Cancel").click()
    page.locator("li[data-state=cancelled]", has_text="report").wait_for()
    go_by_keys(page, "u", page.locator(".audit li", has_text="cancel").first)


def test_what_is_desired_is_set_and_shown_as_differing_until_the_device_applies_it(
    visit: Callable[..., Visit], fleet: HubProcess
) -> None:
    someone = visit()
    someone.enter()
    page = someone.go("devices/acme/cam0003")
    page.get_by_role("button", name="Change…").click()
    title = page.get_by_role("heading", name="What is desired of it")
    colours = "one => [one, one.closest('dialog')].map((each) => getComputedStyle(each).color)"
    assert len(set(title.evaluate(colours))) == 1, "the dialog is in a card, and looks like any other"
    page.get_by_label("Variant").select_option(label="pinned: tiny-int8")
    page.get_by_role("button", name="Set").click()
    page.get_by_text("version 1 is desired, 0 applied").wait_for()
    page.locator("li", has_text="pins.digits").get_by_text("tiny-int8 desired, nothing reported").wait_for()


def test_switches_and_their_reasons_stand_over_time_in_three_windows(visit: Callable[..., Visit]) -> None:
    someone = visit()
    someone.enter()
    page = someone.go(f"devices/{stage.WATCHED}")
    lane = page.get_by_role("figure", name="What ran of digits")
    lane.wait_for()
    told = lane.get_attribute("aria-label") or ""
    assert told.index("large-fp16 for 6 min") < told.index("small-int8 for 6 min")
    for name in ("Latency", "Temperature", "Battery", "Power"):
        assert page.get_by_role("figure", name=name).locator("canvas").count() == 1, name
    switch = page.locator(".events li", has_text="small-int8 keeps it below 70 °C")
    switch.focus()
    assert switch.locator(".what").inner_text().startswith("large-fp16 → small-int8")
    assert switch.locator("time").get_attribute("title")
    for window in ("6 h", "7 d"):
        page.get_by_role("button", name=window).click()
        page.get_by_text(f"What happened in the last {window}").wait_for()
        lane.wait_for()


def test_a_decision_tells_what_bound_first_and_who_came_second_once(visit: Callable[..., Visit]) -> None:
    someone = visit()
    someone.enter()
    page = someone.go("devices/acme/cam0001")
    why = page.get_by_role("region", name="Why it runs")
    why.get_by_text("next is base-int8, 1.2 points a request behind; draws 3.1 W (estimated)", exact=True).wait_for()
    assert why.locator(".sentence").inner_text().endswith("for large-fp16")
    assert "3.1\u00a0W" in why.inner_text(), "no line ends between a number and its unit"
    assert why.get_by_text("Next best").count() == 0


def test_a_viewer_sees_no_button_that_would_be_refused(visit: Callable[..., Visit]) -> None:
    someone = visit()
    page = someone.enter(someone.token_of("viewer"))
    page.get_by_role("grid").wait_for()
    assert page.get_by_role("checkbox").count() == 0
    assert page.get_by_role("button", name="Command").count() == 0
    someone.go("devices/acme/cam0000")
    page.get_by_text("Desired and reported").wait_for()
    for name in ("Command", "Change", "edit", "Cancel", "Acknowledge", "Remove"):
        assert page.get_by_role("button", name=name).count() == 0, name


def test_each_page_is_accessible_and_fits_a_phone(visit: Callable[..., Visit]) -> None:
    axe = Path(pytest.importorskip("axe_playwright_python").__file__).with_name("axe.min.js").read_text("utf-8")
    someone = visit()
    page = someone.enter()
    for name in PAGES:
        someone.go(name)
        page.locator("main h1").wait_for()
        page.locator(".loading").wait_for(state="detached")
        page.evaluate(axe)
        assert serious(page, "['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa']") == [], name
        page.emulate_media(color_scheme="dark")
        assert serious(page, "['color-contrast']") == [], f"{name}, dark"
        page.emulate_media(color_scheme="light")
        page.set_viewport_size(PHONE)
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], name
        assert serious(page, "['target-size', 'color-contrast', 'scrollable-region-focusable']") == [], f"{name}, phone"
        page.set_viewport_size(WIDE)


def test_colours_follow_the_system_and_the_switch_which_is_remembered(visit: Callable[..., Visit]) -> None:
    page = visit(scheme="dark").enter()
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    dark = page.evaluate(ground)
    page.get_by_role("button", name="Light colours").click()
    light = page.evaluate(ground)
    assert _brightness(dark) < 100
    assert _brightness(light) > 600
    page.reload()
    assert page.evaluate(ground) == light


def _brightness(colour: str) -> int:
    return sum(map(int, re.findall(r"\d+", colour)[:3]))


def test_an_empty_hub_says_which_command_lets_the_first_device_in(browser: Browser, tmp_path: Path) -> None:
    hub = HubProcess(tmp_path / "h")
    hub.start()
    context = browser.new_context()
    try:
        someone = Visit(context, hub)
        page = someone.enter()
        page.get_by_text("edge hub enroll acme/cam1").wait_for()
        hub.enrol(DeviceId(tenant="acme", device="cam1"))
        for name in ("models", "alerts", "audit", "devices/acme/nobody"):
            someone.go(name)
            page.locator(".empty, .panel").first.wait_for()
    finally:
        context.close()
        hub.stop()
