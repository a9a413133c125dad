// Interactive figures, drawn by plotly; its code is in the page, packed, and is unpacked for the first figure in sight.
let library = null;
const drawn = new Map();

function plotly() {
  library ??= unpack("library-plotly").then((found) => found.text()).then((code) => {
    document.head.append(element("script", {}, code)); // allowed by the policy: its hash is listed
    return window.Plotly;
  });
  return library;
}

const FRONT_LIMIT = 3000, CELLS = 60;
const FAMILY_LOOK = {
  matmul: ["#0072b2", ""], fft: ["#d55e00", "/"], elementwise: ["#009e73", "."], reduction: ["#b8568f", "x"],
  copy: ["#c98a00", "\\"], native: ["#3b3b98", "|"], other: ["#8a8a8a", "-"],
};

let printing = false; // paper is light, whatever the theme

function colors() {
  if (printing) return { paper: "#ffffff", ink: "#000000", faint: "#444444", line: "#bbbbbb", dark: false };
  const style = getComputedStyle(document.documentElement);
  const read = (name) => style.getPropertyValue(name).trim();
  return { paper: read("--paper"), ink: read("--ink"), faint: read("--faint"), line: read("--line"), dark: read("--dark") === "1" };
}

// A colour that can be seen on the page's ground: dark ones are lightened in the dark theme.
function visible(color) {
  if (!colors().dark) return color;
  const parts = [1, 3, 5].map((i) => parseInt(color.slice(i, i + 2), 16));
  const light = (0.299 * parts[0] + 0.587 * parts[1] + 0.114 * parts[2]) / 255;
  const mix = light < 0.25 ? 0.62 : light < 0.5 ? 0.38 : 0.12;
  return `rgb(${parts.map((part) => Math.round(part + (255 - part) * mix)).join(",")})`;
}

function layout(more = {}) {
  const c = colors(), axis = { gridcolor: c.line, zerolinecolor: c.line, linecolor: c.faint, tickcolor: c.faint, automargin: true };
  const { xaxis = {}, yaxis = {}, ...rest } = more;
  return {
    paper_bgcolor: c.paper, plot_bgcolor: c.paper, font: { color: c.ink, size: 13, family: "system-ui, DejaVu Sans, sans-serif" },
    height: 400, margin: { l: 64, r: 20, t: 24, b: 64 }, hovermode: "closest", hoverlabel: { align: "left", bgcolor: c.paper, bordercolor: c.faint, font: { color: c.ink } },
    legend: { orientation: "h", y: -0.22, itemclick: false, itemdoubleclick: false }, xaxis: { ...axis, ...xaxis }, yaxis: { ...axis, ...yaxis }, ...rest,
  };
}

const OPTIONS = { responsive: true, displaylogo: false, scrollZoom: false, modeBarButtons: [["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]] };

// Draw; pressing a point opens its record.
async function draw(host, traces, format, open) {
  const Plotly = await plotly();
  const first = !drawn.has(host);
  drawn.set(host, () => draw(host, traces, format, open));
  await Plotly.react(host, traces(), layout(format()), OPTIONS);
  if (!first) return;
  host.on("plotly_click", (event) => open(event.points[0].customdata));
}

// The keyboard walks from point to point: left and right move, Enter opens the record.
function keyboard(host, said, open) {
  let at = -1;
  host.addEventListener("keydown", (event) => {
    const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const points = (host.data ?? []).flatMap((trace, curve) =>
      trace.hoverinfo === "skip" ? [] : (trace.x ?? []).map((x, i) => ({ x, curve, i })).filter((p) => typeof p.x === "number" && trace.customdata));
    if (!(move || event.key === "Enter") || !points.length || event.target !== host) return;
    event.preventDefault(); // else Enter would press the opened dialog's button at once
    points.sort((a, b) => a.x - b.x || a.curve - b.curve || a.i - b.i);
    if (!move) return points[at] && open(host.data[points[at].curve].customdata[points[at].i]);
    at = (at + move + points.length) % points.length;
    const { curve, i } = points[at];
    window.Plotly.Fx.hover(host, [{ curveNumber: curve, pointNumber: i }]);
    said.textContent = `${at + 1} of ${points.length}: ${(host.data[curve].text?.[i] ?? "").replaceAll("<br>", "; ")}`;
  });
}

function repaint() {
  for (const again of drawn.values()) again();
}

// Of many points the first in every cell of a logarithmic grid, one a method.
function thinned(points) {
  if (points.length <= FRONT_LIMIT) return points;
  const logs = (key) => points.map((p) => Math.log(p[key]));
  const [xs, ys] = [logs("x"), logs("y")];
  const scale = (values) => {
    const low = values.reduce((a, b) => Math.min(a, b)), high = values.reduce((a, b) => Math.max(a, b));
    return (v) => Math.round((CELLS * (v - low)) / (high - low || 1));
  };
  const [sx, sy] = [scale(xs), scale(ys)], kept = new Map();
  points.forEach((p, i) => {
    const cell = `${p.group} ${sx(xs[i])} ${sy(ys[i])}`;
    if (!kept.has(cell)) kept.set(cell, p);
  });
  return [...kept.values()];
}

// Points that no other beats: less is better across, and less (or, upward, more) is better along y.
function front(points, upward = false) {
  const sign = upward ? -1 : 1, kept = [];
  for (const p of [...points].sort((a, b) => a.x - b.x || sign * (a.y - b.y))) {
    const last = kept.at(-1);
    if (!last || sign * p.y < sign * last.y || (p.y === last.y && p.x === last.x)) kept.push(p);
  }
  return kept;
}

function marks(points, styles, names, best = new Set()) {
  const groups = new Map();
  for (const p of points) groups.has(p.group) ? groups.get(p.group).push(p) : groups.set(p.group, [p]);
  return [...groups.entries()].sort(([a], [b]) => a.localeCompare(b)).map(([group, rows]) => {
    const style = styles[group] ?? { color: "#8a8a8a", symbol: "circle" };
    return {
      type: "scatter", mode: "markers", name: plain(names[group] ?? group), x: rows.map((p) => p.x), y: rows.map((p) => p.y),
      text: rows.map((p) => p.text), customdata: rows.map((p) => p.row), hovertemplate: "%{text}<extra></extra>",
      error_y: rows.some((p) => p.low !== undefined && p.low !== null)
        ? { type: "data", symmetric: false, array: rows.map((p) => (p.high ?? p.y) - p.y), arrayminus: rows.map((p) => p.y - (p.low ?? p.y)), thickness: 1, width: 0, color: visible(style.color) }
        : undefined,
      marker: { symbol: style.symbol, color: visible(style.color), size: rows.map((p) => (best.has(p) ? 12 : 8)), line: { width: rows.map((p) => (best.has(p) ? 2 : 0.5)), color: colors().ink } },
    };
  });
}

function staircase(points) {
  const x = [], y = [];
  for (const p of points) {
    if (x.length) { x.push(p.x); y.push(y.at(-1)); }
    x.push(p.x);
    y.push(p.y);
  }
  return { type: "scatter", mode: "lines", name: "Pareto front", x, y, hoverinfo: "skip", line: { color: colors().ink, width: 1.5, dash: "dot" } };
}

// Names beside the points of a front, where they are few enough to be read.
function labels(points) {
  const few = points.length > 6 ? [] : points;
  return { type: "scatter", mode: "text", name: "names", showlegend: false, x: few.map((p) => p.x), y: few.map((p) => p.y), text: few.map((p) => plain(p.title)),
    textposition: "top right", textfont: { size: 11, color: colors().faint }, hoverinfo: "skip", cliponaxis: false };
}
