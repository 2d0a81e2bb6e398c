// One device: what it runs and why, over time, what is desired of it, and what it was told.
import { html, useEffect, useMemo, useRef, useState } from "./bound.js";
import { devicePath, get, mayAdminister, mayOperate } from "./api.js";
import { Charts } from "./charts.js";
import { CommandDialog } from "./command.js";
import { AlertList, CommandList, Twin, Labels, RemoveDialog } from "./device-panels.js";
import { healthOf, row } from "./fleet.js";
import { absent, celsius, count, duration, millis, now, number, own, percent, plain, watts, windowOf } from "./format.js";
import { listen } from "./live.js";
import { Ago, Chip, Choice, Empty, Estimate, Health, Icon, Loading, Trouble, Words } from "./parts.js";
import { place } from "./shell.js";

const GATHER_MS = 400; // what comes within this time is read in one go
const WINDOWS = {
  "15min": { text: "15 min", s: 900, step_s: 10, again_s: 5 },
  "6h": { text: "6 h", s: 6 * 3600, step_s: 60, again_s: 30 },
  "7d": { text: "7 d", s: 7 * 86_400, step_s: 600, again_s: 300 },
};
const EVENTS = 500;

export function DevicePage() {
  const device = place.value.rest.slice(0, 2).join("/");
  const [detail, setDetail] = useState(null);
  const [problem, setProblem] = useState(null);
  const [commanding, command] = useState(false);
  const [removing, remove] = useState(false);
  const read = useRef(null);
  useEffect(() => {
    document.title = `${plain(device, 60)} · edge hub`;
    let over = false;
    let timer = null;
    let gone = false;
    setDetail(null);
    setProblem(null);
    read.current = async () => {
      timer = null;
      try {
        const found = await get(devicePath(device));
        if (!over) { setDetail(found); setProblem(null); }
      } catch (failed) {
        if (!over) setProblem(failed);
      }
    };
    const soon = () => { if (!gone) timer ??= setTimeout(read.current, GATHER_MS); };
    read.current();
    const ends = [
      listen("rows", (news) => {
        if (!news.rows.some((one) => one.device === device)) return;
        gone = false;
        soon();
      }),
      listen("gone", (news) => {
        if (!news.devices.includes(device)) return;
        gone = true;
        clearTimeout(timer);
        timer = null;
        remove(false);
        command(false);
        setProblem({ status: 404 });
      }),
      ...["event", "command", "alert"].map((topic) => listen(topic, (news) => news.device === device && soon())),
      listen("reread", soon),
    ];
    return () => {
      over = true;
      clearTimeout(timer);
      for (const end of ends) end();
    };
  }, [device]);

  const back = html`<a class="back" href="#/fleet"><${Icon} name="back" />Fleet</a>`;
  if (problem?.status === 404) {
    return html`${back}<${Empty} title="No such device"><p>The hub has not heard of <code><${Words} text=${device} /></code>. To let it in:</p><pre><code>edge hub enroll ${plain(device, 130)} -o device.toml</code></pre></${Empty}>`;
  }
  if (problem && !detail) return html`${back}<${Trouble} text=${problem.message} again=${() => read.current()} />`;
  if (!detail) return html`${back}<${Loading} />`;
  const view = detail.device;
  const one = row(device);
  return html`<div class="device">
    ${back}
    <header class="top"><h1><${Words} text=${view.device} most=${130} /></h1>
      <${Health} value=${one ? healthOf(one) : view.online ? "ok" : "offline"} />
      <p class="soft">${!view.last_seen ? "never heard of" : html`${view.online ? "heard of" : "last heard of"} <${Ago} at=${view.last_seen} />`}</p>
      <div class="actions">${mayOperate.value && html`<button type="button" class="primary" onClick=${() => command(true)}><${Icon} name="send" />Command…</button>`}
        ${mayAdminister.value && html`<button type="button" class="danger" onClick=${() => remove(true)}>Remove…</button>`}</div>
    </header>
    <${Facts} view=${view} detail=${detail} read=${() => read.current()} />
    <${Why} view=${view} />
    <div class="columns">
      <div><${OverTime} device=${device} estimated=${one?.power_estimated} /></div>
      <div class="side">
        <${AlertList} alerts=${detail.alerts ?? []} read=${() => read.current()} />
        <${Twin} detail=${detail} read=${() => read.current()} />
        <${CommandList} commands=${detail.commands ?? []} read=${() => read.current()} />
      </div>
    </div>
    ${commanding && html`<${CommandDialog} devices=${[device]} close=${() => { command(false); read.current(); }} />`}
    ${removing && html`<${RemoveDialog} device=${device} close=${() => remove(false)} />`}
  </div>`;
}

function Facts({ view, detail, read }) {
  const { birth } = view;
  return html`<dl class="facts">
    <div><dt>Profile</dt><dd><${Words} text=${birth?.profile} most=${64} /></dd></div>
    <div><dt>Board</dt><dd><${Words} text=${birth?.board} most=${64} /></dd></div>
    <div><dt>Software</dt><dd><${Words} text=${birth?.software} most=${64} /></dd></div>
    <div><dt>Started</dt><dd>${birth?.started ? html`<${Ago} at=${birth.started} />` : html`<span class="soft">not said</span>`}</dd></div>
    <div><dt>Messages</dt><dd>${count(view.messages ?? 0, "message")}${view.duplicates ? `, ${view.duplicates} came twice` : ""}</dd></div>
    <div class="wide"><dt>Labels</dt><dd><${Labels} device=${view.device} labels=${detail.labels ?? {}} read=${read} /></dd></div>
  </dl>`;
}

// ---------------------------------------------------------------------------------------------------------- why

function Why({ view }) {
  const models = Object.entries(view.state?.models ?? {});
  const stats = view.sample?.models ?? {};
  const conditions = newest(view);
  if (!models.length) {
    return html`<section class="card unsaid"><h2>Why it runs what it runs</h2><p class="soft">It has not said yet what it runs. ${view.enrolled && !view.last_seen
      ? html`It was given credentials but has never connected: <code>edge daemon run --config device.toml</code> on the device.`
      : "A model is served once its daemon has loaded a bundle."}</p></section>`;
  }
  return html`<section class="why" aria-label="Why it runs what it runs">
    <div class="running">${models.map(([name, model]) => html`<${WhyModel} key=${name} name=${name} model=${model} stats=${own(stats, name)} window_s=${view.sample?.window_s} on=${model.on ?? row(view.device)?.models?.find((one) => one.name === name)?.on} />`)}</div>
    <${Conditions} conditions=${conditions.values} at=${conditions.at} one=${row(view.device)} />
  </section>`;
}

function WhyModel({ name, model, stats, window_s, on }) {
  const { decision } = model;
  const because = decision?.because;
  const over = windowOf(window_s);
  const wished = decision && model.active && decision.variant !== model.active;
  const [told, ...weighed] = because?.text.split("; ") ?? []; // what bound, and what else was looked at
  return html`<article class="card because">
    <h2><bdi>${plain(name, 64)}</bdi></h2>
    <p class="runs"><strong><bdi>${plain(model.active ?? "nothing", 64)}</bdi></strong>${on && html` on <${Chip}><bdi>${plain(on, 32)}</bdi></${Chip}>`}
      ${model.pinned && html`<${Chip} kind="accent"><${Icon} name="pin" /> pinned by ${model.pinned_by ?? "somebody"}</${Chip}>`}${model.paused && html`<${Chip} kind="warning">paused</${Chip}>`}
      ${decision && html`<span class="soft">decided <${Ago} at=${decision.at} /></span>`}</p>
    ${because && html`<p class="sentence"><${Chip} title="what bound">${plain(because.code, 32)}</${Chip}> <${Words} text=${told} most=${1000} /></p>`}
    ${weighed.length > 0 && html`<p class="soft"><${Words} text=${weighed.join("; ")} most=${1000} /></p>`}
    ${wished && html`<p class="soft">Decided is <bdi>${plain(decision.variant, 64)}</bdi>; the app has not switched yet.</p>`}
    <p class="soft">${because?.runner_up && !because.text.includes(because.runner_up) && html`Next best: <bdi>${plain(because.runner_up, 64)}</bdi>${!absent(because.margin) ? `, worth ${number(because.margin, 2)} points a request less` : ""}. `}
      Wanted: ${wanted(model.preference)}${model.wished_by ? html` (<${Words} text=${model.wished_by} />)` : ""}.</p>
    <dl class="stats"><div><dt>p95</dt><dd>${millis(stats?.p95_ms)}</dd></div><div><dt>p50</dt><dd>${millis(stats?.p50_ms)}</dd></div><div><dt>calls</dt><dd>${stats?.calls ?? 0}</dd></div>
      <div><dt>late</dt><dd>${stats?.calls ? percent((100 * (stats.late ?? 0)) / stats.calls, 1) : percent(null)}</dd></div><div><dt>failed</dt><dd>${stats?.failed ?? 0}</dd></div>${over && html`<div class="over"><dt>window</dt><dd>${over}</dd></div>`}</dl>
  </article>`;
}

const LIMIT_WORDS = {
  max_latency_ms: (v) => `p95 ≤ ${millis(v)}`, deadline_ms: (v) => `at the hub within ${millis(v)}`, min_accuracy: (v) => `quality ≥ ${number(v, 1)} points`,
  max_temp_c: (v) => `≤ ${celsius(v, 0)}`, battery_until: (v) => `battery until ${plain(v, 40)}`, battery_for_s: (v) => `battery for ${duration(v)}`, max_power_w: (v) => `≤ ${watts(v)}`,
};

function wanted(preference) {
  const limits = Object.entries(preference ?? {}).filter(([key, value]) => LIMIT_WORDS[key] && !absent(value));
  return [preference?.mode ?? "balanced", ...limits.map(([key, value]) => LIMIT_WORDS[key](value))].join(", ");
}

function newest(view) {
  const { state, sample } = view;
  const found = !sample || (state && state.at >= sample.at) ? state : sample;
  return { values: found?.conditions ?? {}, at: found?.at };
}

function Conditions({ conditions, at, one }) {
  const power = conditions.power_w ?? one?.power_w;
  const estimated = absent(conditions.power_w) && !absent(power);
  const rows = [
    ["Temperature", html`${celsius(conditions.temp_c)}${conditions.temp_limit_c ? html` <span class="soft">of ${celsius(conditions.temp_limit_c, 0)}</span>` : ""}`],
    ["Throttle", conditions.throttle ?? "none"],
    ["Battery", absent(conditions.battery_pct) ? "none" : html`${percent(conditions.battery_pct)}${conditions.charging ? " charging" : ""}`],
    ["Power", html`${watts(power)} ${estimated && html`<${Estimate} />`}`],
    ["CPU load", percent(conditions.load_pct)],
    ["Round trip", millis(conditions.rtt_ms)],
  ];
  return html`<article class="card conditions"><h2>Conditions <span class="soft"><${Ago} at=${at} /></span>${conditions.played && html` <${Chip} kind="warning" title="A demonstration or test invents these values">played</${Chip}>`}</h2>
    <dl>${rows.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}</dl></article>`;
}

// ---------------------------------------------------------------------------------------------------- over time

function OverTime({ device, estimated }) {
  const [key, choose] = useState("15min");
  const [found, set] = useState(null);
  const [problem, setProblem] = useState(null);
  const [marked, mark] = useState(null);
  const frame = WINDOWS[key];
  useEffect(() => {
    let over = false;
    let last = 0;
    const read = async () => {
      last = Date.now();
      const until = now.value;
      const since = until - frame.s;
      try {
        const [history, page] = await Promise.all([
          get(devicePath(device, `/history?since=${since}&until=${until}&step_s=${frame.step_s}`)),
          get(`/events?device=${encodeURIComponent(device)}&limit=${EVENTS}`),
        ]);
        if (over) return;
        const events = page.events.map((one) => ({ id: one.id, ...one.event })).filter((one) => one.at >= since);
        set({ key, history, events, since, until });
        setProblem(null);
      } catch (failed) {
        if (!over) setProblem(failed.message);
      }
    };
    read();
    const due = () => !document.hidden && Date.now() - last > frame.again_s * 900;
    const ends = [listen("rows", (news) => due() && news.rows.some((one) => one.device === device) && read()), listen("event", (news) => news.device === device && read()), listen("reread", read)];
    const timer = setInterval(() => due() && read(), frame.again_s * 2000);
    return () => {
      over = true;
      clearInterval(timer);
      for (const end of ends) end();
    };
  }, [device, key]);
  const switches = useMemo(() => (found?.events ?? []).filter((one) => one.kind === "switch"), [found]);
  return html`<section class="panel overtime"><header><h2>Over time</h2><${Choice} label="Window" among=${Object.entries(WINDOWS).map(([name, { text }]) => [name, text])} value=${key} choose=${choose} /></header>
    ${problem && html`<${Trouble} text=${problem} />`}
    ${found ? html`<div class=${found.key === key ? "" : "stale"}><${Charts} history=${found.history} since=${found.since} until=${found.until} switches=${switches} marked=${marked} estimated=${estimated} />
      <${Switches} events=${found.events} frame=${WINDOWS[found.key]} mark=${mark} /></div>` : html`<${Loading} lines=${10} />`}
  </section>`;
}

function Switches({ events, frame, mark }) {
  const list = [...events].reverse().slice(0, 100);
  return html`<h3 class="over">What happened in the last ${frame.text}</h3>
    ${list.length === 0 ? html`<p class="soft">Nothing that it told of: no switch, no trouble.</p>` : html`<ol class="events">${list.map((one) => html`<li key=${one.id} tabindex="0" onMouseEnter=${() => mark(one.id)} onMouseLeave=${() => mark(null)} onFocus=${() => mark(one.id)} onBlur=${() => mark(null)}>
      <span class="when"><${Ago} at=${one.at} /></span>
      <span class="what">${one.kind === "switch" ? html`<bdi>${plain(one.old ?? "nothing", 48)}</bdi> → <strong><bdi>${plain(one.new, 48)}</bdi></strong>` : html`<strong>${plain(one.kind, 40)}</strong>`}
        <span class="soft">${one.model ? html` <bdi>${plain(one.model, 48)}</bdi>` : ""}${one.took_ms ? ` in ${millis(one.took_ms)}` : ""}</span></span>
      ${one.because ? html`<span class="reason"><${Chip}>${plain(one.because.code, 32)}</${Chip}> <${Words} text=${one.because.text} most=${1000} /></span>` : one.text ? html`<span class="reason"><${Words} text=${one.text} most=${1000} /></span>` : ""}
    </li>`)}</ol>`}`;
}
