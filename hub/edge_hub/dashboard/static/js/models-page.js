// What the fleet serves: every variant with its evidence, and where it runs.
import { html, useEffect, useState } from "./bound.js";
import { get } from "./api.js";
import { bytes, count, millis, number, own, plain } from "./format.js";
import { listen } from "./live.js";
import { Chip, Empty, Loading, Trouble } from "./parts.js";
import { queryLink } from "./shell.js";

const AGAIN_MS = 10_000;
const ORIGINS = {
  measured: ["ok", "Timed on such a board"],
  published: ["", "From the maker's or the authors' own figures"],
  predicted: ["warning", "An estimate: no device has timed it yet"],
};

export function ModelsPage() {
  const [models, set] = useState(null);
  const [problem, setProblem] = useState(null);
  const read = async () => {
    try {
      set((await get("/models")).models);
      setProblem(null);
    } catch (failed) {
      setProblem(failed.message);
    }
  };
  useEffect(() => {
    document.title = "Models · edge hub";
    read();
    const timer = setInterval(() => { if (!document.hidden) read(); }, AGAIN_MS);
    const end = listen("reread", read);
    return () => { clearInterval(timer); end(); };
  }, []);
  return html`<header class="top"><h1>Models</h1>${models && html`<p class="soft">${count(models.length, "model version")} in the fleet</p>`}</header>
    ${problem && html`<${Trouble} text=${problem} again=${read} />`}
    ${!models && !problem && html`<${Loading} />`}
    ${models?.length === 0 && html`<${Empty} title="No model is served yet"><p>Make a bundle, copy it to a device and name it when you let the device in:</p>
      <pre><code>edge convert model.keras -o digits.edge --data images/\nedge hub enroll acme/cam1 -o device.toml --model digits=/opt/models/digits.edge</code></pre></${Empty}>`}
    ${models?.map((model) => html`<${Model} key=${`${model.name} ${model.version}`} model=${model} />`)}`;
}

function Model({ model }) {
  const profiles = [...new Set(model.variants.flatMap((one) => Object.keys(one.profiles ?? {})))].sort();
  const best = Math.max(...model.variants.map((one) => one.quality));
  return html`<section class="panel model"><header><h2><bdi>${plain(model.name, 64)}</bdi> <span class="soft">version ${plain(model.version, 40)}</span></h2><p class="soft">${count(model.devices, "device")}</p></header>
    <div class="scrolls" tabindex="0" role="region" aria-label=${`Variants of ${plain(model.name, 64)}`}><table>
      <thead><tr><th scope="col">Variant</th><th scope="col">Precision</th><th scope="col" class="number">Quality</th><th scope="col" class="number">Size</th><th scope="col" class="number">Latency<small>least of any</small></th><th scope="col">Evidence</th>
        ${profiles.map((name) => html`<th scope="col" class="number" key=${name}><bdi>${plain(name, 32)}</bdi><small>runs of able</small></th>`)}</tr></thead>
      <tbody>${model.variants.map((one) => { const [kind, means] = ORIGINS[one.origin] ?? ["", "It does not say"]; return html`<tr key=${one.id}>
        <th scope="row"><a href=${queryLink(`variant = ${one.id} and model = ${model.name}`)}><bdi>${plain(one.id, 64)}</bdi></a></th>
        <td>${plain(one.precision, 32)}</td><td class="number">${number(one.quality, 2)}<small>${one.quality === best ? "best" : `−${number(best - one.quality, 2)}`}</small></td>
        <td class="number">${bytes(one.size_bytes)}</td><td class="number">${one.origin === "predicted" ? "≈ " : ""}${millis(one.latency_ms)}</td>
        <td><${Chip} kind=${kind} title=${means}>${plain(one.origin ?? "unknown", 20)}</${Chip}></td>
        ${profiles.map((name) => { const use = own(one.profiles, name); return html`<td class=${`number ${use?.active ? "" : "soft"}`} key=${name}>${use ? html`${use.active
          ? html`<a href=${queryLink(`variant = ${one.id} and profile = ${name}`)}>${number(use.active)}</a>` : "0"} of ${number(use.able)}<small>${use.active ? `p95 ${millis(use.p95_ms)}` : " "}</small>` : "–"}</td>`; })}
      </tr>`; })}</tbody></table></div>
    <p class="soft foot-note">Quality is in the metric's own unit, as measured when the bundle was made. Below each profile: on how many devices a variant runs of those that could run it, and its p95, that of each device's newest report, averaged over those that run it.</p>
  </section>`;
}
