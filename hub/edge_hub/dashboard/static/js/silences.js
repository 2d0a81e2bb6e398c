// Silences: of which alerts nobody is told for a while. What is silenced is kept and shown all the same.
import { html, useEffect, useState } from "./bound.js";
import { ask, get, mayOperate } from "./api.js";
import { Buttons, Field, Select, useSending } from "./forms.js";
import { now, plain } from "./format.js";
import { Ago, Dialog, Empty, Loading, Trouble, Words, say } from "./parts.js";

const TIMES = [[900, "15 minutes"], [3600, "1 hour"], [8 * 3600, "8 hours"], [86_400, "1 day"], [7 * 86_400, "7 days"], [30 * 86_400, "30 days"]];
const FIELDS = ["query", "rule", "for_s", "why"];

export function inForce(silences) {
  return silences.filter((one) => one.until > now.value);
}

export function Silences({ silences, problem, read }) {
  if (problem && !silences) return html`<${Trouble} text=${problem} again=${read} />`;
  if (!silences) return html`<${Loading} />`;
  const list = inForce(silences);
  const end = async (one) => {
    try {
      await ask("DELETE", `/silences/${one.name}`);
      say("It has ended: who is told of alerts is told again.", "ok");
    } catch (failed) {
      say(failed.message, "bad");
    }
    read();
  };
  if (!list.length) {
    return html`<${Empty} title="Nothing is silenced">
      <p>Everybody is told of what begins. ${mayOperate.value ? "Before you work on a device, silence it for as long as that takes: its alerts are still kept and shown here." : "An operator can silence devices for a while."}</p></${Empty}>`;
  }
  return html`<section class="panel"><ul class="rows silences">${list.map((one) => html`<li key=${one.name} data-silence=${one.name}>
      <span><strong>${one.rule ? html`<bdi>${plain(one.rule, 64)}</bdi>` : "All rules"}</strong> of ${one.query ? html`<code><${Words} text=${one.query} most=${2000} /></code>` : html`<strong>all devices</strong>`}</span>
      <span class="soft">ends <${Ago} at=${one.until} /></span>
      <span class="soft">by <${Words} text=${one.by} most=${64} />${one.why && html`: <${Words} text=${one.why} most=${400} />`}</span>
      <span class="does">${mayOperate.value && html`<button type="button" class="small" onClick=${() => end(one)}>End</button>`}</span></li>`)}</ul></section>
    <p class="soft foot-note">Nobody is told of what begins there meanwhile; it is kept and shown all the same.</p>`;
}

// Of an alert, a rule by its name, or of what one writes.
export function SilenceDialog({ alert, of, close, done }) {
  const [query, setQuery] = useState(alert ? `device = ${JSON.stringify(alert.device)}` : "");
  const [rule, setRule] = useState(alert?.rule ?? of ?? "");
  const [for_s, setFor] = useState(3600);
  const [why, setWhy] = useState("");
  const [rules, setRules] = useState([]);
  useEffect(() => { get("/rules").then((found) => setRules(found.rules.map((one) => one.name)), () => {}); }, []);
  const act = () => ask("POST", "/silences", { query: query.trim(), rule: rule || null, for_s, why: why.trim() });
  const { busy, submit, problem } = useSending(FIELDS, act, () => { close(); say("Silenced. “Alerts → Silences” shows it, and ends it.", "ok"); done?.(); });
  const all = !query.trim();
  const names = [...new Set([rule, ...rules])].filter(Boolean);
  return html`<${Dialog} title="Silence alerts" close=${close}><form class="form" onSubmit=${submit}>
    <${Field} id="silence-query" label="Of which devices" problem=${problem("query")}
      help=${all && !rule ? "Empty is all devices and all rules: nobody is told of anything." : all ? "Empty is all devices." : "A query, as in the fleet's filter."}
      >${(more) => html`<input ...${more} maxlength="2000" spellcheck=${false} autocomplete="off" placeholder="all devices" value=${query} onInput=${(e) => setQuery(e.target.value)} />`}</${Field}>
    <div class="pair"><${Field} id="silence-rule" label="Of which rule" problem=${problem("rule")}
        >${(more) => html`<${Select} ...${more} among=${[["", "all rules"], ...names.map((one) => [one, plain(one, 64)])]} value=${rule} choose=${setRule} />`}</${Field}>
      <${Field} id="silence-for" label="For how long" problem=${problem("for_s")}
        >${(more) => html`<${Select} ...${more} among=${TIMES} value=${for_s} choose=${(s) => setFor(Number(s))} />`}</${Field}></div>
    <${Field} id="silence-why" label="Why" problem=${problem("why")}
      >${(more) => html`<input ...${more} maxlength="1000" placeholder="for those who wonder" value=${why} onInput=${(e) => setWhy(e.target.value)} />`}</${Field}>
    ${problem() && html`<${Trouble} text=${problem()} />`}
    <${Buttons} word="Silence" busy=${busy} close=${close} /></form></${Dialog}>`;
}
