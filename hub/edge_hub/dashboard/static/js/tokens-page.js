// Who may ask the hub: tokens, without themselves. Administrators make and withdraw them.
import { html, useEffect, useRef, useState } from "./bound.js";
import { ask, mayAdminister, session } from "./api.js";
import { Buttons, Confirm, Field, NAMED, Select, useSending } from "./forms.js";
import { absent, count, now, plain } from "./format.js";
import { Ago, Chip, Dialog, Empty, Loading, Trouble, Words, say } from "./parts.js";
import { useReading } from "./reading.js";

const ROLES = { viewer: "looks, changes nothing", operator: "also commands, sets what is desired, labels, and silences alerts", admin: "everything, also rules, devices and tokens" };
const LIVES = [[86_400, "1 day"], [30 * 86_400, "30 days"], [90 * 86_400, "90 days"], [366 * 86_400, "1 year"], [0, "never"]];
const FIELDS = ["name", "role", "expires_s"];
const COPIED_MS = 3000;

export function TokensPage() {
  const may = mayAdminister.value;
  const { found, problem, read } = useReading(may && "/tokens", ["token", "token-withdrawn"]);
  const [making, make] = useState(false);
  const [withdrawing, withdraw] = useState(null);
  const tokens = found?.tokens;
  useEffect(() => { document.title = "Tokens · edge hub"; }, []);
  if (!may) {
    return html`<header class="top"><h1>Tokens</h1></header><${Empty} title="For administrators">
      <p>The role of your token is <strong>${session.value?.role}</strong>. Who has the administrator's token (<code>cat hub/token</code>, in the hub's data directory) sees here who may ask the hub, and lets others in.</p></${Empty}>`;
  }
  const gone = () => { say(`${withdrawing} is withdrawn.`, "ok"); read(); };
  return html`<header class="top"><h1>Tokens</h1><p class="soft">who may ask the hub, beside the data directory's own</p>
      <div class="actions"><button type="button" class="primary" onClick=${() => make(true)}>New token…</button></div></header>
    ${problem && html`<${Trouble} text=${problem} again=${read} />`}
    ${!tokens && !problem && html`<${Loading} lines=${4} />`}
    ${tokens?.length === 0 && html`<${Empty} title="Only the data directory's token lets in">
      <p>Give each person and each program a token of their own, with the role they need: the audit log then says who did what, and one can be withdrawn without the others.</p></${Empty}>`}
    ${tokens?.length > 0 && html`<section class="panel"><ul class="rows tokens">${tokens.map((one) => html`<${Token} key=${one.name} one=${one} withdraw=${withdraw} />`)}</ul></section>
      <p class="soft foot-note">${count(tokens.length, "token")}. The hub keeps no token, only the SHA-256 of each.</p>`}
    ${making && html`<${NewTokenDialog} taken=${(tokens ?? []).map((one) => one.name)} read=${read} close=${() => make(false)} />`}
    ${withdrawing && html`<${Confirm} title=${`Withdraw ${plain(withdrawing, 64)}?`} word="Withdraw" close=${() => withdraw(null)} done=${gone}
      act=${() => ask("DELETE", `/tokens/${encodeURIComponent(withdrawing)}`)}><p>Whoever uses it is refused from now on, and its sessions end.</p>
      ${withdrawing === session.value?.name && html`<p><strong>You are signed in with it: this signs you out.</strong></p>`}</${Confirm}>`}`;
}

function Token({ one, withdraw }) {
  const over = !absent(one.expires) && one.expires <= now.value;
  return html`<li data-token=${one.name}>
    <span><strong><bdi>${plain(one.name, 64)}</bdi></strong> <${Chip} title=${ROLES[one.role]}>${plain(one.role, 20)}</${Chip}>${one.name === session.value?.name && html` <${Chip} kind="accent">you</${Chip}>`}</span>
    <span class="soft">made <${Ago} at=${one.created} /></span>
    <span class="soft">${absent(one.expires) ? "never expires" : over ? html`<${Chip} kind="warning">expired</${Chip}> <${Ago} at=${one.expires} />` : html`expires <${Ago} at=${one.expires} />`}</span>
    <span class="soft">${absent(one.last_used) ? "never used" : html`last used <${Ago} at=${one.last_used} />`}</span>
    <span class="does"><button type="button" class="small" aria-label=${`Withdraw… ${plain(one.name, 64)}`} onClick=${() => withdraw(one.name)}>Withdraw…</button></span></li>`;
}

function NewTokenDialog({ taken, read, close }) {
  const [name, setName] = useState("");
  const [role, setRole] = useState("viewer");
  const [lives_s, setLives] = useState(90 * 86_400);
  const [made, set] = useState(null);
  const act = () => ask("POST", "/tokens", { name, role, expires_s: lives_s || null });
  const { busy, submit, problem } = useSending(FIELDS, act, (fresh) => { set(fresh); read(); });
  if (made) return html`<${Made} made=${made} close=${close} />`;
  return html`<${Dialog} title="New token" close=${close}><form class="form" onSubmit=${submit}>
    <${Field} id="token-name" label="Name" problem=${problem("name")}
      help=${taken.includes(name) ? html`<strong>There is one of this name: it is replaced, and its sessions end.</strong>` : "Of the person or program that gets it; the audit log shows it."}
      >${(more) => html`<input ...${more} ...${NAMED} value=${name} onInput=${(e) => setName(e.target.value)} />`}</${Field}>
    <div class="pair"><${Field} id="token-role" label="Role" problem=${problem("role")} help=${ROLES[role]}
        >${(more) => html`<${Select} ...${more} among=${Object.keys(ROLES).map((one) => [one, one])} value=${role} choose=${setRole} />`}</${Field}>
      <${Field} id="token-lives" label="Expires after" problem=${problem("expires_s")}
        >${(more) => html`<${Select} ...${more} among=${LIVES} value=${lives_s} choose=${(s) => setLives(Number(s))} />`}</${Field}></div>
    ${problem() && html`<${Trouble} text=${problem()} />`}
    <${Buttons} word="Make" busy=${busy} close=${close} /></form></${Dialog}>`;
}

function Made({ made, close }) {
  const field = useRef(null);
  const [copied, set] = useState(false);
  useEffect(() => { field.current.focus(); field.current.select(); }, []);
  useEffect(() => {
    if (!copied) return undefined;
    const timer = setTimeout(() => set(false), COPIED_MS);
    return () => clearTimeout(timer);
  }, [copied]);
  const copy = async () => {
    field.current.select();
    try {
      await navigator.clipboard.writeText(made.token);
      set(true);
    } catch {
      set(document.execCommand("copy")); // without TLS, beyond this machine, a page has no clipboard
    }
  };
  return html`<${Dialog} title=${`Token ${plain(made.name, 64)}`} close=${close} firm><div class="form">
    <div class="field"><label for="token-made">Token</label><div class="copied"><input id="token-made" ref=${field} readonly value=${made.token} spellcheck=${false} aria-describedby="token-made-help" />
      <button type="button" class="primary" onClick=${copy}>Copy</button></div></div>
    <p id="token-made-help"><strong>It is not shown again.</strong> The hub keeps only its SHA-256: whoever loses it gets a new one.</p>
    <p class="soft">Role ${plain(made.role, 20)}: ${ROLES[made.role]}. It ${absent(made.expires) ? "never expires" : html`expires <${Ago} at=${made.expires} />`}.</p>
    <footer><span class="soft" role="status">${copied ? "Copied." : ""}</span><button type="button" onClick=${close}>Done</button></footer></div></${Dialog}>`;
}
