// Values as people read them. Everything a device says goes through `plain` before it is shown.
import { signal } from "./bound.js";

export const NOTHING = "–";
const MAX_SHOWN = 200;

// By how much the hub's clock is ahead of this machine's, in seconds; ages are told by the hub's.
let ahead_s = 0;
export const now = signal(Date.now() / 1000);

export function hubSays(at) {
  ahead_s = at - Date.now() / 1000;
  now.value = at;
}

export function tick() {
  now.value = Date.now() / 1000 + ahead_s;
}

// A device may call a model `constructor`, which every plain object has: what is kept by names of theirs is kept in these.
export function byName(entries = {}) {
  return Object.assign(Object.create(null), entries);
}

// Of an object that came as JSON.
export function own(object, name) {
  return object && Object.hasOwn(object, name) ? object[name] : undefined;
}

// JSON has null for what is not known, or leaves it out.
export function absent(value) {
  return value === null || value === undefined;
}

// Control characters and those that turn the direction of text around become visible marks: a name can neither hide nor
// rearrange what stands beside it. The length is cut, for 10 kB of a name make no page unusable.
const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]/gu;

export function plain(value, most = MAX_SHOWN) {
  if (absent(value)) return NOTHING;
  let text = typeof value === "string" ? value : JSON.stringify(value);
  if (text.length > most) text = `${text.slice(0, most)}…`;
  return text.replace(UNSEEN, (char) => `⟨U+${char.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`);
}

const numbers = new Map();

export function number(value, digits = 0) {
  if (!Number.isFinite(value)) return NOTHING;
  if (!numbers.has(digits)) {
    numbers.set(digits, new Intl.NumberFormat("en", { minimumFractionDigits: digits, maximumFractionDigits: digits }));
  }
  return numbers.get(digits).format(value).replace("-", "−");
}

// Three figures say as much of a time as anyone can use.
export function millis(value) {
  if (absent(value)) return NOTHING;
  if (value >= 10_000) return `${number(value / 1000, 1)} s`;
  return `${number(value, value < 10 ? 2 : value < 100 ? 1 : 0)} ms`;
}

export function bytes(value) {
  if (absent(value)) return NOTHING;
  if (value < 1000) return `${value} B`;
  const units = ["kB", "MB", "GB", "TB"];
  let power = -1;
  let rest = value;
  do { rest /= 1000; power += 1; } while (rest >= 999.5 && power < units.length - 1);
  return `${number(rest, rest < 10 ? 1 : 0)} ${units[power]}`;
}

export function percent(value, digits = 0) {
  return absent(value) ? NOTHING : `${number(value, digits)} %`;
}

export function celsius(value, digits = 1) {
  return absent(value) ? NOTHING : `${number(value, digits)} °C`;
}

export function watts(value) {
  return absent(value) ? NOTHING : `${number(value, value < 10 ? 2 : 1)} W`;
}

export function duration(seconds) {
  if (absent(seconds)) return NOTHING;
  const s = Math.abs(seconds);
  if (s < 99.5) return `${Math.round(s)} s`;
  if (s < 99.5 * 60) return `${Math.round(s / 60)} min`;
  if (s < 48 * 3600) return `${Math.round(s / 3600)} h`;
  return `${Math.round(s / 86_400)} d`;
}

export function ago(at, present) {
  if (absent(at)) return "never";
  const s = present - at;
  if (s < -2) return `in ${duration(s)}`;
  return s < 2 ? "now" : `${duration(s)} ago`;
}

const absolute = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "long" });

export function moment(at) {
  return absent(at) ? "" : absolute.format(at * 1000);
}

export function windowOf(seconds) {
  return absent(seconds) ? "" : `over ${duration(seconds)}`;
}

export function count(amount, noun, nouns = `${noun}s`) {
  return `${number(amount)} ${amount === 1 ? noun : nouns}`;
}
