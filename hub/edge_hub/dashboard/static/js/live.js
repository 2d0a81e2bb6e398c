// The hub's news. Pages listen by topic; when the stream was away or could not keep up, `reread` tells them to ask anew.
// `begun` is its first opening: what was read before may have changed since without a word.
import { signal } from "./bound.js";
import { whoAmI } from "./api.js";

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 15_000;
const SILENCE_MS = 60_000; // without any news
const TOPICS = ["rows", "gone", "event", "command", "alert", "audit"];

// "live", "connecting", "dropped", or "off".
export const stream = signal("off");
export const droppedAt = signal(null);

const listeners = new Map([...TOPICS, "reread", "begun"].map((topic) => [topic, new Set()]));
let source = null;
let waiting = null;
let wait_ms = FIRST_WAIT_MS;
let wasLive = false;
let failures = 0;
let silence = null;

export function listen(topic, hear) {
  listeners.get(topic).add(hear);
  return () => listeners.get(topic).delete(hear);
}

export function connect() {
  disconnect();
  wasLive = false;
  failures = 0;
  stream.value = "connecting";
  open();
}

export function disconnect() {
  clearTimeout(waiting);
  clearTimeout(silence);
  source?.close();
  source = null;
  stream.value = "off";
  droppedAt.value = null;
}

function open() {
  source = new EventSource("/api/v1/stream");
  const mine = source;
  mine.onopen = () => {
    const again = wasLive;
    wasLive = true;
    wait_ms = FIRST_WAIT_MS;
    failures = 0;
    stream.value = "live";
    droppedAt.value = null;
    watch(mine);
    spread(again ? "reread" : "begun", null);
  };
  mine.onerror = () => lost(mine);
  for (const topic of TOPICS) {
    mine.addEventListener(topic, (news) => {
      watch(mine);
      let body;
      try {
        body = JSON.parse(news.data);
      } catch {
        return;
      }
      spread(topic, body);
    });
  }
  // Too much for this reader: the hub hangs up, and what was left out is read again once the stream is back.
  mine.addEventListener("missed", () => spread("reread", null));
}

// A connection that died without a word (a laptop that slept) looks open for ever; a new one costs little.
function watch(mine) {
  clearTimeout(silence);
  silence = setTimeout(() => {
    if (mine !== source) return;
    mine.close();
    open();
  }, SILENCE_MS);
}

function lost(mine) {
  if (mine !== source) return;
  clearTimeout(silence);
  // Not left to the browser, which gives up for good after some kinds of answers.
  mine.close();
  failures += 1;
  // It does not say why: perhaps the session is over, and then asking for the stream again and again helps nobody.
  if (failures > 1) whoAmI().catch(() => {});
  stream.value = wasLive ? "dropped" : "connecting";
  droppedAt.value ??= Date.now() / 1000;
  clearTimeout(waiting);
  waiting = setTimeout(open, wait_ms);
  wait_ms = Math.min(wait_ms * 2, LONGEST_WAIT_MS);
}

function spread(topic, body) {
  for (const hear of [...listeners.get(topic)]) hear(body);
}
