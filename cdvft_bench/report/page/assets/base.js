// Elements, numbers, axes, marks, the tooltip, the theme, and the data inside the page. Texts are always text nodes.
const model = JSON.parse(document.getElementById("model")?.textContent ?? "{}");
const byId = (id) => document.getElementById(id);

function make(tag, attributes = {}, ...children) {
  const space = /^(svg|g|path|line|rect|text|circle|polyline|tspan)$/.test(tag) ? "http://www.w3.org/2000/svg" : null;
  const one = space ? document.createElementNS(space, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) one.addEventListener(name.slice(2), value);
    else one.setAttribute(name, value === true ? "" : value);
  }
  one.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
  return one;
}

// --- numbers -------------------------------------------------------------------------------

const known = (value) => typeof value === "number" && Number.isFinite(value);

function significant(value, digits = 3) {
  if (!known(value)) return "not measured";
  if (value === 0) return "0";
  const exponent = Math.floor(Math.log10(Math.abs(value)));
  if (exponent < -4 || exponent > 14) return value.toExponential(digits - 1);
  const decimals = Math.max(0, digits - 1 - exponent);
  return value.toLocaleString("en", { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
}

function short(value) {
  if (!known(value)) return "not measured";
  for (const [size, prefix] of [[1e15, "P"], [1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]])
    if (Math.abs(value) >= size * 0.9995) return `${Number((value / size).toPrecision(3))}${prefix}`;
  return `${Number(value.toPrecision(3))}`;
}

function seconds(value) {
  if (!known(value)) return "not measured";
  return value >= 1 ? `${significant(value)} s` : value >= 1e-3 ? `${significant(value * 1e3)} ms` : `${significant(value * 1e6)} µs`;
}

// Two decimals; none of a hundred or more, one digit of what two decimals would call nothing.
const ratio = (v) => (v >= 99.5 ? v.toFixed(0) : v > 0 && v < 0.005 ? `${Number(v.toPrecision(1))}` : v.toFixed(2));

const WRITE = {
  count: (v) => (known(v) ? Math.round(v).toLocaleString("en") : "not measured"),
  ratio: (v) => (known(v) ? ratio(v) : "not measured"),
  seconds, flops: short, number: (v) => significant(v, 3),
  bytes: (v) => (known(v) ? short(v).replace(/^(-?[\d.]+)(\D?)$/, "$1 $2B") : "not measured"),
};

function bounded(value, low, high, write = ratio) {
  if (!known(value)) return "not measured";
  return known(low) && known(high) ? `${write(value)} [${write(low)}, ${write(high)}]` : `${write(value)} [no interval]`;
}

// --- axes ----------------------------------------------------------------------------------

const MOST_TICKS = 5;

function spaced(values) {  // at most five, evenly picked
  const step = Math.ceil(values.length / MOST_TICKS);
  return values.filter((_, i) => i % step === 0);
}

function logTicks(low, high) {
  const first = Math.floor(Math.log10(low)), last = Math.ceil(Math.log10(high));
  for (const mantissas of [[1], [1, 3], [1, 2, 5], [1, 1.5, 2, 3, 5, 7]]) {
    const ticks = [];
    for (let e = first; e <= last; e++)
      for (const m of mantissas) { const t = m * 10 ** e; if (t >= low * 0.999 && t <= high * 1.001) ticks.push(Number(t.toPrecision(6))); }
    if (ticks.length >= 3) return spaced(ticks);
  }
  return linearTicks(low, high);
}

function linearTicks(low, high) {
  if (!(high > low)) return [low];
  const raw = (high - low) / (MOST_TICKS - 1), size = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * size).find((s) => s >= raw * 0.999);
  const ticks = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) ticks.push(Number((k * step).toPrecision(12)));
  return spaced(ticks);
}

function scale(low, high, from, to, log) {
  const at = log ? Math.log : (v) => v, a = at(low), b = at(high);
  const place = (value) => from + (b === a ? 0.5 : (at(value) - a) / (b - a)) * (to - from);
  return Object.assign(place, { low, high, log, ticks: (log ? logTicks : linearTicks)(low, high) });
}

const measure = (() => {
  const context = document.createElement("canvas").getContext("2d");
  const family = getComputedStyle(document.body).fontFamily;
  return (text, size = 12, weight = 400) => { context.font = `${weight} ${size}px ${family}`; return context.measureText(text).width; };
})();

// The size at which all of these fit: a wide font's texts are smaller, down to three quarters, before one is cut.
const sizeFor = (texts, width, size = 12, weight = 400) =>
  Math.max(0.75 * size, Math.min(size, (size * (width - 0.5)) / Math.max(1, ...texts.map((text) => measure(text, size, weight)))));

function fitted(text, width, size = 12, weight = 400) {  // cut with an ellipsis where it is too wide
  if (measure(text, size, weight) <= width) return text;
  let kept = text;
  while (kept.length > 1 && measure(`${kept}…`, size, weight) > width) kept = kept.slice(0, -1);
  return `${kept}…`;
}

// --- marks ---------------------------------------------------------------------------------

const SHAPES = {
  circle: (r) => `M${-r},0a${r},${r} 0 1,0 ${2 * r},0a${r},${r} 0 1,0 ${-2 * r},0Z`,
  square: (r) => `M${-r},${-r}H${r}V${r}H${-r}Z`,
  up: (r) => `M0,${-1.2 * r}L${1.15 * r},${0.85 * r}H${-1.15 * r}Z`,
  down: (r) => `M0,${1.2 * r}L${1.15 * r},${-0.85 * r}H${-1.15 * r}Z`,
  left: (r) => `M${-1.2 * r},0L${0.85 * r},${1.15 * r}V${-1.15 * r}Z`,
  right: (r) => `M${1.2 * r},0L${-0.85 * r},${1.15 * r}V${-1.15 * r}Z`,
  diamond: (r) => `M0,${-1.3 * r}L${1.3 * r},0L0,${1.3 * r}L${-1.3 * r},0Z`,
  thin: (r) => `M0,${-1.4 * r}L${0.8 * r},0L0,${1.4 * r}L${-0.8 * r},0Z`,
  plus: (r) => polygonCross(r, 0), cross: (r) => polygonCross(r, Math.PI / 4),
  bar: (r) => `M${-0.35 * r},${-1.3 * r}H${0.35 * r}V${1.3 * r}H${-0.35 * r}Z`,
  star: (r) => polygon(10, (i) => (i % 2 ? 0.6 : 1.4) * r), hexagon: (r) => polygon(6, () => 1.15 * r),
  pentagon: (r) => polygon(5, () => 1.2 * r), octagon: (r) => polygon(8, () => 1.1 * r),
};

function polygon(n, radius) {
  const corner = (i) => { const a = (2 * Math.PI * i) / n - Math.PI / 2; return `${(radius(i) * Math.cos(a)).toFixed(2)},${(radius(i) * Math.sin(a)).toFixed(2)}`; };
  return `M${Array.from({ length: n }, (_, i) => corner(i)).join("L")}Z`;
}

function polygonCross(r, turn) {
  const w = 0.38 * r, l = 1.25 * r;
  const points = [[-w, -l], [w, -l], [w, -w], [l, -w], [l, w], [w, w], [w, l], [-w, l], [-w, w], [-l, w], [-l, -w], [-w, -w]];
  const turned = points.map(([x, y]) => `${(x * Math.cos(turn) - y * Math.sin(turn)).toFixed(2)},${(x * Math.sin(turn) + y * Math.cos(turn)).toFixed(2)}`);
  return `M${turned.join("L")}Z`;
}

const lookOf = (method) => model.looks?.[method] ?? { title: method, color: "#8a8a8a", dark: "#9aa0a6", shape: "circle" };
const sheet = document.head.appendChild(document.createElement("style"));
{
  const names = Object.keys(model.looks ?? {});
  const colours = (key) => names.map((name, i) => `--m${i}:${model.looks[name][key]}`).join(";");
  const dark = colours("dark");
  sheet.textContent = `:root{${colours("color")}}:root[data-theme="dark"]{${dark}}@media (prefers-color-scheme:dark){:root:not([data-theme="light"]){${dark}}}`;
  names.forEach((name, i) => { model.looks[name].paint = `var(--m${i})`; });
}
const paint = (method) => lookOf(method).paint ?? "var(--faint)";

function mark(x, y, method, { r = 5, hollow = false, opacity = 1 } = {}) {
  const d = SHAPES[lookOf(method).shape](r);
  return make("path", {
    d, transform: `translate(${x.toFixed(1)},${y.toFixed(1)})`, opacity, class: "mark",
    fill: hollow ? "var(--paper)" : paint(method), stroke: paint(method), "stroke-width": hollow ? 1.8 : 0.8,
  });
}

function swatch(method) {
  return make("svg", { viewBox: "-8 -8 16 16", width: 12, height: 12, "aria-hidden": "true" }, mark(0, 0, method, { r: 5.5 }));
}

// --- what a mark says ----------------------------------------------------------------------

const tip = byId("tip");

function tell(text, x, y) {
  tip.textContent = text;
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(8, Math.min(x + 14, innerWidth - width - 8))}px`;
  tip.style.top = `${y + 18 + height > innerHeight ? Math.max(8, y - height - 12) : y + 18}px`;
}

function telling(group, text, open = null) {  // by pointer, by keyboard, to screen readers
  group.setAttribute("tabindex", "0");
  group.setAttribute("role", open ? "button" : "img");
  group.setAttribute("aria-label", text.replaceAll("\n", "; "));
  group.addEventListener("pointermove", (event) => tell(text, event.clientX, event.clientY));
  group.addEventListener("pointerleave", () => { tip.hidden = true; });
  group.addEventListener("focus", () => {
    if (!group.matches(":focus-visible")) return;
    const box = group.getBoundingClientRect();
    tell(text, box.left + Math.min(box.width, 40), box.top);
  });
  group.addEventListener("blur", () => { tip.hidden = true; });
  if (open) {
    group.addEventListener("click", open);
    group.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); open(); } });
  }
  return group;
}

// Arrow keys go from mark to mark of one picture, which is one stop of the tab key.
function roving(svg) {
  const marks = () => [...svg.querySelectorAll("[tabindex]")];
  marks().forEach((one, i) => one.setAttribute("tabindex", i ? "-1" : "0"));
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const all = marks(), at = all.indexOf(document.activeElement);
    if (!step || at < 0) return;
    event.preventDefault();
    const next = all[(at + step + all.length) % all.length];
    all[at].setAttribute("tabindex", "-1");
    next.setAttribute("tabindex", "0");
    next.focus();
  });
}

// --- the data ------------------------------------------------------------------------------

async function unpack(id) {
  const element = byId(id);
  if (!element) return null;
  const bytes = Uint8Array.from(atob(element.textContent.trim()), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

const quoted = (word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'"'"'`)}'`);  // for a POSIX shell

class Records {
  constructor({ rows, columns }) {
    this.rows = rows;
    this.columns = columns;
    this.named = Object.fromEntries(columns.map((column) => [column.name, column]));
  }

  has(name) { return name in this.named; }

  value(name, row) {
    const column = this.named[name];
    if (!column) return null;
    return column.words ? column.words[column.values[row]] : column.values[row];
  }

  text(name, row) {
    const column = this.named[name], value = this.value(name, row);
    if (!column) return "not measured";
    if (column.words) return value || "not recorded";
    if (name === "lora" || name === "frozen") return bounded(value, this.value(`${name}_low`, row), this.value(`${name}_high`, row));
    return WRITE[column.kind](value);
  }

  where(row) {
    const v = (name) => this.value(name, row);
    const dtype = v("dtype") === "float32" ? "" : `, ${v("dtype")}`;
    return `${v("subject")} · ${v("pass")}, ${v("batch") > 1 ? `${v("batch")} × ` : ""}${WRITE.count(v("sequence"))} tokens${dtype}`;
  }

  command(row) {
    const v = (name) => quoted(String(this.value(name, row)));
    const words = ["cdvft-bench time", v("method"), this.value("hyperparameters", row), `--${this.value("kind", row) === "model" ? "model" : "layer"}`, v("subject")];
    return [...words, "--batch", v("batch"), "--tokens", v("sequence"), "--dtype", v("dtype"), "--pass", v("pass"), "--device", v("device")].filter(Boolean).join(" ");
  }

  group(row) { return ["environment", "kind", "subject", "device", "dtype", "pass", "batch", "sequence"].map((n) => this.value(n, row)).join("\u0001"); }
}

// Draws now, and again whenever its place changes its width.
function drawn(host, draw) {
  let width = 0;
  const again = () => { const now = Math.floor(host.clientWidth); if (now && now !== width) { width = now; draw(now); } };
  host.watch?.disconnect();  // what was drawn here before
  host.watch = new ResizeObserver(again);
  host.watch.observe(host);
  again();
  return () => { if (host.clientWidth) draw(Math.floor(host.clientWidth)); };
}

// Draws when it first comes near, when a link leads past it (what is drawn later would move what was linked to), before
// printing, and at last whatever is left.
const undrawn = new Map();

function lazily(host, draw) {
  const observer = new IntersectionObserver((entries) => { if (entries.some((entry) => entry.isIntersecting)) now(); }, { rootMargin: "400px" });
  const now = () => { observer.disconnect(); if (undrawn.delete(host)) draw(); };
  undrawn.set(host, now);
  observer.observe(host);
}

const drawRest = () => { while (undrawn.size) [...undrawn.values()].forEach((now) => now()); };  // one may bring others
addEventListener("beforeprint", drawRest);

function drawLater() {
  const [now] = undrawn.values();
  if (now) setTimeout(() => { now(); drawLater(); }, 60);
}

document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[href^='#']"), target = link && byId(link.hash.slice(1));
  if (target) for (const [host, now] of [...undrawn]) if (host === target || target.contains(host) || host.compareDocumentPosition(target) & 4) now();
});
