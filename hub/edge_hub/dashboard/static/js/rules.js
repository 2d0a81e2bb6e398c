// The alert rules as a list: what begins and ends each; an administrator switches, changes, resets and adds them.
import { html, useState } from "./bound.js";
import { ask, mayAdminister, mayOperate } from "./api.js";
import { openAlerts } from "./fleet.js";
import { Buttons, Confirm, Field, NAMED, Select, useSending } from "./forms.js";
import { duration, plain } from "./format.js";
import { Chip, Dialog, Empty, Loading, Trouble, Words, say } from "./parts.js";
import { useReading } from "./reading.js";
import { SilenceDialog } from "./silences.js";
import { thresholds, unitOf, withThreshold } from "./thresholds.js";

const SEVERITIES = ["info", "warning", "critical"];
const LONGEST_S = 30 * 86_400;
const WIDE = 60; // characters of a condition that one line shows
const FRESH = { when: "", clear: null, for_s: 60, severity: "warning", text: "", value: null, enabled: true };
const FIELDS = ["name", "when", "clear", "for_s", "severity", "text"];

const path = (name) => `/rules/${encodeURIComponent(name)}`;

export function Rules({ adding, added, silenced }) {
  const { found, problem, read } = useReading("/rules", ["rule", "rule-deleted"]);
  const [doing, act] = useState(null); // {what: "edit" | "remove" | "silence", of}
  const rules = found?.rules;
  const turn = async ({ name, rule }) => {
    try {
      await ask("PUT", path(name), { ...rule, enabled: !rule.enabled });
      say(rule.enabled ? `${name} is off: it looks at nothing, its open alerts end.` : `${name} is on.`, "ok");
    } catch (failed) {
      say(failed.message, "bad");
    }
    read();
  };
  const close = () => act(null);
  const saved = () => { close(); added(); read(); };
  if (problem && !rules) return html`<${Trouble} text=${problem} again=${read} />`;
  if (!rules) return html`<${Loading} />`;
  return html`${problem && html`<${Trouble} text=${problem} again=${read} />`}
    ${rules.length === 0 && html`<${Empty} title="No rules"><p>Without rules nothing rings.</p></${Empty}>`}
    ${rules.length > 0 && html`<section class="panel"><ul class="rows rules">${rules.map((one) => html`<${Rule} key=${one.name} one=${one} turn=${turn} act=${act} />`)}</ul></section>`}
    <p class="soft foot-note">A rule begins when its condition has held for its time. It ends by another condition, so that a value at the edge does not ring twice. ${mayAdminister.value ? "" : "An administrator changes them."}</p>
    ${(adding || doing?.what === "edit") && html`<${RuleDialog} of=${adding ? null : doing.of} close=${() => { close(); added(); }} done=${saved} />`}
    ${doing?.what === "silence" && html`<${SilenceDialog} of=${doing.of.name} close=${close} done=${silenced} />`}
    ${doing?.what === "remove" && html`<${Removal} one=${doing.of} close=${close} done=${read} />`}`;
}

function Rule({ one, turn, act }) {
  const { name, rule, built_in, changed } = one;
  const open = [...openAlerts.value.values()].filter((alert) => alert.rule === name).length;
  const does = (what, word) => html`<button type="button" class="small" aria-label=${`${word} ${plain(name, 64)}`} onClick=${() => act({ what, of: one })}>${word}</button>`;
  return html`<li data-rule=${name} class=${rule.enabled ? "" : "off"}>
    <div class="which"><p><strong><bdi>${plain(name, 64)}</bdi></strong> <${Chip} kind=${rule.severity}>${rule.severity}</${Chip}>
        ${!built_in && html` <${Chip} title="Somebody put it here">yours</${Chip}>`}${built_in && changed && html` <${Chip} kind="accent" title="It is not as it came with the hub">changed</${Chip}>`}</p>
      <p class="soft">${rule.text && html`<${Words} text=${rule.text} most=${200} /> `}${open > 0 && html`<a href="#/alerts">${open} open</a>`}</p></div>
    <dl><div><dt>begins when</dt><dd><code>${plain(rule.when, 2000)}</code> <span class="soft">${rule.for_s ? `for ${duration(rule.for_s)}` : "at once"}</span></dd></div>
      <div><dt>ends when</dt><dd>${rule.clear ? html`<code>${plain(rule.clear, 2000)}</code>` : html`<span class="soft">that no longer holds</span>`}</dd></div></dl>
    <div class="does">${mayOperate.value && does("silence", "Silence…")}
      ${mayAdminister.value && html`${does("edit", "Edit…")}
        ${(!built_in || changed) && does("remove", built_in ? "Reset…" : "Remove…")}
        <button type="button" class="switch" role="switch" aria-checked=${rule.enabled ? "true" : "false"} aria-label=${plain(name, 64)} title=${rule.enabled ? "On: switch it off" : "Off: switch it on"} onClick=${() => turn(one)}></button>`}
      ${!mayAdminister.value && !rule.enabled && html`<${Chip}>off</${Chip}>`}</div></li>`;
}

function Removal({ one: { name, built_in }, close, done }) {
  return html`<${Confirm} title=${built_in ? `Reset ${plain(name, 64)}?` : `Remove ${plain(name, 64)}?`} word=${built_in ? "Reset" : "Remove"} close=${close} done=${done}
    act=${() => ask("DELETE", path(name))}>${built_in ? "It is again as it came with the hub; what was changed on it is forgotten." : "Its open alerts end, and it looks at nothing any more."}</${Confirm}>`;
}

function RuleDialog({ of, close, done }) {
  const [rule, setRule] = useState({ ...FRESH, ...of?.rule, for_s: String(of?.rule.for_s ?? FRESH.for_s) });
  const [name, setName] = useState(of?.name ?? "");
  const change = (more) => setRule({ ...rule, ...more });
  const act = () => ask("PUT", path(name), { ...rule, for_s: Number(rule.for_s), clear: rule.clear?.trim() || null });
  const { busy, submit, problem } = useSending(FIELDS, act, () => { say(`${name} is stored.`, "ok"); done(); });
  return html`<${Dialog} title=${of ? `Rule ${plain(name, 64)}` : "New rule"} close=${close}><form class="form" onSubmit=${submit}>
    ${!of && html`<${Field} id="rule-name" label="Name" problem=${problem("name")} help="A rule there is by this name is replaced."
      >${(more) => html`<input ...${more} ...${NAMED} value=${name} onInput=${(e) => setName(e.target.value)} />`}</${Field}>`}
    <${Condition} id="rule-when" label="Begins when" required value=${rule.when} set=${(when) => change({ when })} problem=${problem("when")} />
    <div class="pair"><${Field} id="rule-for" label="Has to hold for (s)" problem=${problem("for_s")} help=${rule.for_s > 0 ? `${duration(Number(rule.for_s))} before it begins` : "it begins at once"}
        >${(more) => html`<input ...${more} type="number" min="0" max=${LONGEST_S} step="any" required value=${rule.for_s} onInput=${(e) => change({ for_s: e.target.value })} />`}</${Field}>
      <${Field} id="rule-severity" label="Severity" problem=${problem("severity")}
        >${(more) => html`<${Select} ...${more} among=${SEVERITIES.map((one) => [one, one])} value=${rule.severity} choose=${(severity) => change({ severity })} />`}</${Field}></div>
    <${Condition} id="rule-clear" label="Ends when" value=${rule.clear ?? ""} set=${(clear) => change({ clear })} problem=${problem("clear")} help="Ask for more than the opposite of the above; empty: as soon as that no longer holds." />
    <${Field} id="rule-text" label="What it says" problem=${problem("text")}>${(more) => html`<input ...${more} maxlength="1000" value=${rule.text} onInput=${(e) => change({ text: e.target.value })} />`}</${Field}>
    ${problem() && html`<${Trouble} text=${problem()} />`}
    <${Buttons} word="Save" busy=${busy} close=${close} /></form></${Dialog}>`;
}

// A query, and each number it compares with as a field of its own.
function Condition({ id, label, value, set, problem, help, required }) {
  const numbers = thresholds(value);
  return html`<div class="condition"><${Field} id=${id} label=${label} problem=${problem} help=${help}
      >${(more) => html`<textarea ...${more} rows=${value.length > WIDE ? 2 : 1} required=${required} maxlength="2000" spellcheck=${false}
        value=${value} onInput=${(e) => set(e.target.value)}></textarea>`}</${Field}>
    ${numbers.length > 0 && html`<div class="pair">${numbers.map((one, index) => html`<${Threshold} key=${index} one=${one}
      set=${(number) => set(withThreshold(value, one, number))} />`)}</div>`}</div>`;
}

// What is typed here is put into the query once it is whole; until then it is kept, whatever is drawn anew around it.
function Threshold({ one, set }) {
  const [typed, type] = useState(null);
  const take = (event) => {
    if (Number.isFinite(event.target.valueAsNumber)) set(event.target.value);
    type(null);
  };
  return html`<label><span>${one.not ? "not " : ""}<bdi>${plain(one.field, 64)}</bdi> ${one.sign}${unitOf(one.field) && ` (${unitOf(one.field)})`}</span>
    <input type="number" step="any" value=${typed ?? one.value} onInput=${(e) => type(e.target.value)} onChange=${take} onBlur=${() => type(null)} /></label>`;
}
