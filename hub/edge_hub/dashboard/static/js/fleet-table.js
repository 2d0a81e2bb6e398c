// The table of devices: only the rows in view exist, so that 5,000 cost no more than fifty.
import { html, useEffect, useLayoutEffect, useMemo, useRef, useState } from "./bound.js";
import { mayOperate } from "./api.js";
import { changes, healthOf, leading, row as rowOf, severities } from "./fleet.js";
import { NOTHING, absent, ago, celsius, duration, millis, moment, now, percent, plain, watts, windowOf } from "./format.js";
import { Health, Icon } from "./parts.js";
import { drawn, path, spark, want } from "./sparks.js";
import { deviceLink, go } from "./shell.js";

const WIDE = { row: 46, phone: false };
const PHONE = { row: 94, phone: true };
const BEYOND = 6; // rows drawn outside the view, so that a fast scroll shows no holes
const PAUSE_MS = 150;
const SPARK = { width: 76, height: 22 };
const RANK = { critical: 0, warning: 1, ok: 2, offline: 3 };
const late = (model) => (model?.calls ? (100 * (model.late ?? 0)) / model.calls : null);

export const COLUMNS = [
  { key: "health", title: "Health", of: (one) => RANK[healthOf(one)] },
  { key: "device", title: "Device", of: (one) => one.device },
  { key: "variant", title: "Runs", of: (one) => leading(one)?.variant },
  { key: "on", title: "On", of: (one) => leading(one)?.on },
  { key: "p95", title: "p95", unit: true, number: true, of: (one) => leading(one)?.p95_ms },
  { key: "spark", title: "p95", sub: "last 15 min" },
  { key: "late", title: "Late", unit: true, number: true, of: (one) => late(leading(one)) },
  { key: "temp", title: "Temp", number: true, of: (one) => one.temp_c },
  { key: "battery", title: "Battery", number: true, of: (one) => one.battery_pct },
  { key: "power", title: "Power", number: true, of: (one) => one.power_w },
  { key: "seen", title: "Seen", number: true, of: (one) => (one.last_seen ? -one.last_seen : null) },
];

// What is not known comes last, whichever way the rest is sorted.
export function inOrder(list, { key, down }) {
  const { of } = COLUMNS.find((column) => column.key === key);
  const keyed = list.map((one) => ({ device: one.device, key: of(one) ?? null }));
  const sign = down ? -1 : 1;
  keyed.sort((a, b) => {
    if (a.key === null || b.key === null) {
      if (a.key !== b.key) return a.key === null ? 1 : -1;
    } else if (a.key !== b.key) return a.key < b.key ? -sign : sign;
    return a.device < b.device ? -1 : 1;
  });
  return keyed.map((one) => one.device);
}

export function Table({ devices, sort, setSort, selected, setSelected, command }) {
  const shape = useShape();
  const grid = useRef(null);
  const body = useRef(null);
  const [view, setView] = useState({ from: 0, to: 40 });
  const [active, setActive] = useState(0);
  const anchor = useRef(null);
  const at = Math.min(active, devices.length - 1);
  changes.value; severities.value; drawn.value; // what a cell is made of

  useLayoutEffect(() => {
    const scroller = body.current.closest("main");
    const look = () => {
      const above = body.current.getBoundingClientRect().top - scroller.getBoundingClientRect().top;
      const from = Math.max(0, Math.floor(-above / shape.row) - BEYOND);
      const to = Math.min(devices.length, Math.ceil((scroller.clientHeight - above) / shape.row) + BEYOND);
      setView((old) => (old.from === from && old.to === to ? old : { from, to }));
    };
    look();
    scroller.addEventListener("scroll", look, { passive: true });
    const sized = new ResizeObserver(look);
    sized.observe(scroller);
    return () => {
      scroller.removeEventListener("scroll", look);
      sized.disconnect();
    };
  }, [devices, shape]);

  const inView = devices.slice(view.from, view.to);
  const minute = Math.floor(now.value / 60);
  useEffect(() => {
    const timer = setTimeout(() => want(inView.filter((device) => rowOf(device)?.online)), PAUSE_MS);
    return () => clearTimeout(timer);
  }, [inView.join(), minute]);

  const move = (to) => {
    const next = Math.max(0, Math.min(devices.length - 1, to));
    setActive(next);
    const scroller = body.current.closest("main");
    const covered = grid.current.querySelector(".head").getBoundingClientRect().bottom - scroller.getBoundingClientRect().top;
    const top = body.current.getBoundingClientRect().top - scroller.getBoundingClientRect().top + next * shape.row;
    if (top < covered) scroller.scrollTop += top - covered;
    else if (top + shape.row > scroller.clientHeight) scroller.scrollTop += top + shape.row - scroller.clientHeight;
  };
  const toggle = (index, range = false) => {
    if (!mayOperate.value) return;
    const from = range && anchor.current !== null ? anchor.current : index;
    anchor.current = index;
    setSelected((old) => {
      const next = new Set(old);
      const on = !next.has(devices[index]);
      for (let i = Math.min(from, index); i <= Math.max(from, index); i += 1) if (on) next.add(devices[i]); else next.delete(devices[i]);
      return next;
    });
  };
  const all = () => mayOperate.value && setSelected((old) => (old.size ? new Set() : new Set(devices)));
  const hear = (event) => {
    if (event.target !== grid.current || event.ctrlKey || event.metaKey || event.altKey) return;
    const page = Math.max(1, Math.floor(grid.current.closest("main").clientHeight / shape.row) - 3);
    const does = {
      ArrowDown: () => move(at + 1), ArrowUp: () => move(at - 1), PageDown: () => move(at + page), PageUp: () => move(at - page),
      Home: () => move(0), End: () => move(devices.length - 1),
      Enter: () => devices[at] && go(deviceLink(devices[at]).slice(1)),
      " ": () => devices[at] && toggle(at, event.shiftKey),
      a: all, c: () => selected.size && command(),
    }[event.key];
    if (!does) return;
    event.preventDefault();
    does();
  };
  const window_s = useMemo(() => commonWindow(inView), [inView.join(), minute]);

  return html`<div class=${`table ${mayOperate.value ? "selects" : ""}`} role="grid" aria-label="Devices" tabindex="0" ref=${grid} onKeyDown=${hear}
      aria-rowcount=${devices.length + 1} aria-multiselectable=${mayOperate.value ? "true" : null}
      aria-activedescendant=${at >= view.from && at < view.to ? `row-${at}` : null}>
    <div class="head" role="rowgroup"><div class="tr" role="row" aria-rowindex="1">
      ${mayOperate.value && html`<span role="columnheader" class="pick"><input type="checkbox" tabindex="-1" aria-label="Select all that are shown"
        checked=${devices.length > 0 && selected.size >= devices.length} onChange=${all} /></span>`}
      ${COLUMNS.map((column) => html`<span key=${column.key} role="columnheader" class=${`${column.key} ${column.number ? "number" : ""}`}
          aria-sort=${sort.key === column.key ? (sort.down ? "descending" : "ascending") : null}>
        ${column.of ? html`<button type="button" onClick=${() => setSort(turned(sort, column))}><span>${column.title}${column.unit && window_s
          ? html`<small>${window_s}</small>` : ""}</span><em aria-hidden="true">${sort.key === column.key ? (sort.down ? "↓" : "↑") : ""}</em></button>`
          : html`${column.title}${column.sub && html`<small>${column.sub}</small>`}`}
      </span>`)}
    </div></div>
    <div class="body" role="rowgroup" ref=${body} style=${{ height: `${devices.length * shape.row}px` }}>
      ${inView.map((device, offset) => {
        const index = view.from + offset;
        const one = rowOf(device);
        return one && html`<${Row} key=${device} one=${one} index=${index} height=${shape.row} phone=${shape.phone} active=${index === at}
          picked=${selected.has(device)} activate=${setActive} toggle=${toggle} />`;
      })}
    </div>
  </div>`;
}

function Row({ one, index, height, phone, active, picked, activate, toggle }) {
  const model = leading(one);
  const health = healthOf(one);
  const open = (event) => {
    activate(index);
    if (event.target.closest(".pick, a") || event.ctrlKey || event.metaKey || getSelection().toString()) return;
    go(deviceLink(one.device).slice(1));
  };
  const more = (one.models?.length ?? 0) - 1;
  const share = late(model);
  const over = windowOf(one.window_s);
  const throttled = one.throttle && one.throttle !== "none";
  return html`<div class=${`tr ${active ? "active" : ""} ${picked ? "picked" : ""} ${one.online ? "" : "away"}`} role="row" id=${`row-${index}`}
      aria-rowindex=${index + 2} aria-selected=${picked ? "true" : "false"} style=${{ transform: `translateY(${index * height}px)` }} onClick=${open}>
    ${mayOperate.value && html`<span role="gridcell" class="pick" onClick=${(e) => { if (e.target.tagName !== "INPUT") toggle(index, e.shiftKey); }}>
      <input type="checkbox" tabindex="-1" aria-label=${`Select ${plain(one.device, 80)}`} checked=${picked} onClick=${(e) => toggle(index, e.shiftKey)} /></span>`}
    <span role="gridcell" class="health"><${Health} value=${health} bare=${phone} />${one.alerts > 0 && html`<b class="count" title=${`${one.alerts} open alerts`}>${one.alerts}</b>`}</span>
    <span role="gridcell" class="device" title=${plain(one.device, 130)}><a href=${deviceLink(one.device)} tabindex="-1"><bdi>${plain(one.device, 80)}</bdi></a>
      <small><bdi>${plain(one.profile ?? one.board ?? "no profile", 40)}</bdi>${Object.entries(one.labels ?? {}).slice(0, 3).map(
        ([key, value]) => html`<bdi class="label" key=${key}>${plain(key, 20)}=${plain(value, 24)}</bdi>`)}${one.in_step === false && html`<b class="step" title="It has not applied what is desired of it">differs</b>`}</small></span>
    <span role="gridcell" class="variant"><bdi>${plain(model?.variant, 48)}</bdi>
      <small>${model ? html`<bdi>${plain(model.name, 32)}</bdi>${model.pinned ? " · pinned" : model.code ? ` · ${model.code}` : ""}` : "no model"}${more > 0 ? ` · +${more}` : ""}</small></span>
    <span role="gridcell" class="on">${model?.on ? html`<bdi class="chip">${plain(model.on, 20)}</bdi>` : html`<span class="soft">${NOTHING}</span>`}</span>
    <span role="gridcell" class="p95 number" title=${over && `95th percentile ${over}`}>${millis(model?.p95_ms)}</span>
    ${phone ? "" : html`<span role="gridcell" class="spark"><${Spark} device=${one.device} /></span>`}
    <span role="gridcell" class=${`late number ${share > 0 ? "some" : ""}`} title=${over && `share of late answers ${over}`}>${percent(share, share > 0 && share < 10 ? 1 : 0)}</span>
    <span role="gridcell" class=${`temp number ${throttled ? "hot" : ""}`} title=${throttled ? `throttled: ${one.throttle}` : ""}>${celsius(one.temp_c)}</span>
    <span role="gridcell" class="battery number">${absent(one.battery_pct) ? html`<span class="soft">${phone ? "" : one.window_s ? "mains" : NOTHING}</span>` : html`${percent(one.battery_pct)}${one.charging ? html`<${Icon} name="charge" />` : ""}`}</span>
    <span role="gridcell" class="power number" title=${one.power_estimated ? "estimated by the device's model of its board" : ""}>${one.power_estimated ? "≈ " : ""}${watts(one.power_w)}</span>
    <span role="gridcell" class="seen number" title=${moment(one.last_seen)}>${ago(one.last_seen, now.value)}</span>
  </div>`;
}

function Spark({ device }) {
  const values = spark(device);
  const known = values?.filter((value) => value !== null) ?? [];
  if (!known.length) return html`<svg viewBox=${`0 0 ${SPARK.width} ${SPARK.height}`} aria-hidden="true"></svg>`;
  const text = `p95 over the last 15 min: ${millis(Math.min(...known))} to ${millis(Math.max(...known))}`;
  return html`<svg viewBox=${`0 0 ${SPARK.width} ${SPARK.height}`} role="img" aria-label=${text}><title>${text}</title><path d=${path(values, SPARK.width, SPARK.height)} /></svg>`;
}

export function turned(sort, column) {
  if (sort.key === column.key) return { key: column.key, down: !sort.down };
  return { key: column.key, down: Boolean(column.number) && column.key !== "seen" && column.key !== "battery" };
}

function commonWindow(devices) {
  let least = Infinity;
  let most = 0;
  for (const device of devices) {
    const window_s = rowOf(device)?.window_s;
    if (window_s) { least = Math.min(least, window_s); most = Math.max(most, window_s); }
  }
  if (!most) return "";
  return duration(least) === duration(most) ? `over ${duration(most)}` : `over ${duration(least)}–${duration(most)}`;
}

function useShape() {
  const narrow = useMemo(() => matchMedia("(max-width: 860px)"), []);
  const [is, set] = useState(narrow.matches);
  useEffect(() => {
    const look = () => set(narrow.matches);
    narrow.addEventListener("change", look);
    return () => narrow.removeEventListener("change", look);
  }, []);
  return is ? PHONE : WIDE;
}
