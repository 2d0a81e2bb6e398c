// The fleet as this page knows it: rows by device, kept up to date by the stream, and what follows from them.
import { batch, computed, signal } from "./bound.js";
import { get } from "./api.js";
import { absent, hubSays } from "./format.js";
import { listen } from "./live.js";

const FILTER_AGAIN_MS = 5000; // a filtered list is asked for anew: whether a changed device still fits, the hub knows
const GRAVITY = { critical: 3, warning: 2, info: 1 };

const rows = new Map();
let matching = null; // a Set of device names while a filter is on
let whole = false; // all devices were read once, not only those of a filter
let asked = 0;

export const changes = signal(0); // counts what rows hold anew
export const members = signal(0); // counts changes of which devices there are, or fit
export const loaded = signal(false);
export const problem = signal(null); // of reading the rows
export const filter = signal("");
export const filterProblem = signal(null);
export const filtering = signal(false);
export const openAlerts = signal(new Map()); // by id

// By device: the worst severity among its open alerts.
export const severities = computed(() => {
  const found = new Map();
  for (const alert of [...openAlerts.value.values()].sort((a, b) => gravity(a) - gravity(b))) found.set(alert.device, alert.severity);
  return found;
});

export function gravity(alert) {
  return GRAVITY[alert.severity] ?? 0;
}

export function row(device) {
  return rows.get(device);
}

export function total() {
  return rows.size;
}

export function shown() {
  if (!matching) return [...rows.values()];
  const found = [];
  for (const device of matching) {
    const known = rows.get(device);
    if (known) found.push(known);
  }
  return found;
}

export function healthOf(one) {
  if (!one.online) return "offline";
  const severity = severities.value.get(one.device);
  if (severity === "critical") return "critical";
  return severity || one.alerts > 0 ? "warning" : "ok";
}

// The model that works most stands for the device in the table.
export function leading(one) {
  const models = one.models ?? [];
  let best = models[0];
  for (const model of models) if ((model.calls ?? 0) > (best.calls ?? 0)) best = model;
  return best;
}

export function totals(list) {
  const health = { ok: 0, warning: 0, critical: 0, offline: 0 };
  const variants = new Map();
  const accelerators = new Map();
  const profiles = new Map();
  const add = (counts, name) => counts.set(name, (counts.get(name) ?? 0) + 1);
  for (const one of list) {
    health[healthOf(one)] += 1;
    if (one.profile) add(profiles, one.profile);
    if (!one.online) continue; // what it ran when it was last heard of is no news of now
    const on = new Set();
    for (const model of one.models ?? []) {
      if (!model.variant) continue;
      add(variants, `${model.name}/${model.variant}`);
      if (model.on) on.add(model.on);
    }
    for (const name of on) add(accelerators, name);
  }
  const sorted = (counts) => [...counts].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
  return { health, variants: sorted(variants), accelerators: sorted(accelerators), profiles: sorted(profiles) };
}

export async function readRows() {
  const mine = ++asked;
  const query = filter.value.trim();
  filtering.value = true;
  try {
    // A filter narrows what is shown; what is known of the others stays.
    const found = await get(query ? `/rows?query=${encodeURIComponent(query)}` : "/rows");
    if (mine !== asked) return;
    batch(() => {
      if (!query) rows.clear();
      whole ||= !query;
      matching = query ? new Set(found.rows.map((one) => one.device)) : null;
      filterProblem.value = null;
      problem.value = null;
      take(found);
    });
    if (!whole) readAll();
  } catch (failed) {
    if (mine !== asked) return;
    if (query && failed.status === 400) {
      filterProblem.value = failed.message;
      if (!whole) readAll();
    } else problem.value = failed.message;
  } finally {
    if (mine === asked) filtering.value = false;
  }
}

// Beside a filter, so that its result can be told of how many, and one that makes no sense leaves no empty page.
async function readAll() {
  whole = true;
  try {
    const found = await get("/rows");
    batch(() => take(found));
  } catch (failed) {
    whole = false;
    problem.value = failed.message;
  }
}

function take(found) {
  hubSays(found.at);
  for (const one of found.rows) rows.set(one.device, one);
  loaded.value = true;
  members.value += 1;
  changes.value += 1;
}

export async function readAlerts() {
  const found = await get("/alerts?open=1&limit=1000");
  openAlerts.value = new Map(found.alerts.map((alert) => [alert.id, alert]));
}

export function forget() {
  rows.clear();
  matching = null;
  whole = false;
  loaded.value = false;
  openAlerts.value = new Map();
  filter.value = "";
}

let again = null;

export function follow() {
  const ends = [
    listen("rows", (news) => {
      let joined = false;
      for (const one of news.rows) {
        joined ||= !rows.has(one.device);
        rows.set(one.device, one);
      }
      batch(() => {
        changes.value += 1;
        if (joined && !matching) members.value += 1;
      });
      if (matching && !again && !document.hidden) {
        again = setTimeout(() => {
          again = null;
          if (matching) readRows();
        }, FILTER_AGAIN_MS);
      }
    }),
    listen("gone", ({ devices }) => {
      const left = new Set(devices);
      for (const device of left) rows.delete(device);
      batch(() => {
        members.value += 1;
        changes.value += 1;
        openAlerts.value = new Map([...openAlerts.value].filter(([, alert]) => !left.has(alert.device)));
      });
    }),
    listen("alert", (alert) => {
      const next = new Map(openAlerts.value);
      if (absent(alert.ended)) next.set(alert.id, alert);
      else next.delete(alert.id);
      openAlerts.value = next;
    }),
    listen("reread", () => {
      readRows();
      readAlerts().catch(() => {});
    }),
  ];
  return () => {
    clearTimeout(again);
    again = null;
    for (const end of ends) end();
  };
}
