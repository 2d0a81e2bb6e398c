// The fleet: what it runs in sum, a filter, the table, and commands to whatever is selected.
import { html, useEffect, useMemo, useRef, useState } from "./bound.js";
import { mayOperate } from "./api.js";
import { changes, filter, filterProblem, filtering, loaded, members, problem, readRows, severities, shown, total, totals } from "./fleet.js";
import { COLUMNS, Table, inOrder, turned } from "./fleet-table.js";
import { CommandDialog } from "./command.js";
import { count, number, plain } from "./format.js";
import { Dialog, Empty, HEALTH, Icon, Loading, Trouble, Words } from "./parts.js";
import { place, queryLink } from "./shell.js";

const TYPING_MS = 250;
const SORT_AGAIN_MS = 5000;
const SUM_AGAIN_MS = 1000;
const LINES = 4;

export function FleetPage() {
  const [selected, setSelected] = useState(new Set());
  const [commanding, command] = useState(false);
  const [sort, setSort] = useState({ key: "device", down: false });
  const area = useRef(null);
  const [again, sortAgain] = useState(0);
  const devices = useMemo(() => inOrder(shown(), sort), [members.value, sort, again]);
  useEffect(() => {
    // What is no longer shown is no longer meant: a command must not reach what nobody sees.
    const there = new Set(devices);
    setSelected((old) => ([...old].every((one) => there.has(one)) ? old : new Set([...old].filter((one) => there.has(one)))));
  }, [devices]);
  useEffect(() => {
    // Not under somebody's hand: a row that moves while it is pointed at is the wrong row.
    const timer = setInterval(() => {
      if (!document.hidden && !area.current?.matches(":hover, :focus-within")) sortAgain((n) => n + 1);
    }, SORT_AGAIN_MS);
    return () => clearInterval(timer);
  }, []);
  useEffect(() => {
    const q = place.value.query.get("q") ?? "";
    if (q !== filter.value) { filter.value = q; readRows(); }
  }, [place.value]);
  useEffect(() => { document.title = "Fleet · edge hub"; }, []);

  const known = total();
  if (problem.value && !loaded.value) return html`<${Head} /><${Trouble} text=${problem.value} again=${readRows} />`;
  if (!loaded.value) return html`<${Head} /><${Loading} lines=${12} />`;
  if (known === 0 && !filter.value) return html`<${Head} /><${NoDevices} />`;
  return html`<div class="fleet">
    <${Head} devices=${devices} />
    <${Totals} />
    <div class="bar">
      <${Filter} of=${known} found=${devices.length} />
      <${Sort} sort=${sort} setSort=${setSort} />
      <div class="chosen" hidden=${!mayOperate.value}>
        <span aria-live="polite">${selected.size ? `${number(selected.size)} selected` : ""}</span>
        <button type="button" class="primary" disabled=${!selected.size} onClick=${() => command(true)}><${Icon} name="send" />Command…</button>
        <button type="button" class="quiet" disabled=${!selected.size} onClick=${() => setSelected(new Set())}>Clear</button>
      </div>
    </div>
    <div ref=${area}>
      <${Table} devices=${devices} sort=${sort} setSort=${setSort} selected=${selected} setSelected=${setSelected} command=${() => command(true)} />
      ${devices.length === 0 && html`<${Empty} title="No device fits this filter"><p><button type="button" onClick=${() => ask("")}>Show all ${number(known)}</button></p></${Empty}>`}
    </div>
    ${commanding && html`<${CommandDialog} devices=${[...selected]} close=${() => command(false)} />`}
  </div>`;
}

// Where there is no room for heads of columns.
function Sort({ sort, setSort }) {
  const ways = COLUMNS.filter((column) => column.of);
  return html`<label class="sort"><span class="unseen">Sort by</span><select value=${sort.key} onChange=${(event) => setSort(turned({}, ways.find((one) => one.key === event.target.value)))}>
    ${ways.map((one) => html`<option key=${one.key} value=${one.key}>by ${one.title.toLowerCase()}</option>`)}</select></label>`;
}

function Head({ devices }) {
  changes.value;
  const online = devices ? shown().reduce((sum, one) => sum + (one.online ? 1 : 0), 0) : null;
  return html`<header class="top"><h1>Fleet</h1>${devices && html`<p class="soft">${count(devices.length, "device")}, ${number(online)} online</p>`}</header>`;
}

function NoDevices() {
  return html`<${Empty} title="No devices yet">
    <p>Give a device credentials, on the machine of the hub:</p>
    <pre><code>edge hub enroll acme/cam1 -o device.toml --model digits=/opt/models/digits.edge</code></pre>
    <p>and start its daemon with that file, on the device:</p>
    <pre><code>edge daemon run --config device.toml</code></pre>
    <p>It appears here by itself. To look around without one: <code>edge hub simulate --devices 200</code>.</p>
  </${Empty}>`;
}

// ------------------------------------------------------------------------------------------------------- totals

function Totals() {
  const [, sum] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => { if (!document.hidden) sum((n) => n + 1); }, SUM_AGAIN_MS);
    return () => clearInterval(timer);
  }, []);
  members.value; severities.value; // what the sums are of
  const { health, variants, accelerators, profiles } = totals(shown());
  const all = Object.values(health).reduce((a, b) => a + b, 0);
  const ways = { offline: "online = false", warning: "alerts > 0", critical: "alerts > 0", ok: "online = true and alerts = 0" };
  return html`<section class="totals" aria-label="Totals of what is shown">
    <div class="card"><h2>Health</h2>
      <div class="stack" aria-hidden="true">${Object.entries(health).filter(([, n]) => n > 0).map(([key, n]) => html`<i key=${key} class=${key} style=${{ flexGrow: n }}></i>`)}</div>
      <ul class="healths">${Object.entries(health).map(([key, n]) => html`<li key=${key}><button type="button" class=${`line ${key}`} onClick=${() => ask(ways[key])}
        ><i aria-hidden="true"></i>${HEALTH[key]}<b>${number(n)}</b></button></li>`)}</ul></div>
    <${Shares} title="Active variants" list=${variants} of=${all} query=${(name) => `variant = ${name.split("/")[1]}`} />
    <${Shares} title="Accelerators in use" list=${accelerators} of=${all} query=${(name) => `on = ${quoted(name)}`} none="No device says what it computes on" />
    <${Shares} title="Profiles" list=${profiles} of=${all} query=${(name) => `profile = ${name}`} />
  </section>`;
}

function Shares({ title, list, of, query, none = "Nothing yet" }) {
  const [open, show] = useState(false);
  const few = list.length > LINES ? list.slice(0, LINES - 1) : list;
  const line = ([name, n]) => html`<li key=${name}><button type="button" class="share" onClick=${() => { show(false); ask(query(name)); }} title=${plain(name)}>
    <bdi>${plain(name, 64)}</bdi><b>${number(n)}</b><i aria-hidden="true"><i style=${{ width: `${of ? (100 * n) / of : 0}%` }}></i></i></button></li>`;
  return html`<div class="card"><h2>${title}</h2>
    ${list.length === 0 ? html`<p class="soft">${none}</p>` : html`<ul>${few.map(line)}</ul>`}
    ${list.length > LINES && html`<button type="button" class="link more" onClick=${() => show(true)}>${list.length - few.length} more</button>`}
    ${open && html`<${Dialog} title=${title} close=${() => show(false)}><ul class="card flat">${list.map(line)}</ul></${Dialog}>`}</div>`;
}

function quoted(name) {
  return /^[A-Za-z0-9][A-Za-z0-9._-]*$/.test(name) ? name : JSON.stringify(name);
}

// ------------------------------------------------------------------------------------------------------- filter

function ask(query) {
  filter.value = query;
  history.replaceState(null, "", query ? queryLink(query) : "#/fleet");
  readRows();
}

const EXAMPLES = [
  ["profile = rpi4 and temp_c > 70", "hot Raspberry Pis"],
  ["online = false", "devices that are away"],
  ["battery_pct < 20 and not charging", "soon without power"],
  ["late_pct > 5 or p95_ms > 200", "too slow"],
  ["on = gpu", "what really computes on a GPU"],
  ["variant = small-int8 or pinned", "one variant, or held by somebody"],
  ["device ~ \"acme/cam*\"", "by name, with * for anything"],
  ["label.site = berlin", "by a label"],
];
const FIELDS = [
  ["device, tenant, profile, board, model, variant, on, throttle, software", "text: = != ~ (with *)"],
  ["temp_c, headroom_c, battery_pct, power_w, rtt_ms, p95_ms, late_pct, quality_drop, alerts, switches_h, age_s, clock_skew_s", "numbers: = != < <= > >="],
  ["online, charging, pinned, in_step, version_skew", "true or false; alone means true"],
  ["label.KEY", "an operator's label"],
];

function Filter({ of, found }) {
  const [help, showHelp] = useState(false);
  const field = useRef(null);
  const typing = useRef(null);
  useEffect(() => { if (field.current && document.activeElement !== field.current) field.current.value = filter.value; }, [filter.value]);
  useEffect(() => () => clearTimeout(typing.current), []);
  const typed = (event) => {
    clearTimeout(typing.current);
    const text = event.target.value;
    typing.current = setTimeout(() => ask(text), TYPING_MS);
  };
  const hear = (event) => {
    if (event.key === "Enter") { clearTimeout(typing.current); ask(field.current.value); }
    else if (event.key === "Escape") { field.current.value = ""; clearTimeout(typing.current); ask(""); field.current.blur(); }
    else if (event.key === "ArrowDown") { event.preventDefault(); document.querySelector(".table")?.focus(); }
  };
  const take = (query) => { showHelp(false); field.current.value = query; ask(query); };
  const wrong = filterProblem.value;
  return html`<div class=${`filter ${wrong ? "wrong" : ""}`} role="search">
    <label for="filter" class="unseen">Filter the fleet</label>
    <${Icon} name="search" />
    <input id="filter" ref=${field} type="text" placeholder="Filter: profile = rpi4 and temp_c > 70" autocomplete="off" autocapitalize="off" spellcheck=${false} maxlength="2000"
      aria-invalid=${wrong ? "true" : null} aria-describedby="filter-says" onInput=${typed} onKeyDown=${hear} />
    <span class="found" aria-live="polite">${filtering.value && filter.value ? "…" : filter.value ? `${number(found)} of ${number(of)}` : ""}</span>
    <kbd aria-hidden="true">/</kbd>
    <button type="button" class="quiet square" title="How to filter" aria-label="How to filter" onClick=${() => showHelp(true)}><${Icon} name="help" /></button>
    <p id="filter-says" class="says" role=${wrong ? "alert" : null} hidden=${!wrong}><${Words} text=${wrong ?? ""} most=${300} /></p>
    ${help && html`<${Dialog} title="How to filter" close=${() => showHelp(false)}>
      <p>Compare a field with a value; join with <code>and</code>, <code>or</code>, <code>not</code> and brackets. A device without the value does not fit.</p>
      <ul class="examples">${EXAMPLES.map(([query, means]) => html`<li key=${query}><button type="button" class="link" onClick=${() => take(query)}><code>${query}</code></button><span class="soft">${means}</span></li>`)}</ul>
      <table class="plain"><thead><tr><th scope="col">Fields</th><th scope="col">Compare</th></tr></thead><tbody>${FIELDS.map(
        ([names, how]) => html`<tr key=${names}><td><code>${names}</code></td><td>${how}</td></tr>`)}</tbody></table>
      <p class="soft">The same language works in commands and alert rules. Numbers of calls and latencies are those of the device's newest report.</p>
    </${Dialog}>`}
  </div>`;
}
