// Small pieces that several pages are made of.
import { html, signal, useEffect, useRef } from "./bound.js";
import { absent, ago, duration, moment, now, plain } from "./format.js";

const PATHS = {
  fleet: "M2.5 3.5h11v3.5h-11zM2.5 9h11v3.5h-11zM5 5.25h.01M5 10.75h.01",
  models: "M8 1.8l5.5 3.1v6.2L8 14.2l-5.5-3.1V4.9zM2.7 5L8 8l5.3-3M8 8v6",
  alerts: "M8 2.2l6 10.8H2zM8 6.4v3M8 11.2h.01",
  audit: "M4 1.8h8v12.4H4zM6.2 5h3.6M6.2 8h3.6M6.2 11h2",
  tokens: "M5.5 6.7a3.3 3.3 0 1 0 0 6.6 3.3 3.3 0 0 0 0-6.6zM7.9 7.7l5.3-5.3M10.6 5l2 2M12.2 3.4l1.6 1.6",
  search: "M7 2.5a4.5 4.5 0 1 0 0 9 4.5 4.5 0 0 0 0-9zM10.3 10.3l3.4 3.4",
  close: "M4 4l8 8M12 4l-8 8",
  moon: "M13 9.5A5.5 5.5 0 0 1 6.5 3 5.5 5.5 0 1 0 13 9.5z",
  sun: "M8 5a3 3 0 1 0 0 6 3 3 0 0 0 0-6zM8 1.5v1.3M8 13.2v1.3M1.5 8h1.3M13.2 8h1.3M3.4 3.4l.9.9M11.7 11.7l.9.9M12.6 3.4l-.9.9M4.3 11.7l-.9.9",
  out: "M6.5 2.5h-4v11h4M6.5 8h7M10.8 5.2L13.6 8l-2.8 2.8",
  send: "M2 8l12-5.5L9.5 14 7.7 9zM7.7 9L14 2.5",
  pin: "M5.5 2h5l-.7 4 2 2.5H4.2l2-2.5zM8 8.5V14",
  help: "M8 1.8a6.2 6.2 0 1 0 0 12.4A6.2 6.2 0 0 0 8 1.8zM6.3 6.2a1.7 1.7 0 1 1 2.5 1.5c-.6.3-.8.6-.8 1.3M8 11.3h.01",
  charge: "M8.8 1.8L3.8 9h3.7l-.6 5.2L12.2 7H8.3z",
  back: "M10 3L5 8l5 5",
};

export function Icon({ name }) {
  return html`<svg class="icon" viewBox="0 0 16 16" aria-hidden="true" focusable="false"><path d=${PATHS[name]} /></svg>`;
}

// What a device or a person wrote: never markup, never able to turn its surroundings around.
export function Words({ text, most }) {
  return html`<bdi>${plain(text, most).replace(UNIT, "\u00a0")}</bdi>`;
}

const UNIT = /(?<=[0-9]) (?=(?:°C|%|[kM]?W|[mM]?J|m?s|min|h|points|Mbit)(?![A-Za-z0-9]))/g; // no line ends between a number and its unit

export function Ago({ at }) {
  const text = ago(at, now.value);
  return absent(at)
    ? html`<span class="soft">${text}</span>`
    : html`<time datetime=${new Date(at * 1000).toISOString()} title=${moment(at)}>${text}</time>`;
}

export function For({ since }) {
  return html`<time title=${`since ${moment(since)}`}>${duration(Math.max(0, now.value - since))}</time>`;
}

export const HEALTH = { ok: "OK", warning: "Warning", critical: "Critical", offline: "Offline" };

export function Health({ value, bare = false }) {
  return html`<span class=${`health ${value}`} title=${HEALTH[value]}
    ><i aria-hidden="true"></i><span class=${bare ? "unseen" : ""}>${HEALTH[value]}</span></span>`;
}

export function Chip({ kind = "", title, children }) {
  return html`<span class=${`chip ${kind}`} title=${title}>${children}</span>`;
}

export function Estimate() {
  return html`<abbr class="estimate" title="Estimated by the device's model of its board, not measured by a sensor">est.</abbr>`;
}

export function Empty({ title, children }) {
  return html`<div class="empty"><h2>${title}</h2>${children}</div>`;
}

export function Trouble({ text, again }) {
  return html`<div class="trouble" role="alert"><p><${Words} text=${text} most=${600} /></p>
    ${again && html`<button type="button" onClick=${again}>Try again</button>`}</div>`;
}

export function Loading({ lines = 8 }) {
  return html`<div class="loading" role="status"><span class="unseen">Loading…</span>
    ${Array.from({ length: lines }, (_, index) => html`<i key=${index} aria-hidden="true"></i>`)}</div>`;
}

// One of a few, as a row of buttons.
export function Choice({ label, among, value, choose }) {
  return html`<div class="windows" role="group" aria-label=${label}>${among.map(([key, text]) => html`<button type="button" key=${text}
    class="small" aria-pressed=${value === key ? "true" : "false"} onClick=${() => choose(key)}>${text}</button>`)}</div>`;
}

// A dialog of the browser's own: it holds the focus, ends with Escape, and gives the focus back. A click beside it ends it
// where it began there, too (marked text may end there); a `firm` one stays.
export function Dialog({ title, close, firm = false, children }) {
  const box = useRef(null);
  const beside = useRef(false);
  useEffect(() => {
    const from = document.activeElement;
    box.current.showModal();
    // Where a keyboard on the screen would not cover what is asked.
    if (matchMedia("(pointer: fine)").matches) box.current.querySelector(".form input, .form select, .form textarea")?.focus();
    return () => from?.focus?.();
  }, []);
  return html`<dialog ref=${box} aria-labelledby="dialog-title" onCancel=${(e) => { e.preventDefault(); close(); }}
    onPointerDown=${(e) => { beside.current = !firm && e.target === box.current; }} onClick=${(e) => e.target === box.current && beside.current && close()}>
    <div class="dialog">
      <header><h2 id="dialog-title">${title}</h2>
        <button type="button" class="quiet square" aria-label="Close" onClick=${close}><${Icon} name="close" /></button></header>
      ${children}
    </div></dialog>`;
}

// ------------------------------------------------------------------------------------------------------- notices

const LONGEST_SHOWN_MS = 8000;
const notices = signal([]);
let counted = 0;

export function say(text, kind = "") {
  const id = ++counted;
  notices.value = [...notices.value.slice(-3), { id, text, kind }];
  setTimeout(() => unsay(id), LONGEST_SHOWN_MS);
}

function unsay(id) {
  notices.value = notices.value.filter((one) => one.id !== id);
}

export function Notices() {
  return html`<div class="notices" role="status" aria-live="polite">${notices.value.map(
    (one) => html`<div key=${one.id} class=${`notice ${one.kind}`}><${Words} text=${one.text} most=${400} />
      <button type="button" class="quiet square" aria-label="Dismiss" onClick=${() => unsay(one.id)}><${Icon} name="close" /></button></div>`,
  )}</div>`;
}
