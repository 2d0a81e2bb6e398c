// What surrounds every page: where one is, where one can go, whether the news are live, who is signed in.
import { html, signal, useEffect, useRef, useState } from "./bound.js";
import { get, mayAdminister, mayOperate, session, signIn, signOut } from "./api.js";
import { openAlerts } from "./fleet.js";
import { duration, now } from "./format.js";
import { droppedAt, stream } from "./live.js";
import { Dialog, Icon, Notices, Trouble, Words, say } from "./parts.js";

const PAGES = [
  ["fleet", "Fleet"],
  ["models", "Models"],
  ["alerts", "Alerts"],
  ["audit", "Audit"],
  ["tokens", "Tokens"], // of administrators
];
const KEYS = [
  ["/", "filter the fleet"],
  ["↑ ↓ Home End PgUp PgDn", "move in the table"],
  ["Enter", "open the device"],
  ["Space", "select the device"],
  ["a", "select all that are shown, or none"],
  ["c", "command to the selected devices"],
  ["g then f, m, a, u, t", "go to Fleet, Models, Alerts, Audit, Tokens"],
  ["?", "these keys"],
];

const LOOK_MS = 10_000;
const UNWELL = 503;

export const place = signal(read());
const trouble = signal(null);

// "#/devices/acme/cam1?window=6h" -> {page, rest, query}
function read() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?", 2);
  const [page, ...rest] = path.split("/");
  const decoded = rest.map((part) => { try { return decodeURIComponent(part); } catch { return part; } });
  return { page: page || "fleet", rest: decoded, query: new URLSearchParams(query ?? "") };
}

addEventListener("hashchange", () => { place.value = read(); });

export function go(path) {
  location.hash = path;
}

export function deviceLink(device) {
  return `#/devices/${device.split("/").map(encodeURIComponent).join("/")}`;
}

export function queryLink(query) {
  return `#/fleet?q=${encodeURIComponent(query)}`;
}

export function Shell({ children }) {
  const [keys, showKeys] = useState(false);
  useKeys(() => showKeys(true));
  useHealth();
  const { page } = place.value;
  const alerts = openAlerts.value.size;
  const main = useRef(null);
  useEffect(() => main.current?.scrollTo?.(0, 0), [page, place.value.rest.join("/")]);
  return html`<a class="skip" href="#main" onClick=${skip}>Skip to the content</a>
    <div class="shell">
      <nav aria-label="Pages">
        <a class="brand" href="#/fleet"><${Mark} /><span>edge hub</span></a>
        <ul>${PAGES.filter(([name]) => name !== "tokens" || mayAdminister.value).map(([name, title]) => html`<li key=${name}>
          <a href=${`#/${name}`} aria-current=${page === name || (name === "fleet" && page === "devices") ? "page" : null}>
            <${Icon} name=${name} /><span>${title}</span>
            ${name === "alerts" && html`<b class="badge" hidden=${alerts === 0} aria-label=${`${alerts} open`}>${alerts > 999 ? "999+" : alerts}</b>`}
          </a></li>`)}</ul>
        <div class="foot">
          <${Stream} />
          <${Who} />
          <div class="tools">
            <${Theme} />
            <button type="button" class="quiet square" title="Keys" aria-label="Keys" onClick=${() => showKeys(true)}><${Icon} name="help" /></button>
            <button type="button" class="quiet square" title="Sign out" aria-label="Sign out" onClick=${() => signOut().catch((failed) => say(`Still signed in: ${failed.message}`, "bad"))}><${Icon} name="out" /></button>
          </div>
        </div>
      </nav>
      <main id="main" tabindex="-1" ref=${main}>${children}</main>
    </div>
    <${Dropped} />
    <${Notices} />
    ${keys && html`<${Dialog} title="Keys" close=${() => showKeys(false)}><dl class="keys">${KEYS.map(
      ([key, does]) => html`<div key=${key}><dt><kbd>${key}</kbd></dt><dd>${does}</dd></div>`,
    )}</dl></${Dialog}>`}`;
}

function skip(event) {
  event.preventDefault();
  document.getElementById("main").focus();
}

function Mark() {
  return html`<svg viewBox="0 0 32 32" class="mark" aria-hidden="true"><rect width="32" height="32" rx="8" /><circle cx="16" cy="16" r="3.4" />
    <path d="M16 5.5v4M16 22.5v4M5.5 16h4M22.5 16h4M9 9l2.3 2.3M20.7 20.7L23 23M23 9l-2.3 2.3M11.3 20.7L9 23" /></svg>`;
}

function Stream() {
  const text = { live: "Live", connecting: "Connecting…", dropped: "Reconnecting…", off: "Off" }[stream.value];
  return html`<p class=${`stream ${stream.value}`} data-stream=${stream.value} title="Whether the hub's news arrive"><i aria-hidden="true"></i>${text}</p>`;
}

// Over the page, so that nothing moves when it comes and goes.
function Dropped() {
  if (stream.value !== "dropped" && trouble.value) return html`<div role="status" class="dropped">The hub is in trouble: <${Words} text=${trouble.value} most=${400} /></div>`;
  if (stream.value !== "dropped") return html`<div role="status" class="unseen"></div>`;
  now.value; // each second
  return html`<div role="status" class="dropped">The live stream dropped ${duration(Math.max(0, Date.now() / 1000 - droppedAt.value))} ago:
    what you see may be old. Reconnecting by itself; if that goes on, look whether <code>edge hub run</code> still runs.</div>`;
}

function Who() {
  const who = session.value;
  return html`<p class="who" title=${mayOperate.value ? "" : "A viewer looks and changes nothing"}><${Words} text=${who?.name ?? "token"} most=${40} /><span class="soft">${who?.role}</span></p>`;
}

function Theme() {
  const dark = () => getComputedStyle(document.documentElement).colorScheme === "dark" ||
    (getComputedStyle(document.documentElement).colorScheme !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
  const [isDark, set] = useState(dark());
  const turn = () => {
    const next = isDark ? "light" : "dark";
    document.documentElement.dataset.theme = next;
    try { localStorage.setItem("edge-hub-theme", next); } catch { /* not kept */ }
    set(!isDark);
    dispatchEvent(new Event("edge-theme"));
  };
  const text = isDark ? "Light colours" : "Dark colours";
  return html`<button type="button" class="quiet square" title=${text} aria-label=${text} onClick=${turn}><${Icon} name=${isDark ? "sun" : "moon"} /></button>`;
}

// The stream stays open while the hub can store nothing, and what is shown gets older: the hub has to be asked.
function useHealth() {
  useEffect(() => {
    const look = () => document.hidden || get("/health").then(
      () => { trouble.value = null; },
      (failed) => { trouble.value = failed.status === UNWELL ? failed.message : null; },
    );
    look();
    const timer = setInterval(look, LOOK_MS);
    return () => clearInterval(timer);
  }, []);
}

function useKeys(help) {
  useEffect(() => {
    let gone = 0;
    const hear = (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
      if (event.target.matches?.("input, textarea, select")) return;
      const target = { f: "fleet", m: "models", a: "alerts", u: "audit", t: "tokens" }[event.key];
      if (target && Date.now() - gone < 1200) {
        event.preventDefault();
        event.stopPropagation();
        gone = 0;
        go(`/${target}`);
      } else if (event.key === "g") gone = Date.now();
      else if (event.key === "?") help();
      else if (event.key === "/") {
        event.preventDefault();
        const focus = () => document.getElementById("filter")?.focus();
        if (document.getElementById("filter")) focus();
        else if (place.value.page !== "fleet") {
          addEventListener("hashchange", () => requestAnimationFrame(focus), { once: true }); // when it is drawn
          go("/fleet");
        }
      }
    };
    document.addEventListener("keydown", hear, true);
    return () => document.removeEventListener("keydown", hear, true);
  }, []);
}

// --------------------------------------------------------------------------------------------------------- login

export function SignIn() {
  const [problem, set] = useState(null);
  const [busy, setBusy] = useState(false);
  const field = useRef(null);
  useEffect(() => field.current.focus(), []);
  const enter = async (event) => {
    event.preventDefault();
    setBusy(true);
    set(null);
    try {
      await signIn(field.current.value.trim());
    } catch (failed) {
      set(failed.status === 401 ? "That is no token of this hub, or it has expired." : failed.message);
      setBusy(false);
      field.current.select();
    }
  };
  return html`<main class="signin" id="main"><form onSubmit=${enter}>
    <input type="text" name="username" autocomplete="username" value="edge hub" hidden />
    <h1><${Mark} />edge hub</h1>
    <label for="token">Token</label>
    <input id="token" ref=${field} type="password" autocomplete="current-password" required spellcheck=${false} aria-describedby="token-help" />
    <button type="submit" class="primary" disabled=${busy}>${busy ? "Signing in…" : "Sign in"}</button>
    ${problem && html`<${Trouble} text=${problem} />`}
    <p id="token-help" class="soft">The administrator's token lies in the hub's data directory: <code>cat hub/token</code>. Others may have got one that only looks, or that
      also sends commands.</p>
  </form></main>`;
}
