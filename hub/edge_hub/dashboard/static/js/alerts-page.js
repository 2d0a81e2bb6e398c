// What is wrong now, what was, by which rules, and of what nobody is told.
import { html, useEffect, useState } from "./bound.js";
import { get, mayAdminister, mayOperate } from "./api.js";
import { Acknowledge, Silence } from "./device-panels.js";
import { gravity } from "./fleet.js";
import { count, duration, plain } from "./format.js";
import { Ago, Chip, Choice, Empty, For, Loading, Trouble, Words } from "./parts.js";
import { soonAfter, useReading } from "./reading.js";
import { Rules } from "./rules.js";
import { deviceLink, go, place } from "./shell.js";
import { SilenceDialog, Silences, inForce } from "./silences.js";

const PAGE = 200;
const KINDS = ["open", "ended", "rules", "silences"];

export function AlertsPage() {
  const { found, problem, read } = useReading("/silences", ["silence", "silence-ended"]);
  const [making, make] = useState(null); // "rule" or "silence"
  const kind = KINDS.includes(place.value.rest[0]) ? place.value.rest[0] : KINDS[0];
  useEffect(() => { document.title = "Alerts · edge hub"; }, []);
  const silences = found?.silences;
  const quiet = silences ? inForce(silences).length : 0;
  const title = (one) => one[0].toUpperCase() + one.slice(1) + (one === "silences" && quiet ? ` (${quiet})` : "");
  const done = () => make(null);
  return html`<header class="top"><h1>Alerts</h1><div class="actions">
      ${kind === "rules" && mayAdminister.value && html`<button type="button" class="small" onClick=${() => make("rule")}>New rule…</button>`}
      ${kind === "silences" && mayOperate.value && html`<button type="button" class="small" onClick=${() => make("silence")}>New silence…</button>`}
      <${Choice} label="Which" among=${KINDS.map((one) => [one, title(one)])} value=${kind} choose=${(one) => go(`/alerts/${one}`)} /></div></header>
    ${kind === "rules" ? html`<${Rules} adding=${making === "rule"} added=${done} silenced=${read} />`
      : kind === "silences" ? html`<${Silences} silences=${silences} problem=${problem} read=${read} />`
        : html`<${Alerts} key=${kind} open=${kind === "open"} silenced=${read} />`}
    ${making === "silence" && html`<${SilenceDialog} close=${done} done=${read} />`}`;
}

function Alerts({ open, silenced }) {
  const [alerts, set] = useState(null);
  const [problem, setProblem] = useState(null);
  const [more, setMore] = useState(false);
  const [silencing, silence] = useState(null);
  const read = async (before) => {
    try {
      const { alerts: found } = await get(`/alerts?limit=${PAGE}${open ? "&open=1" : ""}${before ? `&before=${before}` : ""}`);
      const fit = found.filter((one) => open || one.ended);
      set((old) => (before ? [...old, ...fit] : fit));
      setMore(found.length === PAGE ? found.at(-1).id : false);
      setProblem(null);
    } catch (failed) {
      setProblem(failed.message);
    }
  };
  useEffect(() => {
    read();
    return soonAfter("alert", () => true, read);
  }, []);
  if (problem && !alerts) return html`<${Trouble} text=${problem} again=${() => read()} />`;
  if (!alerts) return html`<${Loading} />`;
  // Beside the list, which may be empty by the time that it is filled in.
  return html`<${AlertList} alerts=${alerts} open=${open} more=${more} read=${read} silence=${silence} />
    ${silencing && html`<${SilenceDialog} alert=${silencing} close=${() => silence(null)} done=${silenced} />`}`;
}

function AlertList({ alerts, open, more, read, silence }) {
  if (!alerts.length) {
    return open ? html`<${Empty} title="Nothing is wrong"><p>No rule holds for any device. The rules are under “Rules”; they can also call a webhook or publish over MQTT.</p></${Empty}>`
      : html`<${Empty} title="No alert has ended yet"><p>An alert that is over moves here from “Open”.</p></${Empty}>`;
  }
  const list = open ? [...alerts].sort((a, b) => gravity(b) - gravity(a) || b.began - a.began) : alerts;
  return html`<section class="panel"><ul class="rows alerts">${list.map((one) => html`<li key=${one.id} data-alert=${one.id}>
      <${Chip} kind=${one.severity}>${one.severity}</${Chip}>
      <span class="who-what"><a href=${deviceLink(one.device)}><bdi>${plain(one.device, 80)}</bdi></a><small><bdi>${plain(one.rule, 64)}</bdi></small></span>
      <span class="text"><${Words} text=${one.text} most=${400} /></span>
      <span class="soft">${one.ended ? html`ended <${Ago} at=${one.ended} />, lasted ${duration(one.ended - one.began)}` : html`for <${For} since=${one.began} />`}</span>
      <span class="does">${one.ended && !one.acknowledged ? html`<span class="soft">nobody acknowledged it</span>` : html`<${Acknowledge} alert=${one} read=${() => read()} />`}${!one.ended && html`<${Silence} alert=${one} silence=${silence} />`}</span>
    </li>`)}</ul></section>
    <p class="soft foot-note">${count(list.length, open ? "open alert" : "ended alert")}${more ? " so far" : ""}. ${more && html`<button type="button" class="link" onClick=${() => read(more)}>Show older ones</button>`}</p>`;
}
