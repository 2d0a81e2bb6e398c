// Latency of the last minutes for the rows that are in view, asked for a few at a time and kept for a while.
import { effect, signal } from "./bound.js";
import { devicePath, get, session } from "./api.js";
import { now } from "./format.js";

const SPARK_S = 900;
const STEP_S = 30;
const FRESH_S = 60;
const AT_ONCE = 2; // a browser keeps six connections to a hub, one of which is the stream
const MOST = 400;

const kept = new Map(); // device -> {values, read}; the oldest first
let wanted = [];
let running = 0;

export const drawn = signal(0);

effect(() => {
  if (session.value) return;
  wanted = [];
  kept.clear();
});

export function spark(device) {
  return kept.get(device)?.values;
}

export function want(devices) {
  wanted = devices.filter((device) => {
    const known = kept.get(device);
    return !known || now.value - known.read > FRESH_S;
  });
  while (running < AT_ONCE && wanted.length) next();
}

async function next() {
  const device = wanted.shift();
  running += 1;
  const until = now.value;
  try {
    const found = await get(devicePath(device, `/history?since=${until - SPARK_S}&until=${until}&step_s=${STEP_S}`));
    keep(device, laid(found.points, until, found.step_s));
  } catch {
    keep(device, null); // a line less; the row itself says what is wrong
  }
  running -= 1;
  drawn.value += 1;
  if (wanted.length) next();
}

// One place per step, null where nothing was reported.
function laid(points, until, step_s) {
  const values = new Array(Math.max(2, Math.round(SPARK_S / step_s))).fill(null);
  for (const point of points) {
    const index = values.length - 1 - Math.floor((until - point.at) / step_s);
    if (index >= 0 && index < values.length) values[index] = point.p95_ms ?? null;
  }
  return values;
}

function keep(device, values) {
  kept.delete(device);
  kept.set(device, { values, read: now.value });
  if (kept.size > MOST) kept.delete(kept.keys().next().value);
}

// The path of an SVG of this size, from the least to the most value but never a mole-hill for a mountain; a gap where
// there is no value.
export function path(values, width, height) {
  const known = values.filter((value) => value !== null);
  const most = Math.max(...known);
  const span = Math.max(most - Math.min(...known), most * 0.25) || 1;
  let line = "";
  let pen = false;
  values.forEach((value, index) => {
    if (value === null) { pen = false; return; }
    const x = (index / (values.length - 1)) * width;
    const y = 1.5 + ((most - value) / span) * (height - 3);
    line += `${pen ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`;
    if (!pen && (index === values.length - 1 || values[index + 1] === null)) line += "h.01"; // a point alone
    pen = true;
  });
  return line;
}
