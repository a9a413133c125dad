// What the page does by itself: static tables sort, the theme turns, a row says where it is from.
function sortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, index) => {
    head.querySelector("button").addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => row.cells[index].dataset.v;
      const compare = (a, b) => {
        const x = key(a), y = key(b);
        if (x === "" || y === "") return (x === "") - (y === "");
        const difference = Number(x) - Number(y);
        const order = Number.isNaN(difference) ? x.localeCompare(y, "en", { numeric: true }) : difference;
        return down ? -order : order;
      };
      const body = table.tBodies[0];
      body.append(...[...body.rows].sort(compare));
    });
  });
}

function themes(changed) {
  const root = document.documentElement, button = document.getElementById("theme"), dark = matchMedia("(prefers-color-scheme: dark)");
  const say = () => (button.textContent = `Theme: ${root.dataset.theme ?? "as the system's"}`);
  button.hidden = false;
  button.addEventListener("click", () => {
    const next = { undefined: dark.matches ? "light" : "dark", dark: dark.matches ? undefined : "light", light: dark.matches ? "dark" : undefined }[root.dataset.theme];
    if (next) root.dataset.theme = next;
    else delete root.dataset.theme;
    say();
    changed();
  });
  dark.addEventListener("change", changed);
  say();
}

// The dialog that says where a number is from: store, row, machine, date, command, and all else of the record.
function provenance(data) {
  const dialog = document.getElementById("record"), list = dialog.querySelector("dl"), title = dialog.querySelector("h2");
  dialog.querySelector("button").addEventListener("click", () => dialog.close());
  return (row) => {
    if (row === undefined || row === null || row < 0) return;
    const command = data.has("command_method") ? `cdvft-bench time ${data.value("command_method", row)} ${data.value("command_where", row)}` : null;
    const first = ["store", "key", "machine", "environment", "created"].filter((name) => data.has(name));
    const rest = data.columns.map((column) => column.name).filter((name) => !first.includes(name) && !name.startsWith("command_") && !/_(low|high|one)$/.test(name) && name !== "setting");
    title.textContent = data.value("setting", row);
    const entry = (name, text) => [element("dt", {}, name), element("dd", { class: text === ABSENT ? "absent" : null }, text)];
    list.replaceChildren(
      ...first.flatMap((name) => entry(data.label(name), data.shown(name, row))),
      ...(command ? [element("dt", {}, "measured again by"), element("dd", {}, element("code", {}, command))] : []),
      ...rest.flatMap((name) => entry(data.label(name), data.shown(name, row))),
    );
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
  };
}

function sources(data, open) {
  const keys = data.byName.get("key"), environments = data.byName.get("environment");
  document.addEventListener("click", (event) => {
    const wanted = event.target.closest?.("button[data-key]")?.dataset.key;
    if (wanted === undefined) return;
    const [key, environment] = [wanted.slice(0, 16), wanted.slice(17)];
    const place = data.place("key", key);
    for (let row = 0; row < data.rows; row++) {
      if (keys.values[row] === place && (!environment || !environments || environments.words[environments.values[row]] === environment)) return open(row);
    }
  });
}

// Figures of data blocks of their own: a trace's launches, accuracy against cost, two campaigns.
class Panel {
  constructor(figure, data, config, open) {
    Object.assign(this, { figure, data, config, open, titles: {} });
    this.kept = Int32Array.from({ length: data.rows }, (_, i) => i);
    this.titles = Object.fromEntries(Object.entries(config.styles).map(([name, style]) => [name, style.title]));
    const figures = { timeline: TIMELINE, accuracy: ACCURACY, comparison: COMPARISON };
    Explorer.prototype.prepare.call(Object.assign(this, { axes: Explorer.prototype.axes, plots: figures }), figure);
  }
}

const TIMELINE = {
  controls() {
    return [["trace", "trace", this.data.words("trace").map((name) => [name, name])]];
  },
  traces({ trace }) {
    const data = this.data, rows = [...this.kept].filter((row) => data.value("trace", row) === trace);
    return Object.entries(FAMILY_LOOK).map(([name, [color, shape]]) => {
      const mine = rows.filter((row) => data.value("family", row) === name);
      return {
        type: "bar", orientation: "h", name, y: mine.map((row) => `${data.value("lane", row)}: ${name}`), base: mine.map((row) => data.value("start", row)),
        x: mine.map((row) => Math.max(data.value("duration", row), 0.01)), customdata: mine.map(() => null), marker: { color: visible(color), pattern: { shape, size: 5, solidity: 0.3 } },
        text: mine.map((row) => `<b>${plain(data.value("name", row))}</b><br>at ${data.shown("start", row)} µs for ${data.shown("duration", row)} µs`), textposition: "none", hovertemplate: "%{text}<extra></extra>",
      };
    }).filter((one) => one.x.length);
  },
  layout() {
    return { barmode: "overlay", xaxis: { title: { text: "µs since the first launch" } }, yaxis: { type: "category" }, showlegend: false };
  },
};

const ACCURACY = {
  controls() {
    const sources = this.data.words("source").map((name) => [name, name]);
    return [["x", "across", this.axes(["parameters", "seconds", "peak", "flops"])], ["source", "runs of", sources]];
  },
  traces({ x, source }) {
    const data = this.data, points = [];
    for (const row of this.kept) {
      const a = x ? data.value(x, row) : null, b = data.value("accuracy", row);
      if (!(a > 0) || b === null || data.value("source", row) !== source) continue;
      const text = [`<b>${plain(data.value("setting", row))}</b>`, `${plain(data.label(x))}: ${data.shown(x, row)}`, `accuracy: ${b.toFixed(1)} %`, plain(data.value("source", row))].join("<br>");
      points.push({ row, x: a, y: b, low: data.value("accuracy_low", row), high: data.value("accuracy_high", row), group: this.config.styles[data.value("method", row)]?.known ? data.value("method", row) : "other", title: data.value("setting", row), text });
    }
    const best = front(points, true);
    return [...marks(points, this.config.styles, { ...this.titles, other: "other methods" }, new Set(best)), staircase(best), labels(best)];
  },
  layout({ x }) {
    return { xaxis: { type: "log", title: { text: plain(x ? this.data.label(x) : ABSENT) } }, yaxis: { title: { text: "test accuracy [%]" } } };
  },
};

const COMPARISON = {
  controls() {
    return [["by", "marks by", [["verdict", "verdict"], ["method", "method"]]]];
  },
  traces({ by }) {
    const data = this.data, points = [];
    for (const row of this.kept) {
      const x = data.value("a", row), y = data.value("ratio", row);
      if (!(x > 0) || !(y > 0)) continue;
      const text = ["setting", "subject", "workload", "machine", "a", "b", "ratio", "verdict", "note"].filter((name) => data.has(name)).map((name) => `${plain(data.label(name))}: ${plain(data.shown(name, row))}`).join("<br>");
      points.push({ row, x, y, low: data.value("ratio_low", row), high: data.value("ratio_high", row), group: data.value(by, row), text });
    }
    const ends = points.length ? [Math.min(...points.map((p) => p.x)), Math.max(...points.map((p) => p.x))] : [];
    return [...marks(thinned(points), this.config.styles, this.titles), { type: "scatter", mode: "lines", name: "no change", x: ends, y: ends.map(() => 1), hoverinfo: "skip", line: { color: colors().faint, width: 1 } }];
  },
  layout() {
    return { xaxis: { type: "log", title: { text: plain(this.data.label("a")) } }, yaxis: { type: "log", title: { text: plain(this.data.label("ratio")) } } };
  },
};

// Figures and tables of a page of many records: packed, until they come near. They are the page's own, escaped like it.
function unpackNear() {
  const watch = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      watch.unobserve(target);
      unpacked(target.querySelector("script").textContent).then((found) => found.text()).then((html) => {
        target.innerHTML = html;
        target.style.minHeight = "";
        target.classList.add("open");
        target.querySelectorAll("table.sortable").forEach(sortable);
      });
    }
  }, { rootMargin: "1200px" });
  document.querySelectorAll(".packed").forEach((one) => watch.observe(one));
}

async function start() {
  const root = document.documentElement, has = (id) => document.getElementById(id) !== null;
  document.querySelectorAll("table.sortable").forEach(sortable);
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((one) => (one.open = true)));
  const print = (on) => {
    printing = on;
    repaint();
    for (const figure of on ? document.querySelectorAll("figure[data-plot]") : []) if (!drawn.has(figure.querySelector(".plot"))) figure.draw?.();
  };
  addEventListener("beforeprint", () => print(true));
  addEventListener("afterprint", () => print(false));
  let explorer = null;
  themes(() => { explorer?.tint(); repaint(); });
  if (!has("data-config")) return;
  if (!("DecompressionStream" in window)) throw new Error("this browser cannot unpack the data: tables and figures below are complete without");
  unpackNear();
  const config = await (await unpack("data-config")).json();
  const load = async (id) => new Data(await (await unpack(id)).arrayBuffer());
  if (has("data-records")) {
    const data = await load("data-records"), open = provenance(data);
    sources(data, open);
    explorer = new Explorer(data, config, open);
  }
  for (const [id, block] of [["timeline", "data-traces"], ["accuracy", "data-accuracy"], ["comparison", "data-comparison"]]) {
    if (!has(block)) continue;
    const data = await load(block), open = id === "comparison" ? provenance(data) : () => {};
    for (const figure of document.querySelectorAll(`figure[data-plot="${id}"]`)) new Panel(figure, data, config, open);
    if (id === "comparison") new Grid(document.getElementById("records-table"), data, { title: "rows", file: "the CSV file", open }).show();
  }
  root.dataset.ready = "yes";
}

start().catch((error) => {
  document.documentElement.dataset.ready = "failed";
  document.querySelectorAll(".failed").forEach((one) => { one.hidden = false; one.textContent = `Not interactive: ${error.message}`; });
});
