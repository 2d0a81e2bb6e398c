// Begins: who is signed in, then the page the address names. Pages beyond the fleet are loaded when they are first asked for.
import { effect, html, render, signal, useEffect } from "./bound.js";
import { mayBeSignedIn, session, whoAmI } from "./api.js";
import { filter, follow, forget, readAlerts, readRows } from "./fleet.js";
import { FleetPage } from "./fleet-page.js";
import { byName, tick } from "./format.js";
import { connect, disconnect } from "./live.js";
import { Loading, Trouble } from "./parts.js";
import { Shell, SignIn, place } from "./shell.js";

const LATER = byName({
  devices: () => import("./device-page.js").then((found) => found.DevicePage),
  models: () => import("./models-page.js").then((found) => found.ModelsPage),
  alerts: () => import("./alerts-page.js").then((found) => found.AlertsPage),
  audit: () => import("./audit-page.js").then((found) => found.AuditPage),
  tokens: () => import("./tokens-page.js").then((found) => found.TokensPage),
});
const pages = signal(byName({ fleet: FleetPage }));
const problem = signal(null);

function Page() {
  const { page } = place.value;
  const Found = pages.value[page];
  useEffect(() => {
    if (Found || !LATER[page]) return;
    LATER[page]().then(
      (loaded) => { pages.value = byName({ ...pages.value, [page]: loaded }); },
      () => { problem.value = "A part of this page could not be loaded. Was the hub updated? Reload the page."; },
    );
  }, [page, Found]);
  if (Found) return html`<${Found} />`;
  if (LATER[page]) return html`<${Loading} />`;
  return html`<div class="empty"><h1>No such page</h1><p>Go to <a href="#/fleet">the fleet</a>.</p></div>`;
}

function App() {
  if (problem.value) return html`<main class="bare"><${Trouble} text=${problem.value} again=${() => location.reload()} /></main>`;
  if (session.value === undefined) return null;
  if (session.value === null) return html`<${SignIn} />`;
  return html`<${Shell}><${Page} /></${Shell}>`;
}

let unfollow = null;
let was;

effect(() => {
  const who = session.value;
  const signedIn = who && was === null;
  was = who;
  if (signedIn) readRows();
  if (who) {
    if (unfollow) return;
    unfollow = follow();
    connect();
    readAlerts().catch(() => {});
  } else if (unfollow) {
    unfollow();
    unfollow = null;
    disconnect();
    forget();
  }
});

filter.value = place.value.query.get("q") ?? "";
setInterval(tick, 1000);
if (mayBeSignedIn()) {
  whoAmI().catch((failed) => { problem.value = failed.message; });
  // Not after the answer to who is signed in: nobody is told anything without a session, and it saves a round trip.
  readRows();
} else session.value = null;
render(html`<${App} />`, document.getElementById("app"));
