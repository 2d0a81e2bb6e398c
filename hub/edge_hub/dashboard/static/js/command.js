// Commands: the dialog that makes one, and what became of those that were sent.
import { html, signal, useMemo, useState } from "./bound.js";
import { ask, get } from "./api.js";
import { row } from "./fleet.js";
import { byName, count, plain } from "./format.js";
import { listen } from "./live.js";
import { Dialog, Trouble, say } from "./parts.js";

const KINDS = {
  prefer: "Prefer: what to maximise, and limits",
  pin: "Pin: run one variant whatever the conditions",
  unpin: "Unpin: let the policy decide again",
  pause: "Pause switching",
  resume: "Resume switching",
  measure: "Measure: time variants on the device",
  report: "Report the state now",
  configure: "Configure: how often it reports",
  explain: "Explain the last decisions",
};
const OF_VARIANT = new Set(["pin", "measure"]); // which need a model, too
const OF_MODEL = new Set([...OF_VARIANT, "prefer", "unpin", "explain"]); // of all models, where none is chosen
const MODES = ["accuracy", "balanced", "speed", "battery"];
export const LIMITS = [
  ["max_latency_ms", "Latency at most", "ms", { min: 0.1, max: 86_400_000 }],
  ["min_accuracy", "Quality at least", "points", { min: 0, max: 100 }],
  ["max_temp_c", "Temperature at most", "°C", { min: -100, max: 250 }],
  ["max_power_w", "Power at most", "W", { min: 0.01, max: 10_000 }],
  ["deadline_ms", "Answer at the hub within", "ms", { min: 0.1, max: 86_400_000 }],
  ["battery_until", "Battery lasts until", "hh:mm", null],
];
const MOST_NAMED = 1000; // the API takes so many by name; more are sent in turns
const EXPIRES = [[60, "1 min"], [600, "10 min"], [3600, "1 h"], [86_400, "1 day"], [7 * 86_400, "7 days"]];

export function CommandDialog({ devices, close }) {
  const models = useMemo(() => modelsOf(devices), [devices, served.value]);
  const [kind, setKind] = useState("prefer");
  const [model, setModel] = useState("");
  const [variant, setVariant] = useState("");
  const [mode, setMode] = useState("balanced");
  const [limits, setLimits] = useState({});
  const [every, setEvery] = useState({});
  const [expires, setExpires] = useState(60);
  const [problem, setProblem] = useState(null);
  const [busy, setBusy] = useState(false);
  const needsModel = OF_VARIANT.has(kind);
  const chosen = model || (needsModel ? Object.keys(models)[0] ?? "" : "");
  const variants = models[chosen] ?? [];
  const picked = variant && variants.includes(variant) ? variant : kind === "pin" ? variants[0] ?? "" : "";
  const submit = async (event) => {
    event.preventDefault();
    setBusy(true);
    setProblem(null);
    try {
      await send(devices, made({ kind, model: chosen, variant: picked, mode, limits, every }), expires);
      close();
    } catch (failed) {
      setProblem(failed.message);
      setBusy(false);
    }
  };
  return html`<${Dialog} title=${`Command to ${devices.length === 1 ? plain(devices[0], 60) : count(devices.length, "device")}`} close=${close}>
    <form class="form" onSubmit=${submit}>
      <label>Command<select value=${kind} onChange=${(e) => setKind(e.target.value)}>${Object.entries(KINDS).map(
        ([key, text]) => html`<option key=${key} value=${key}>${text}</option>`)}</select></label>
      ${OF_MODEL.has(kind) && html`<label>Model<select value=${chosen} onChange=${(e) => setModel(e.target.value)}>
        ${!needsModel && html`<option value="">all models</option>`}${Object.keys(models).map((name) => html`<option key=${name} value=${name}>${plain(name, 64)}</option>`)}</select></label>`}
      ${OF_VARIANT.has(kind) && html`<label>Variant<select value=${picked} onChange=${(e) => setVariant(e.target.value)}>
        ${kind === "measure" && html`<option value="">all variants</option>`}${variants.map((name) => html`<option key=${name} value=${name}>${plain(name, 64)}</option>`)}</select></label>`}
      ${kind === "prefer" && html`<${PreferenceFields} mode=${mode} setMode=${setMode} limits=${limits} setLimits=${setLimits} />`}
      ${kind === "configure" && html`<div class="pair">
        <label>Telemetry every (s)<input type="number" min="1" max="86400" step="any" onInput=${(e) => setEvery({ ...every, telemetry_every_s: e.target.value })} /></label>
        <label>Sample every (s)<input type="number" min="1" max="3600" step="any" onInput=${(e) => setEvery({ ...every, sample_every_s: e.target.value })} /></label></div>`}
      <label>Give up after<select value=${expires} onChange=${(e) => setExpires(Number(e.target.value))}>${EXPIRES.map(
        ([s, text]) => html`<option key=${s} value=${s}>${text}</option>`)}</select><small>A device that is away gets it when it is back, unless this is over by then.</small></label>
      ${problem && html`<${Trouble} text=${problem} />`}
      <footer><button type="button" class="quiet" onClick=${close}>Cancel</button>
        <button type="submit" class="primary" disabled=${busy || (kind === "pin" && !picked)}>Send to ${count(devices.length, "device")}</button></footer>
    </form></${Dialog}>`;
}

export function PreferenceFields({ name = "mode", mode, setMode, limits, setLimits }) {
  return html`<fieldset class="modes"><legend>Maximise</legend>${MODES.map((one) => html`<label key=${one}>
      <input type="radio" name=${name} value=${one} checked=${mode === one} onChange=${() => setMode(one)} /><span>${one}</span></label>`)}</fieldset>
    <div class="pair">${LIMITS.map(([key, text, unit, bounds]) => html`<label key=${key}>${text} (${unit})<input type=${bounds ? "number" : "text"} step="any" ...${bounds ?? { maxlength: 40 }}
      placeholder="no limit" value=${limits[key] ?? ""} onInput=${(e) => setLimits({ ...limits, [key]: e.target.value })} /></label>`)}</div>`;
}

export function preferenceOf(mode, limits) {
  const found = { mode };
  for (const [key, , , bounds] of LIMITS) {
    const given = String(limits[key] ?? "").trim();
    if (given) found[key] = bounds ? Number(given) : given;
  }
  return found;
}

function made({ kind, model, variant, mode, limits, every }) {
  const command = { name: kind };
  if (model && OF_MODEL.has(kind)) command.model = model;
  if (variant && OF_VARIANT.has(kind)) command.variant = variant;
  if (kind === "prefer") command.preference = preferenceOf(mode, limits);
  if (kind === "configure") for (const [key, value] of Object.entries(every)) if (value) command[key] = Number(value);
  return command;
}

// What there is to choose from: the models of these devices, with the variants that run on any device that is known.
function modelsOf(devices) {
  const found = byName();
  for (const device of devices) {
    for (const model of row(device)?.models ?? []) {
      found[model.name] ??= new Set();
      if (model.variant) found[model.name].add(model.variant);
    }
  }
  for (const [name, known] of Object.entries(served.value)) if (found[name]) for (const id of known) found[name].add(id);
  readServed();
  for (const name of Object.keys(found)) found[name] = [...found[name]].sort();
  return found;
}

// Variants by model name, of the whole fleet; read once, when somebody first wants to command.
const served = signal(byName());
let reading = false;

function readServed() {
  if (reading) return;
  reading = true;
  get("/models").then((found) => {
    const all = byName();
    for (const model of found.models) all[model.name] = [...(all[model.name] ?? []), ...model.variants.map((one) => one.id)];
    served.value = all;
  }, () => { reading = false; });
}

// ------------------------------------------------------------------------------------------------------- sending

async function send(devices, command, expires_s) {
  const ids = {};
  for (let from = 0; from < devices.length; from += MOST_NAMED) {
    const some = devices.slice(from, from + MOST_NAMED);
    try {
      Object.assign(ids, (await ask("POST", "/commands", { devices: some, command, expires_s })).ids);
    } catch (failed) {
      if (from) throw new Error(`It was sent to the first ${from} devices, then: ${failed.message}`);
      throw failed;
    }
  }
  follow(Object.values(ids), command.name, expires_s);
}

// Says how it ended, once every device has answered or the time is over. What came of each is on the device's page.
function follow(ids, name, expires_s) {
  const left = new Set(ids);
  const ended = {};
  say(`${name}: sent to ${count(ids.length, "device")}.`);
  const finish = () => {
    clearTimeout(timer);
    stop();
    const parts = Object.entries(ended).map(([state, n]) => `${n} ${state}`);
    if (left.size) parts.push(`${left.size} without an answer yet`);
    const good = Object.keys(ended).every((state) => state === "done") && !left.size;
    say(`${name}: ${parts.join(", ")}.`, good ? "ok" : "bad");
  };
  const stop = listen("command", (one) => {
    if (one.state === "pending" || !left.delete(one.id)) return;
    ended[one.state] = (ended[one.state] ?? 0) + 1;
    if (!left.size) finish();
  });
  const timer = setTimeout(finish, Math.min(expires_s, 60) * 1000 + 2000);
}
