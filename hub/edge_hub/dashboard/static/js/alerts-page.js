// What is wrong now, what was, and by which rules.
import { html, useEffect, useState } from "./bound.js";
import { get } from "./api.js";
import { Acknowledge } from "./device-panels.js";
import { gravity } from "./fleet.js";
import { count, duration, plain } from "./format.js";
import { listen } from "./live.js";
import { Ago, Chip, Choice, Empty, For, Loading, Trouble, Words } from "./parts.js";
import { deviceLink } from "./shell.js";

const PAGE = 200;
const KINDS = [["open", "Open"], ["ended", "Ended"], ["rules", "Rules"]];

export function AlertsPage() {
  const [kind, choose] = useState("open");
  useEffect(() => { document.title = "Alerts · edge hub"; }, []);
  return html`<header class="top"><h1>Alerts</h1><div class="actions"><${Choice} label="Which" among=${KINDS} value=${kind} choose=${choose} /></div></header>
    ${kind === "rules" ? html`<${Rules} />` : html`<${Alerts} key=${kind} open=${kind === "open"} />`}`;
}

function Alerts({ open }) {
  const [alerts, set] = useState(null);
  const [problem, setProblem] = useState(null);
  const [more, setMore] = useState(false);
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
    let timer = null;
    const soon = () => { timer ??= setTimeout(() => { timer = null; read(); }, 500); };
    const ends = [listen("alert", soon), listen("reread", soon)];
    return () => { clearTimeout(timer); for (const end of ends) end(); };
  }, []);
  if (problem && !alerts) return html`<${Trouble} text=${problem} again=${() => read()} />`;
  if (!alerts) return html`<${Loading} />`;
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
      <span class="seen-by">${one.ended && !one.acknowledged ? html`<span class="soft">nobody acknowledged it</span>` : html`<${Acknowledge} alert=${one} read=${() => read()} />`}</span>
    </li>`)}</ul></section>
    <p class="soft foot-note">${count(list.length, open ? "open alert" : "ended alert")}${more ? " so far" : ""}. ${more && html`<button type="button" class="link" onClick=${() => read(more)}>Show older ones</button>`}</p>`;
}

function Rules() {
  const [rules, set] = useState(null);
  const [problem, setProblem] = useState(null);
  const read = () => get("/rules").then((found) => set(found.rules), (failed) => setProblem(failed.message));
  useEffect(() => { read(); }, []);
  if (problem) return html`<${Trouble} text=${problem} again=${read} />`;
  if (!rules) return html`<${Loading} />`;
  if (!rules.length) return html`<${Empty} title="No rules"><p>Put one with <code>PUT /api/v1/rules/NAME</code>.</p></${Empty}>`;
  return html`<section class="panel"><div class="scrolls" tabindex="0" role="region" aria-label="Rules"><table><thead><tr><th scope="col">Rule</th><th scope="col">Severity</th><th scope="col">Begins when</th><th scope="col">for</th><th scope="col">Ends when</th></tr></thead>
    <tbody>${rules.map(({ name, rule, built_in }) => html`<tr key=${name} class=${rule.enabled === false ? "soft" : ""}><th scope="row"><bdi>${plain(name, 64)}</bdi><small>${plain(rule.text, 120)}${rule.enabled === false ? " (off)" : ""}${built_in ? "" : " · yours"}</small></th>
      <td><${Chip} kind=${rule.severity}>${rule.severity}</${Chip}></td><td><code>${plain(rule.when, 400)}</code></td><td class="number">${duration(rule.for_s ?? 0)}</td><td>${rule.clear ? html`<code>${plain(rule.clear, 400)}</code>` : html`<span class="soft">that no longer holds</span>`}</td></tr>`)}</tbody></table></div>
    <p class="soft foot-note">An administrator changes them with <code>PUT /api/v1/rules/NAME</code>; the two conditions differ so that a value at the edge does not ring twice.</p></section>`;
}
