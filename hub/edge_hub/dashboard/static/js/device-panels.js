// Beside a device's charts: its alerts, what is desired of it, its commands, its labels, its end.
import { html, useState } from "./bound.js";
import { ask, devicePath, mayOperate } from "./api.js";
import { LIMITS, PreferenceFields, preferenceOf } from "./command.js";
import { SilenceDialog } from "./silences.js";
import { now, own, plain } from "./format.js";
import { Ago, Chip, Dialog, For, Trouble, Words, say } from "./parts.js";
import { go } from "./shell.js";

// -------------------------------------------------------------------------------------------------------- alerts

export function AlertList({ alerts, read }) {
  const [silencing, silence] = useState(null);
  const open = alerts.filter((one) => !one.ended);
  return html`${open.length > 0 && html`<section class="panel"><h2>Open alerts</h2><ul class="rows">${open.map((one) => html`<li key=${one.id}>
    <p><${Chip} kind=${one.severity}>${one.severity}</${Chip}> <strong><bdi>${plain(one.rule, 64)}</bdi></strong> <span class="soft">for <${For} since=${one.began} /></span></p>
    <p><${Words} text=${one.text} most=${400} /></p><p class="does"><${Acknowledge} alert=${one} read=${read} /><${Silence} alert=${one} silence=${silence} /></p></li>`)}</ul></section>`}
    ${silencing && html`<${SilenceDialog} alert=${silencing} close=${() => silence(null)} />`}`;
}

export function Silence({ alert, silence }) {
  return mayOperate.value && html`<button type="button" class="small" aria-label=${`Silence… ${plain(alert.rule, 64)} of ${plain(alert.device, 130)}`} onClick=${() => silence(alert)}>Silence…</button>`;
}

export function Acknowledge({ alert, read }) {
  if (alert.acknowledged) return html`<span class="soft">seen by <${Words} text=${alert.acknowledged} most=${40} /> <${Ago} at=${alert.acknowledged_at} /></span>`;
  if (!mayOperate.value) return html`<span class="soft">not acknowledged</span>`;
  return html`<button type="button" class="small" onClick=${() => tried(() => ask("POST", `/alerts/${alert.id}/acknowledge`), read)}>Acknowledge</button>`;
}

async function tried(act, then) {
  try {
    await act();
  } catch (failed) {
    say(failed.message, "bad");
  }
  then();
}

// ------------------------------------------------------------------------------------------------------ desired

export function Twin({ detail, read }) {
  const [editing, edit] = useState(false);
  const { desired } = detail;
  const version = desired?.desired?.version;
  const differences = desired?.differences ?? [];
  const since = desired?.since ?? Math.min(...differences.map((one) => one.since ?? Infinity));
  return html`<section class="panel"><header><h2>Desired and reported</h2>${mayOperate.value && html`<button type="button" class="small" onClick=${() => edit(true)}>Change…</button>`}</header>
    ${!version ? html`<p class="soft">Nothing is desired of it: its own configuration holds.</p>`
      : desired.in_step !== false && !differences.length ? html`<p><${Chip} kind="ok">in step</${Chip}> It has applied version ${version}, set <${Ago} at=${desired.sent} />.</p>`
        : html`<p><${Chip} kind="warning">differs</${Chip}> ${Number.isFinite(since) ? html`for <${For} since=${since} />: ` : ""}${desired.in_step === false
          ? `version ${version} is desired, ${desired.reported_version ?? 0} applied.` : `version ${version} was applied, and is overridden at the device or by a command.`}</p>`}
    ${desired?.refused && html`<${Trouble} text=${`It refuses: ${desired.refused}`} />`}
    ${differences.length > 0 && html`<ul class="rows">${differences.map((one, index) => html`<li key=${index}>
      <p class="soft"><${Words} text=${one.what} />${one.since ? html` for <${For} since=${one.since} />` : ""}</p>
      <p><strong><${Words} text=${one.desired ?? "nothing"} /></strong> desired, <${Words} text=${one.reported ?? "nothing"} /> reported</p></li>`)}</ul>`}
    ${editing && html`<${DesiredDialog} detail=${detail} close=${(changed) => { edit(false); if (changed) read(); }} />`}
  </section>`;
}

function DesiredDialog({ detail, close }) {
  const now_ = detail.desired?.desired ?? {};
  const models = detail.device.birth?.models ?? [];
  const [wishes, setWishes] = useState(() => Object.fromEntries(models.map((model) => {
    const preference = own(now_.preferences, model.name);
    return [model.name, {
      mode: preference?.mode ?? (preference ? "balanced" : ""),
      limits: Object.fromEntries(LIMITS.map(([key]) => [key, preference?.[key] ?? ""])),
      pin: own(now_.pins, model.name) === undefined ? "" : now_.pins[model.name] ?? "\0none",
    }];
  })));
  const [problem, setProblem] = useState(null);
  const [busy, setBusy] = useState(false);
  const change = (name, more) => setWishes({ ...wishes, [name]: { ...wishes[name], ...more } });
  const submit = async (event) => {
    event.preventDefault();
    setBusy(true);
    // What is desired of models this device does not serve (now) stays as it is.
    const preferences = { ...(now_.preferences ?? {}) };
    const pins = { ...(now_.pins ?? {}) };
    for (const [name, wish] of Object.entries(wishes)) {
      if (wish.mode) preferences[name] = preferenceOf(wish.mode, wish.limits);
      else delete preferences[name];
      if (wish.pin === "") delete pins[name];
      else pins[name] = wish.pin === "\0none" ? null : wish.pin;
    }
    try {
      await ask("PUT", devicePath(detail.device.device, "/desired"), { preferences, pins, if_version: now_.version ?? 0 });
      say("Desired: stored. The device applies it as soon as it is there.", "ok");
      close(true);
    } catch (failed) {
      setProblem(failed.code === "version-conflict" ? "Somebody else changed it meanwhile: close this and look again." : failed.message);
      setBusy(false);
    }
  };
  return html`<${Dialog} title="What is desired of it" close=${() => close(false)}><form class="form" onSubmit=${submit}>
    ${models.length === 0 && html`<p class="soft">It serves no model yet.</p>`}
    ${models.map((model) => { const wish = wishes[model.name]; return html`<section key=${model.name} class="form wish"><h3><bdi>${plain(model.name, 64)}</bdi></h3>
      <label>Variant<select value=${wish.pin} onChange=${(e) => change(model.name, { pin: e.target.value })}><option value="">as it is</option><option value=${"\0none"}>not pinned: the policy decides</option>${(model.variants ?? []).map(
        (one) => html`<option key=${one.id} value=${one.id}>pinned: ${plain(one.id, 64)}</option>`)}</select></label>
      <label class="check"><span><input type="checkbox" checked=${Boolean(wish.mode)} onChange=${(e) => change(model.name, { mode: e.target.checked ? "balanced" : "" })} /> a preference</span></label>
      ${wish.mode && html`<${PreferenceFields} name=${`mode-${model.name}`} mode=${wish.mode} setMode=${(mode) => change(model.name, { mode })} limits=${wish.limits} setLimits=${(limits) => change(model.name, { limits })} />`}</section>`; })}
    ${problem && html`<${Trouble} text=${problem} />`}
    <footer><button type="button" class="quiet" onClick=${() => close(false)}>Cancel</button><button type="submit" class="primary" disabled=${busy || !models.length}>Set</button></footer>
  </form></${Dialog}>`;
}

// ----------------------------------------------------------------------------------------------------- commands

export function CommandList({ commands, read }) {
  const list = [...commands].sort((a, b) => b.sent - a.sent);
  return html`<section class="panel"><h2>Commands</h2>${list.length === 0 ? html`<p class="soft">None was sent yet.</p>` : html`<ul class="rows">${list.map((one) => html`<li key=${one.id} data-state=${one.state}>
    <p><${Chip} kind=${one.state}>${one.state}${one.late ? ", answered late" : ""}</${Chip}> <strong>${spelled(one.command)}</strong></p>
    <p class="soft"><${Ago} at=${one.sent} />${one.by ? html` by <${Words} text=${one.by} most=${40} />` : ""}${one.state === "pending" ? html`, gives up ${one.expires > now.value ? html`<${Ago} at=${one.expires} />` : "now"}` : ""}${one.published > 1 ? `, sent ${one.published} times` : ""}</p>
    ${one.reply?.text && html`<p><${Words} text=${one.reply.text} most=${600} /></p>`}
    ${one.state === "pending" && mayOperate.value && html`<button type="button" class="small" onClick=${() => tried(() => ask("DELETE", `/commands/${one.id}`), read)}>Cancel</button>`}
  </li>`)}</ul>`}</section>`;
}

function spelled(command) {
  const { name, preference, ...rest } = command;
  const words = Object.values(rest).map((value) => plain(value, 64));
  if (preference && !preference.mode) words.push("balanced");
  if (preference) words.push(...Object.entries(preference).map(([key, value]) => (key === "mode" ? plain(value, 20) : `${plain(key, 30)}=${plain(value, 40)}`)));
  return [plain(name, 20), ...words].join(" ");
}

// ------------------------------------------------------------------------------------------------------ removal

export function RemoveDialog({ device, close }) {
  const [problem, setProblem] = useState(null);
  const [busy, setBusy] = useState(false);
  const submit = async (event) => {
    event.preventDefault();
    setBusy(true);
    setProblem(null);
    try {
      const { left } = await ask("DELETE", devicePath(device));
      say([`${device} is not in the fleet any more.`, ...left].join(" "), left.length ? "" : "ok");
      go("#/fleet");
    } catch (failed) {
      setProblem(failed.message);
      setBusy(false);
    }
  };
  return html`<${Dialog} title=${`Remove ${plain(device, 130)}?`} close=${close}><form class="form" onSubmit=${submit}>
    <p>It is let in no more, and all that is kept of <strong><${Words} text=${device} most=${130} /></strong> goes for good: its telemetry, events, commands, alerts, labels and what is desired of it. What waits for it is cancelled. The audit log stays.</p>
    ${problem && html`<${Trouble} text=${problem} />`}
    <footer><button type="button" class="quiet" onClick=${close}>Cancel</button><button type="submit" class="danger" disabled=${busy}>Remove it</button></footer></form></${Dialog}>`;
}

// ------------------------------------------------------------------------------------------------------- labels

export function Labels({ device, labels, read }) {
  const [editing, edit] = useState(false);
  const entries = Object.entries(labels);
  return html`${entries.map(([key, value]) => html`<${Chip} key=${key}><bdi>${plain(key, 40)}</bdi>=<bdi>${plain(value, 60)}</bdi></${Chip}> `)}${entries.length === 0 && html`<span class="soft">none </span>`}
    ${mayOperate.value && html`<button type="button" class="link" onClick=${() => edit(true)}>edit</button>`}
    ${editing && html`<${LabelDialog} device=${device} labels=${labels} close=${(changed) => { edit(false); if (changed) read(); }} />`}`;
}

function LabelDialog({ device, labels, close }) {
  const [text, setText] = useState(Object.entries(labels).map(([key, value]) => `${key}=${value}`).join("\n"));
  const [problem, setProblem] = useState(null);
  const submit = async (event) => {
    event.preventDefault();
    const lines = text.split("\n").map((line) => line.trim()).filter(Boolean);
    const odd = lines.find((line) => !/^[^=]+=/.test(line));
    if (odd) return setProblem(`"${odd}" is no key=value`);
    const found = Object.fromEntries(lines.map((line) => { const cut = line.indexOf("="); return [line.slice(0, cut).trim(), line.slice(cut + 1).trim()]; }));
    try {
      await ask("PUT", devicePath(device, "/labels"), { labels: found });
      close(true);
    } catch (failed) {
      setProblem(failed.message);
    }
    return null;
  };
  return html`<${Dialog} title="Labels" close=${() => close(false)}><form class="form" onSubmit=${submit}>
    <label>One key=value a line<textarea rows="6" value=${text} onInput=${(e) => setText(e.target.value)}></textarea></label>
    ${problem && html`<${Trouble} text=${problem} />`}
    <footer><button type="button" class="quiet" onClick=${() => close(false)}>Cancel</button><button type="submit" class="primary">Set</button></footer></form></${Dialog}>`;
}
