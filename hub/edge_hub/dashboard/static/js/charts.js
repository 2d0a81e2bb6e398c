// A device over time: what ran, drawn over latency, temperature, battery and power on one axis of time, with a mark at
// every switch. uPlot draws; what stands under the pointer is told in words above each chart.
import uPlot from "uplot";
import { html, useEffect, useLayoutEffect, useMemo, useRef, useState } from "./bound.js";
import { NOTHING, byName, celsius, duration, millis, moment, number, percent, plain, watts } from "./format.js";

const AXIS_PX = 58;
const LANE_PX = 24;
const CHART_PX = 112;
const GAP_STEPS = 2.5; // without a report for so long there is no line

const sheet = document.createElement("link");
sheet.rel = "stylesheet";
sheet.href = new URL("../../vendor/uPlot.min.css", import.meta.url).href;
document.head.append(sheet);

const mid = (value) => (value ? value[1] : null);
const CHARTS = [
  { key: "latency", title: "Latency", unit: millis, zero: true, lines: [
    { name: "p95", colour: "--v0", of: (p) => p.p95_ms }, { name: "p50", colour: "--v2", of: (p) => p.p50_ms, thin: true }] },
  { key: "temp", title: "Temperature", unit: (v) => celsius(v), lines: [
    { name: "mean", colour: "--v5", of: (p) => mid(p.temp_c) },
    { name: "most", colour: "--v5", of: (p) => p.temp_c?.[2], edge: true }, { name: "least", colour: "--v5", of: (p) => p.temp_c?.[0], edge: true }] },
  { key: "battery", title: "Battery", unit: (v) => percent(v), fixed: [0, 100], lines: [{ name: "charge", colour: "--v4", of: (p) => p.battery_pct }] },
  { key: "power", title: "Power", unit: watts, zero: true, lines: [
    { name: "mean", colour: "--v6", of: (p) => mid(p.power_w) },
    { name: "most", colour: "--v6", of: (p) => p.power_w?.[2], edge: true }, { name: "least", colour: "--v6", of: (p) => p.power_w?.[0], edge: true }] },
];

// Points with a hole wherever the device was silent.
function holed(points, step_s) {
  const found = [];
  let last = null;
  for (const point of points) {
    if (last !== null && point.at - last > step_s * GAP_STEPS) found.push({ at: last + step_s });
    found.push(point);
    last = point.at;
  }
  return found;
}

// {model: [{variant, from, to}]}, from the seconds each variant ran within each step.
function segments(points, step_s) {
  const lanes = byName();
  for (const point of points) {
    const best = byName();
    for (const [key, seconds] of Object.entries(point.variants ?? {})) {
      const slash = key.indexOf("/");
      const model = key.slice(0, slash);
      if (!best[model] || seconds > best[model].seconds) best[model] = { variant: key.slice(slash + 1), seconds };
    }
    for (const [model, { variant }] of Object.entries(best)) {
      const lane = (lanes[model] ??= []);
      const end = lane.at(-1);
      if (end && end.variant === variant && point.at - end.to <= step_s * GAP_STEPS) end.to = point.at + step_s;
      else {
        if (end && point.at - end.to <= step_s * GAP_STEPS) end.to = point.at;
        lane.push({ variant, from: point.at, to: point.at + step_s });
      }
    }
  }
  return lanes;
}

// Lanes, the variants in them, and the charts that have something to show.
function laidOut({ points, step_s }) {
  const all = holed(points, step_s);
  const lanes = segments(points, step_s);
  const variants = [...new Set(Object.values(lanes).flat().map((one) => one.variant))].sort();
  const there = CHARTS.map((chart) => ({ ...chart, data: [all.map((p) => p.at), ...chart.lines.map((line) => all.map((p) => line.of(p) ?? null))] }))
    .filter((chart) => chart.data.slice(1).some((column) => column.some((value) => value !== null)));
  return { lanes, variants, there };
}

export function Charts({ history, since, until, switches, marked, estimated }) {
  const colours = useColours();
  const { lanes, variants, there } = useMemo(() => laidOut(history), [history]);
  const colourOf = (variant) => colours(`--v${variants.indexOf(variant) % 8}`);
  if (!history.points.length) {
    return html`<p class="soft nothing">No reports within this time. A device reports every 10 s unless told otherwise; a longer window may show older ones.</p>`;
  }
  const shared = { since, until, switches, marked, colours };
  return html`<div class="charts">
    ${Object.entries(lanes).map(([model, lane]) => html`<${Lane} key=${`lane-${model}`} model=${model} lane=${lane} colourOf=${colourOf} ...${shared} />`)}
    <ul class="legend">${variants.map((variant) => html`<li key=${variant}><i style=${{ background: colourOf(variant) }}></i><bdi>${plain(variant, 48)}</bdi></li>`)}
      <li><i class="mark-switch"></i>switch</li></ul>
    ${there.map((chart, index) => html`<${Chart} key=${chart.key} chart=${chart} step_s=${history.step_s} last=${index === there.length - 1}
      estimated=${chart.key === "power" && estimated} ...${shared} />`)}
  </div>`;
}

function Chart({ chart, step_s, last, since, until, switches, marked, colours, estimated }) {
  const plot = useRef(null);
  const state = useRef({});
  state.current = { since, until, switches, marked, colours };
  const [at, setAt] = useState(null);
  const make = (box, width) => new uPlot({
    width, height: CHART_PX + (last ? 26 : 0), padding: [6, 0, 4, 0], legend: { show: false },
    cursor: { sync: { key: "device" }, drag: { x: false, y: false }, y: false, points: { size: 6 } },
    scales: {
      x: { time: true, range: () => [state.current.since, state.current.until] },
      y: { range: (_, least, most) => ranged(chart, least, most) },
    },
    axes: [
      { show: last, size: 26, stroke: colours("--soft"), font: "11px system-ui", grid: { show: false }, ticks: { show: false }, gap: 4, space: 80,
        values: (_, ticks) => ticks.map((tick) => (until - since > 86_400 ? days : minutes).format(tick * 1000)) },
      { size: AXIS_PX, stroke: colours("--soft"), font: "11px system-ui", gap: 6, space: 34, grid: { stroke: colours("--line"), width: 1 }, ticks: { show: false },
        values: (_, ticks) => ticks.map((tick) => chart.unit(tick).replace(/\.0+(?= |$)/, "")) },
    ],
    series: [{}, ...chart.lines.map((line) => ({
      stroke: line.edge ? "transparent" : colours(line.colour), width: line.thin ? 1 : 1.6, points: { show: false }, spanGaps: false,
    }))],
    bands: chart.lines[1]?.edge ? [{ series: [2, 3], fill: `${colours(chart.lines[1].colour).replace(")", " / 0.18)")}` }] : [],
    hooks: {
      draw: [(u) => marks(u, state.current)],
      setCursor: [(u) => setAt(u.cursor.idx ?? null)],
    },
  }, chart.data, box);
  const box = usePlot(plot, make, [chart.key, colours, last, until - since > 86_400]);
  useEffect(() => { plot.current?.setData(chart.data); }, [chart.data]);
  useEffect(() => { plot.current?.redraw(); }, [switches, marked]);
  const index = at ?? latest(chart.data);
  const summary = told(chart, step_s);
  return html`<figure class="chart" aria-label=${summary}>
    <figcaption><h3>${chart.title}</h3><span class="soft">${chart.key === "battery" ? "last" : chart.key === "latency" ? "" : "mean, least to most"} per ${duration(step_s)}${estimated ? ", estimated" : ""}</span>
      <output>${at !== null && html`<time title=${moment(chart.data[0][index])}>${timeOf(chart.data[0][index])}</time>`}${chart.lines.map((line, n) => line.edge ? "" : html`<span key=${line.name}><i style=${{ background: colours(line.colour) }}></i>${line.name} <b>${estimated ? "≈ " : ""}${index === null ? NOTHING : chart.unit(chart.data[n + 1][index])}</b></span>`)}</output></figcaption>
    <div ref=${box}></div></figure>`;
}

function Lane({ model, lane, colourOf, since, until, switches, marked, colours }) {
  const plot = useRef(null);
  const state = useRef({});
  state.current = { lane, colourOf, since, until, switches: switches.filter((one) => one.model === model), marked, colours };
  const [at, setAt] = useState(null);
  const make = (box, width) => new uPlot({
    width, height: LANE_PX, padding: [0, 0, 0, 0], legend: { show: false },
    cursor: { sync: { key: "device" }, drag: { x: false, y: false }, y: false, points: { show: false } },
    scales: { x: { time: true, range: () => [state.current.since, state.current.until] }, y: { range: [0, 1] } },
    axes: [{ show: false }, { size: AXIS_PX, values: () => [], grid: { show: false }, ticks: { show: false } }],
    series: [{}, { show: false }],
    hooks: {
      draw: [(u) => { bars(u, state.current); marks(u, state.current); }],
      setCursor: [(u) => setAt(u.cursor.left >= 0 ? u.posToVal(u.cursor.left, "x") : null)],
    },
  }, [[since, until], [0, 0]], box);
  const box = usePlot(plot, make, [colours]);
  useEffect(() => { plot.current?.setData([[since, until], [0, 0]]); }, [lane, since, until]);
  useEffect(() => { plot.current?.redraw(); }, [marked, switches]);
  const one = at === null ? lane.at(-1) : lane.find((each) => each.from <= at && at < each.to);
  const text = lane.map((each) => `${plain(each.variant, 48)} for ${duration(each.to - each.from)}`).slice(-12).join(", ");
  return html`<figure class="chart lane" aria-label=${`What ran of ${plain(model, 48)}: ${text}`}>
    <figcaption><h3><bdi>${plain(model, 48)}</bdi></h3><output>${at !== null && html`<time>${timeOf(at)}</time>`}<span>${one ? html`<i style=${{ background: colourOf(one.variant) }}></i><b>${plain(one.variant, 48)}</b>` : NOTHING}</span></output></figcaption>
    <div ref=${box}></div></figure>`;
}

// ------------------------------------------------------------------------------------------------------ drawing

function bars(u, { lane, colourOf }) {
  const { ctx, bbox } = u;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  for (const one of lane) {
    const from = u.valToPos(one.from, "x", true);
    const to = u.valToPos(one.to, "x", true);
    ctx.fillStyle = colourOf(one.variant);
    ctx.fillRect(from, bbox.top, Math.max(1, to - from - 1), bbox.height);
    const size = 11 * devicePixelRatio;
    ctx.font = `600 ${size}px system-ui`;
    if (ctx.measureText(one.variant).width + 2 * size < to - from) {
      ctx.fillStyle = "#fff";
      ctx.shadowColor = "rgb(0 0 0 / 0.55)";
      ctx.shadowBlur = 3 * devicePixelRatio;
      ctx.textAlign = "left";
      ctx.textBaseline = "middle";
      ctx.fillText(one.variant, Math.max(from, bbox.left) + size * 0.7, bbox.top + bbox.height / 2);
      ctx.shadowBlur = 0;
    }
  }
  ctx.restore();
}

function marks(u, { switches, marked, colours }) {
  const { ctx, bbox } = u;
  ctx.save();
  for (const one of switches) {
    const x = Math.round(u.valToPos(one.at, "x", true)) + 0.5;
    if (x < bbox.left || x > bbox.left + bbox.width) continue;
    const loud = marked === one.id;
    ctx.strokeStyle = colours(loud ? "--text" : "--soft");
    ctx.globalAlpha = loud ? 1 : 0.55;
    ctx.lineWidth = (loud ? 2 : 1) * devicePixelRatio;
    ctx.setLineDash(loud ? [] : [3 * devicePixelRatio, 3 * devicePixelRatio]);
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
  }
  ctx.restore();
}

function ranged(chart, least, most) {
  if (chart.fixed) return chart.fixed;
  if (least === null || most === null) return [0, 1];
  if (chart.zero) return [0, most * 1.15 || 1];
  const span = Math.max(most - least, 4);
  return [least - span * 0.12, most + span * 0.12];
}

function latest(data) {
  for (let i = data[0].length - 1; i >= 0; i -= 1) if (data[1][i] !== null) return i;
  return null;
}

function told(chart, step_s) {
  const known = chart.data[1].filter((value) => value !== null);
  return `${chart.title}, ${number(known.length)} points of ${duration(step_s)}: from ${chart.unit(Math.min(...known))} to ${chart.unit(Math.max(...known))}, last ${chart.unit(known.at(-1))}`;
}

const minutes = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const days = new Intl.DateTimeFormat("en-GB", { weekday: "short", day: "numeric" });
const clock = new Intl.DateTimeFormat("en-GB", { weekday: "short", hour: "2-digit", minute: "2-digit", second: "2-digit" });

function timeOf(at) {
  return clock.format(at * 1000);
}

// A plot that lives as long as its place on the page and is as wide as that.
function usePlot(plot, make, reasons) {
  const box = useRef(null);
  useLayoutEffect(() => {
    const made = make(box.current, box.current.clientWidth);
    plot.current = made;
    const sized = new ResizeObserver(() => {
      const width = box.current?.clientWidth;
      if (width && width !== made.width) made.setSize({ width, height: made.height });
    });
    sized.observe(box.current);
    return () => {
      sized.disconnect();
      made.destroy();
      plot.current = null;
    };
  }, reasons);
  return box;
}

// The sheet's colours as a canvas takes them; another function when they change, so that what was drawn is drawn again.
function useColours() {
  const [found, set] = useState(() => readColours());
  useEffect(() => {
    const again = () => set(() => readColours());
    const dark = matchMedia("(prefers-color-scheme: dark)");
    dark.addEventListener("change", again);
    addEventListener("edge-theme", again);
    return () => {
      dark.removeEventListener("change", again);
      removeEventListener("edge-theme", again);
    };
  }, []);
  return found;
}

function readColours() {
  const probe = document.createElement("i");
  document.body.append(probe);
  const known = {};
  for (const name of ["--text", "--soft", "--line", ...Array.from({ length: 8 }, (_, i) => `--v${i}`)]) {
    probe.style.color = `var(${name})`;
    // "rgb(1, 2, 3)" as "rgb(1 2 3)", to which an opacity can be added.
    known[name] = getComputedStyle(probe).color.replaceAll(",", "");
  }
  probe.remove();
  return (name) => known[name];
}
