"""What people change in the dashboard, in a real browser: rules, silences, tokens. Each is offered what they may."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dashboard_stage as stage
import httpx
import pytest
from dashboard_stage import Visit, ask, go_by_keys, serious
from hub_stage import HubProcess, until

from edge_hub.alerts.rules import BUILT_IN, Rule
from edge_hub.alerts.views import SilenceRequest
from edge_sdk.wire import decode, encode

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

pytestmark = [pytest.mark.browser, pytest.mark.broker]

WIDE = stage.WIDE
PHONE: Any = {"width": 360, "height": 740}
SILENT = stage.WATCHED
WCAG = "['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa']"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    directory = tmp_path_factory.mktemp("managed")
    stage.fill(directory / "hub" / "hub.db", 3)
    hub = HubProcess(directory)
    hub.start()
    # Always: presence is what every device has.
    ring = Rule(when=f'device = "{SILENT}" and age_s > -1', text=stage.SCRIPT, severity="critical")
    ask(hub, "PUT", "/rules/rings", content=encode(ring))
    yield hub
    hub.stop()


@pytest.fixture(scope="module")
def browser(fleet: HubProcess) -> Iterator[Browser]:  # after it: Playwright holds an event loop of this thread
    with stage.browser() as opened:
        yield opened


@pytest.fixture
def visit(browser: Browser, fleet: HubProcess) -> Iterator[Callable[..., Visit]]:
    with stage.visits(browser, fleet) as make:
        yield make


def rule(hub: HubProcess, name: str) -> Rule:
    """As the hub keeps it."""
    return decode(encode(ask(hub, "GET", f"/rules/{name}").json()["rule"]), Rule, where=name)


def dialog(page: Page, title: str) -> Locator:
    return page.get_by_role("dialog", name=title)


def test_an_administrator_switches_a_rule_edits_its_numbers_and_resets_it(
    visit: Callable[..., Visit], fleet: HubProcess
) -> None:
    someone = visit()
    someone.enter()
    page = someone.go("alerts/rules")
    row = page.locator("[data-rule='battery-low']")
    row.get_by_role("switch").press("Space")
    row.locator("[role=switch][aria-checked=false]").wait_for()
    assert not rule(fleet, "battery-low").enabled
    row.get_by_text("changed").wait_for()
    row.get_by_role("switch").press("Space")
    row.get_by_text("changed").wait_for(state="detached")  # it is again as it came
    assert rule(fleet, "battery-low") == BUILT_IN["battery-low"]
    row.get_by_role("switch").press("Space")
    row.locator("[role=switch][aria-checked=false]").wait_for()
    row.get_by_role("button", name="Edit").click()
    edited = dialog(page, "Rule battery-low")
    edited.get_by_label("battery_pct below (%)").first.fill("25")
    edited.get_by_label("not battery_pct below (%)").fill("30")
    edited.get_by_label("Has to hold for (s)").fill("120")
    edited.get_by_role("button", name="Save").click()
    row.get_by_text("for 2 min").wait_for()
    row.get_by_text("changed").wait_for()
    kept = rule(fleet, "battery-low")
    assert (kept.when, kept.clear, kept.for_s, kept.enabled) == (
        "battery_pct < 25 and not charging",
        "charging or not battery_pct < 30",
        120.0,
        False,
    )
    row.get_by_role("button", name="Reset").click()
    dialog(page, "Reset battery-low?").get_by_role("button", name="Reset").click()
    row.get_by_text("changed").wait_for(state="detached")
    row.locator("[role=switch][aria-checked=true]").wait_for()
    assert rule(fleet, "battery-low") == BUILT_IN["battery-low"]


def test_what_the_hub_refuses_stands_at_its_field_and_nothing_is_lost(visit: Callable[..., Visit]) -> None:
    someone = visit()
    someone.enter()
    page = someone.go("alerts/rules")
    page.get_by_role("button", name="New rule").click()
    fresh = dialog(page, "New rule")
    fresh.get_by_label("Name").fill("mine")
    fresh.get_by_label("Begins when").fill("temp_c > 5")
    fresh.get_by_label("Ends when").fill("temp_c >")
    fresh.get_by_label("What it says").fill(stage.SCRIPT[:80])
    fresh.get_by_label("What it says").press("Enter")
    fresh.get_by_role("alert").get_by_text("column").wait_for()
    wrong = fresh.get_by_label("Ends when")
    assert wrong.get_attribute("aria-invalid") == "true"
    assert wrong.get_attribute("aria-describedby") == "rule-clear-help rule-clear-wrong"
    assert page.evaluate("document.activeElement.id") == "rule-clear"
    assert fresh.get_by_label("Begins when").input_value() == "temp_c > 5"
    someone.expects("status of 400")
    wrong.fill("not temp_c > 3")
    fresh.get_by_role("button", name="Save").click()
    row = page.locator("[data-rule=mine]")
    row.get_by_text("<script>").wait_for()
    assert page.title() == "Alerts · edge hub"
    row.get_by_role("button", name="Remove").click()
    dialog(page, "Remove mine?").get_by_role("button", name="Remove").click()
    row.wait_for(state="detached")


def test_an_operator_silences_an_alert_and_ends_that_and_is_offered_nothing_of_the_administrators(
    visit: Callable[..., Visit], fleet: HubProcess
) -> None:
    someone = visit()
    someone.enter(someone.token_of("operator"))
    page = someone.go("alerts")
    alert = page.locator("[data-alert]", has_text=str(SILENT))
    alert.get_by_role("button", name="Silence").click()
    quiet = dialog(page, "Silence alerts")
    quiet.get_by_label("Of which devices").fill("device = ")
    quiet.get_by_role("button", name="Silence").click()
    quiet.get_by_role("alert").get_by_text("column").wait_for()
    someone.expects("status of 400")
    quiet.get_by_label("Of which devices").fill(f'device = "{SILENT}"')
    quiet.get_by_label("For how long").select_option("8 hours")
    quiet.get_by_label("Why").fill("\u202eworks")
    quiet.get_by_role("button", name="Silence").click()
    page.get_by_role("button", name="Silences (1)").click()
    row = page.locator("[data-silence]")
    until(lambda: re.sub(r"\s+", " ", row.inner_text()).startswith(f'rings of device = "{SILENT}" ends in 8 h'), "it")
    (kept,) = ask(fleet, "GET", "/silences").json()["silences"]
    assert (kept["rule"], kept["query"], kept["why"]) == ("rings", f'device = "{SILENT}"', "\u202eworks")
    assert "by operator" in row.inner_text()
    assert "⟨U+202E⟩works" in row.inner_text()
    row.get_by_role("button", name="End").click()
    page.get_by_text("Nothing is silenced").wait_for()
    page.get_by_role("button", name="Rules").click()
    page.locator("[data-rule=hot]").get_by_role("button", name="Silence").wait_for()
    assert page.get_by_role("switch").count() == 0
    assert page.get_by_role("button", name=re.compile("Edit|Reset|Remove|New rule")).count() == 0
    assert page.get_by_role("link", name="Tokens").count() == 0
    someone.go("tokens")
    page.get_by_text("For administrators").wait_for()


def test_a_viewer_is_offered_no_change_of_alerts_rules_or_silences(visit: Callable[..., Visit]) -> None:
    someone = visit()
    someone.enter(someone.token_of("viewer"))
    for where, there in (
        ("alerts", "[data-alert]"),
        ("alerts/rules", "[data-rule]"),
        ("alerts/silences", ".empty"),
    ):
        page = someone.go(where)
        page.locator(there).first.wait_for()
        offered = page.locator("main").get_by_role("button").or_(page.locator("main").get_by_role("switch"))
        assert set(offered.all_inner_texts()) == {"Open", "Ended", "Rules", "Silences"}, where


def test_a_token_is_made_shown_once_copied_used_and_withdrawn(visit: Callable[..., Visit], fleet: HubProcess) -> None:
    someone = visit(permissions=["clipboard-read", "clipboard-write"])
    page = someone.enter()
    page.get_by_role("grid").wait_for()
    go_by_keys(page, "t", page.get_by_role("button", name="New token"))
    page.get_by_role("button", name="New token").click()
    fresh = dialog(page, "New token")
    fresh.get_by_label("Name").fill("ci")
    fresh.get_by_label("Role").select_option("operator")
    fresh.get_by_label("Expires after").select_option("1 day")
    fresh.get_by_label("Name").press("Enter")
    made = dialog(page, "Token ci")
    made.get_by_text("It is not shown again.").wait_for()
    token = made.get_by_label("Token").input_value()
    page.mouse.click(5, 5)  # beside it
    made.get_by_role("button", name="Copy").click()
    made.get_by_text("Copied.").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == token
    made.get_by_role("button", name="Done").click()
    assert token not in page.content()
    row = page.locator("[data-token=ci]")
    row.get_by_text("expires in 24 h").wait_for()
    row.get_by_text("never used").wait_for()
    assert _session(fleet, token).json()["role"] == "operator"
    someone.go("audit")
    page.get_by_text(re.compile(r"role operator, expires \d+ \w+ \d{4}, ")).wait_for()
    someone.go("tokens")
    row.get_by_role("button", name="Withdraw… ci").click()
    dialog(page, "Withdraw ci?").get_by_role("button", name="Withdraw").click()
    row.wait_for(state="detached")
    until(lambda: _session(fleet, token).status_code == httpx.codes.UNAUTHORIZED, "the token to count no more")


def _session(hub: HubProcess, token: str) -> httpx.Response:
    address = f"http://127.0.0.1:{hub.http}/api/v1/session"
    return httpx.get(address, headers={"Authorization": f"Bearer {token}"})


def test_what_others_change_appears_on_the_pages_that_are_open(visit: Callable[..., Visit], fleet: HubProcess) -> None:
    someone = visit()
    someone.enter()
    page = someone.go("alerts/rules")
    page.locator("[data-rule=hot]").wait_for()
    page.evaluate("document.same = true")
    with fleet.client() as other:
        other.put_rule("others", Rule(when="temp_c > 999"))
        page.locator("[data-rule=others]").wait_for()
        other.delete_rule("others")
        page.locator("[data-rule=others]").wait_for(state="detached")
        someone.go("alerts/silences")
        page.get_by_text("Nothing is silenced").wait_for()
        made = other.silence(SilenceRequest(query="temp_c > 999", for_s=600))
        page.locator(f"[data-silence='{made.name}']").wait_for()
        other.end_silence(made.name)
        page.get_by_text("Nothing is silenced").wait_for()
        someone.go("tokens")
        page.get_by_role("button", name="New token").wait_for()
        other.make_token("others", role="viewer")
        page.locator("[data-token=others]").wait_for()
        someone.go("audit")
        page.locator(".audit li", has_text="others").first.wait_for()
        other.withdraw_token("others")
        page.locator(".audit li").first.get_by_text("token-withdrawn").wait_for()
    assert page.evaluate("document.same")


def test_what_is_typed_into_a_dialog_stays_while_others_change_what_lies_behind(
    visit: Callable[..., Visit], fleet: HubProcess
) -> None:
    someone = visit()
    someone.enter()
    page = someone.go("alerts/rules")
    page.get_by_role("button", name="Edit… hot").click()
    edited = dialog(page, "Rule hot")
    edited.get_by_label("What it says").fill("half a sen")
    number = edited.get_by_role("spinbutton", name="temp_c").first
    number.press("ControlOrMeta+A")
    number.press_sequentially("12")
    with fleet.client() as other:
        other.put_rule("others", Rule(when="temp_c > 999"))
        page.locator("[data-rule=others]").wait_for(state="attached")
        other.delete_rule("others")
        page.locator("[data-rule=others]").wait_for(state="detached")
    number.press_sequentially("3")
    assert edited.get_by_label("What it says").input_value() == "half a sen"
    assert number.input_value() == "123"
    number.press("Tab")
    assert "123" in edited.get_by_label("Begins when").input_value()
    page.keyboard.press("Escape")
    someone.go("alerts")
    page.locator("[data-alert]", has_text=str(SILENT)).get_by_role("button", name="Silence").click()
    quiet = dialog(page, "Silence alerts")
    quiet.get_by_label("Why").fill("half a sen")
    page.route("**/api/v1/alerts?*", lambda route: route.fulfill(json={"alerts": []}))  # as if all had ended meanwhile
    with fleet.client() as other:
        other.acknowledge(next(alert.id for alert in other.alerts() if alert.rule == "rings"))
    page.get_by_text("Nothing is wrong").wait_for(state="attached")
    assert quiet.get_by_label("Why").input_value() == "half a sen"


def test_each_of_these_pages_and_dialogs_is_accessible_and_fits_a_phone(visit: Callable[..., Visit]) -> None:
    axe = Path(pytest.importorskip("axe_playwright_python").__file__).with_name("axe.min.js").read_text("utf-8")
    someone = visit()
    page = someone.enter()
    someone.token_of("viewer")
    page.evaluate(axe)
    for where, there, opens in (
        ("alerts/rules", "[data-rule=hot]", "Edit… hot"),
        ("alerts/silences", ".empty", "New silence…"),
        ("tokens", "[data-token]", "New token…"),
    ):
        someone.go(where)
        page.locator(there).first.wait_for()
        for opened in (False, True):
            if opened:
                page.get_by_role("button", name=opens, exact=True).click()
                page.get_by_role("dialog").wait_for()
            for scheme, view in (("light", WIDE), ("dark", PHONE)):
                page.emulate_media(color_scheme=scheme)
                page.set_viewport_size(view)
                assert serious(page, WCAG) == [], (where, opened, scheme)
                assert page.evaluate("document.documentElement.scrollWidth") <= view["width"], (where, opened)
        page.keyboard.press("Escape")
        page.get_by_role("dialog").wait_for(state="detached")
