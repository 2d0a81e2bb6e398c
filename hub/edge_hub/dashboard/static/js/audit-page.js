// Who did what, when, to whom.
import { html, useEffect, useState } from "./bound.js";
import { get } from "./api.js";
import { absent, count, duration, moment, plain } from "./format.js";
import { Ago, Chip, Choice, Empty, Loading, Trouble, Words } from "./parts.js";
import { soonAfter } from "./reading.js";
import { deviceLink } from "./shell.js";

const PAGE = 200;
const QUIET = "log-in"; // it changes nothing
const FEW = 4;
const MOMENTS = new Set(["expires", "until"]);
const DEVICE = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\/[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;

export function AuditPage() {
  const [{ entries, more }, set] = useState({});
  const [problem, setProblem] = useState(null);
  const [all, showAll] = useState(false);
  const read = async (before) => {
    try {
      const { entries: found } = await get(`/audit?limit=${PAGE}${before ? `&before=${before}` : ""}`);
      set((old) => (before ? withOlder(old, found, before) : withNewer(old, found)));
      setProblem(null);
    } catch (failed) {
      setProblem(failed.message);
    }
  };
  useEffect(() => {
    document.title = "Audit · edge hub";
    read();
    return soonAfter("audit", () => true, read);
  }, []);
  const shown = entries?.filter((one) => all || one.what !== QUIET);
  return html`<header class="top"><h1>Audit</h1><p class="soft">who changed what; only retention shortens it</p><div class="actions"><${Choice} label="Which" among=${[[false, "Changes"], [true, "With sign-ins"]]} value=${all} choose=${showAll} />
      <button type="button" class="small" onClick=${() => read()}>Read again</button></div></header>
    ${problem && html`<${Trouble} text=${problem} again=${() => read()} />`}
    ${!entries && !problem && html`<${Loading} />`}
    ${shown?.length === 0 && html`<${Empty} title="Nothing has been changed yet"><p>Commands, desired documents, labels, enrolments, tokens and rules are noted here, with who did it.</p></${Empty}>`}
    ${shown?.length > 0 && html`<section class="panel"><ol class="rows audit">${shown.map((one) => html`<li key=${one.id}>
        <span class="soft when"><${Ago} at=${one.at} /></span>
        <span class="by"><strong><${Words} text=${one.who} most=${64} /></strong> <small>${plain(one.role, 20)}</small></span>
        <span><${Chip}>${plain(one.what, 24)}</${Chip}></span>
        <span class="target">${DEVICE.test(one.target) ? html`<a href=${deviceLink(one.target)}><${Words} text=${one.target} /></a>` : html`<${Words} text=${one.target} />`}</span>
        <span class="detail"><${Words} text=${told(unsaid(one))} most=${300} /></span>
      </li>`)}</ol></section>
      <p class="soft foot-note">${count(shown.length, "entry", "entries")}. ${more && html`<button type="button" class="link" onClick=${() => read(entries.at(-1).id)}>Show older ones</button>`}</p>`}`;
}

function withOlder({ entries, more }, found, before) {
  if (entries.at(-1).id !== before) return { entries, more }; // asked for twice, or of a list that is another by now
  return { entries: [...entries, ...found], more: found.length === PAGE };
}

// The list stays as long as it was made: what somebody reads far below is not taken away, and it does not grow for ever.
function withNewer({ entries, more }, found) {
  const fresh = entries ? found.filter((one) => one.id > (entries[0]?.id ?? 0)) : found;
  if (!entries || fresh.length === PAGE) return { entries: found, more: found.length === PAGE }; // what lies between is not known
  const all = [...fresh, ...entries];
  const kept = all.slice(0, Math.max(entries.length, PAGE));
  return { entries: kept, more: more || kept.length < all.length };
}

// What stands beside it already is not told again.
function unsaid({ who, target, detail }) {
  if (absent(detail) || typeof detail !== "object" || Array.isArray(detail)) return detail;
  return Object.fromEntries(Object.entries(detail).filter(([key, value]) => !(key === "name" && value === target) && !(key === "by" && value === who)));
}

// {"command": {"name": "pin"}, "devices": 3} as "name pin, devices 3".
function told(detail, before = "") {
  if (Array.isArray(detail)) {
    const few = detail.slice(0, FEW).map((one) => told(one)).join(" ");
    return `${before} ${few}${detail.length > FEW ? ` and ${detail.length - FEW} more` : ""}`;
  }
  if (absent(detail)) return "";
  if (typeof detail === "boolean") return `${detail ? "" : "not "}${before}`;
  if (typeof detail === "number" && before.endsWith("_s")) return `${before.slice(0, -2)} ${duration(detail)}`;
  if (typeof detail === "number" && MOMENTS.has(before)) return `${before} ${moment(detail)}`;
  if (typeof detail !== "object") return before ? `${before} ${detail}` : String(detail);
  const parts = Object.entries(detail).filter(([key]) => key !== "batch").map(([key, value]) => told(value, key));
  return parts.filter(Boolean).join(", ");
}
