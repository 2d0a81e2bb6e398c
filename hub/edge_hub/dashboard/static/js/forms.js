// What dialogs with fields have in common: a complaint of the hub stands at the field it is about.
import { html, useEffect, useState } from "./bound.js";
import { Dialog, Trouble, Words } from "./parts.js";

// A field with its name, what it means, and what is wrong with it; `children` draws the control with what it is given.
export function Field({ id, label, help, problem, children }) {
  useEffect(() => { if (problem) document.getElementById(id)?.focus(); }, [problem]);
  const about = [help && `${id}-help`, problem && `${id}-wrong`].filter(Boolean).join(" ");
  return html`<div class="field"><label for=${id}>${label}</label>
    ${children({ id, "aria-describedby": about || null, "aria-invalid": problem ? "true" : null })}
    ${help && html`<small id=${`${id}-help`}>${help}</small>`}
    ${problem && html`<p class="wrong" id=${`${id}-wrong`} role="alert"><${Words} text=${problem} most=${400} /></p>`}</div>`;
}

// What a rule, a token or anything with a name may be called.
export const NAMED = { required: true, maxlength: 64, pattern: "[A-Za-z0-9][A-Za-z0-9._\\-]*", title: "Letters, digits, dot, _ and -", spellcheck: false, autocomplete: "off" };

// One of `among`: [value, text].
export function Select({ among, choose, value, ...more }) {
  return html`<select ...${more} value=${value} onChange=${(e) => choose(e.target.value)}>${among.map(
    ([key, text]) => html`<option key=${key} value=${key}>${text}</option>`)}</select>`;
}

// Sends a form: `act` asks the hub, `done` gets its answer. `problem(field)` is the complaint about one of `fields`, and
// `problem()` the one that is about none of them.
export function useSending(fields, act, done) {
  const [wrong, set] = useState(null);
  const [busy, setBusy] = useState(false);
  const submit = async (event) => {
    event.preventDefault();
    setBusy(true);
    set(null);
    let answer;
    try {
      answer = await act();
    } catch (failed) {
      const [field, text] = about(failed.message);
      set(fields.includes(field) ? { field, text } : { text: failed.message });
      setBusy(false);
      return;
    }
    setBusy(false);
    done(answer);
  };
  return { busy, submit, problem: (field) => (wrong && wrong.field === field ? wrong.text : null) };
}

// "... not as expected: Expected `float` >= 0.0 - at `$.for_s` (got ...)", or "when, column 9: ...; ...".
function about(text) {
  const shape = /not as expected: (.*) - at `\$\.([a-z_]+)`/.exec(text);
  if (shape) return [shape[2], shape[1]];
  const query = /^([a-z_]+)(?:, (column [0-9]+: .*)| is .*)$/s.exec(text);
  return query ? [query[1], query[2] ?? text] : [undefined, text];
}

export function Buttons({ word, busy, close, kind = "primary", children }) {
  return html`<footer>${children}<button type="button" class="quiet" onClick=${close}>Cancel</button>
    <button type="submit" class=${kind} disabled=${busy}>${word}</button></footer>`;
}

// Before something that is not undone by a second click.
export function Confirm({ title, word, act, done, close, children }) {
  const { busy, submit, problem } = useSending([], act, (answer) => { close(); done(answer); });
  return html`<${Dialog} title=${title} close=${close}><form class="form" onSubmit=${submit}>
    <div>${children}</div>
    ${problem() && html`<${Trouble} text=${problem()} />`}
    <${Buttons} word=${word} kind="danger" busy=${busy} close=${close} /></form></${Dialog}>`;
}
