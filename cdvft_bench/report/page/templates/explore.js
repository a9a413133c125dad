// The records, filtered: one filter bar for the figures and the table under it.
const AXES = {
  front: { x: ["parameters", "adapter_flops", "launches", "saved", "peak"], y: ["frozen", "lora", "median", "energy"] },
  formula: { x: ["predicted", "flops", "traffic", "adapter_flops", "launches_formula"], y: ["median", "launches"] },
};
const MAPS = [["subject", "workload"], ["m", "p"], ["subject", "setting"]];
const SAME = { predicted: "median", launches_formula: "launches" };

function select(name, options, chosen, change, id) {
  const list = element("select", { id, onchange: (event) => change(event.target.value) });
  for (const [value, text] of options) list.append(element("option", { value, selected: value === chosen }, text));
  return element("label", { for: id }, name, list);
}

class Explorer {
  constructor(data, config, open) {
    Object.assign(this, { data, config, open, chosen: {}, text: "", methods: new Set(data.words("method")) });
    this.fields = ["subject", "workload", "dtype", "machine", "device"].filter((name) => data.words(name).length > 0);
    const timed = Math.max(0, data.byName.get("frozen").values.findIndex((value) => !Number.isNaN(value)));
    for (const name of this.fields) this.chosen[name] = data.value(name, timed) ?? "";
    this.titles = Object.fromEntries(Object.entries(config.styles).map(([name, style]) => [name, style.title]));
    this.grid = new Grid(document.getElementById("records-table"), data, { title: "records", file: "tables/records.csv", open });
    this.figures = [...document.querySelectorAll("figure[data-plot]")].filter((one) => Explorer.plots[one.dataset.plot]);
    this.bar();
    for (const one of this.figures) this.prepare(one);
    this.update();
  }

  bar() {
    const bar = document.getElementById("filters");
    this.selects = new Map();
    for (const name of this.fields) {
      const label = select(this.data.byName.get(name).title, [], "", (value) => { this.chosen[name] = value; this.update(); }, `filter-${name}`);
      this.selects.set(name, label.querySelector("select"));
      bar.append(label);
    }
    const search = element("input", { type: "search", id: "filter-text", placeholder: "setting or row key", oninput: (event) => { this.text = event.target.value.toLowerCase(); this.update(); } });
    bar.append(element("label", { for: "filter-text" }, "contains", search));
    bar.append(element("button", { type: "button", id: "filter-all", onclick: () => this.everything() }, "Show all records"));
    const chips = element("fieldset", { class: "chips" }, element("legend", {}, "Methods"));
    for (const name of this.data.words("method")) {
      const style = this.config.styles[name] ?? { title: name, glyph: "●", color: "#8a8a8a" };
      const box = element("input", { type: "checkbox", checked: true, onchange: (event) => { this.methods[event.target.checked ? "add" : "delete"](name); this.update(); } });
      const glyph = element("span", { class: "glyph", "aria-hidden": "true", "data-color": style.color }, style.glyph);
      chips.append(element("label", {}, box, glyph, style.title));
    }
    chips.append(
      element("button", { type: "button", onclick: () => this.all(true) }, "All"), element("button", { type: "button", onclick: () => this.all(false) }, "None"));
    bar.append(chips);
    this.note = element("p", { class: "note", role: "status" });
    bar.append(this.note);
    this.tint();
  }

  tint() {
    for (const one of document.querySelectorAll(".glyph")) one.style.color = visible(one.dataset.color);
  }

  all(on) {
    this.methods = new Set(on ? this.data.words("method") : []);
    for (const box of document.querySelectorAll(".chips input")) box.checked = on;
    this.update();
  }

  everything() {
    for (const name of this.fields) this.chosen[name] = "";
    this.text = document.getElementById("filter-text").value = "";
    this.all(true);
  }

  // What a row must pass to be shown, by field; those of the fields in ``without`` left aside.
  tests(without = []) {
    const data = this.data, tests = [];
    for (const field of this.fields) {
      if (this.chosen[field] === "" || without.includes(field)) continue;
      const { values } = data.byName.get(field), wanted = data.place(field, this.chosen[field]);
      tests.push({ field, pass: (row) => values[row] === wanted });
    }
    const method = data.byName.get("method"), on = method.words.map((word) => this.methods.has(word));
    if (on.includes(false)) tests.push({ field: null, pass: (row) => on[method.values[row]] });
    if (this.text) {
      const setting = data.byName.get("setting"), key = data.byName.get("key");
      const hits = setting.words.map((word) => word.toLowerCase().includes(this.text));
      tests.push({ field: null, pass: (row) => hits[setting.values[row]] || key.words[key.values[row]].includes(this.text) });
    }
    return tests;
  }

  rows(without) {
    const tests = this.tests(without), kept = [];
    for (let row = 0; row < this.data.rows; row++) if (tests.every(({ pass }) => pass(row))) kept.push(row);
    return Int32Array.from(kept);
  }

  // Rows that pass the filters, and of every field the texts that its own filter alone would hold back, if any does.
  choices() {
    const data = this.data, tests = this.tests(), kept = [];
    const found = new Map(this.fields.map((field) => [field, new Uint8Array(data.words(field).length)]));
    const seen = this.fields.map((field) => [found.get(field), data.byName.get(field).values]);
    for (let row = 0; row < data.rows; row++) {
      let failed = null, passes = true;
      for (const test of tests) {
        if (test.pass(row)) continue;
        passes = failed === null && test.field !== null;
        failed = test.field;
        if (!passes) break;
      }
      if (!passes) continue;
      if (failed !== null) found.get(failed)[data.byName.get(failed).values[row]] = 1;
      else {
        kept.push(row);
        for (const [there, values] of seen) there[values[row]] = 1;
      }
    }
    return { kept: Int32Array.from(kept), found };
  }

  update() {
    const data = this.data, collator = new Intl.Collator("en", { numeric: true });
    let { kept, found } = this.choices();
    // A choice that the other filters leave no row of is taken back; the rest then have more to choose from.
    for (const field of this.fields) {
      if (this.chosen[field] === "" || found.get(field)[data.place(field, this.chosen[field])]) continue;
      this.chosen[field] = "";
      ({ kept, found } = this.choices());
    }
    for (const [field, list] of this.selects) {
      const words = data.words(field).filter((_, i) => found.get(field)[i]).sort(collator.compare);
      list.replaceChildren(element("option", { value: "" }, `all (${words.length})`), ...words.map((word) => element("option", { value: word }, word)));
      list.value = this.chosen[field];
    }
    this.kept = kept;
    this.alike = ["subject", "workload", "dtype", "machine"].every((name) => {
      const { values } = data.byName.get(name);
      return kept.every((row) => values[row] === values[kept[0]]);
    });
    this.note.textContent = this.alike ? "" : "Several layers, workloads or machines are chosen: figures show them all, and draw no front through what cannot be compared.";
    this.grid.show(kept);
    for (const one of this.figures) if (one.ready) one.ready();
  }

  // A figure is drawn when it comes into sight.
  prepare(figure) {
    const kind = figure.dataset.plot, controls = figure.querySelector(".controls"), host = figure.querySelector(".plot");
    const state = {}, plot = (this.plots ?? Explorer.plots)[kind];
    const redraw = () => draw(host, () => plot.traces.call(this, state), () => plot.layout.call(this, state), this.open);
    for (const [name, text, options] of plot.controls.call(this)) {
      state[name] = options[0]?.[0];
      controls.append(select(text, options, state[name], (value) => { state[name] = value; redraw(); }, `${kind}-${name}`));
    }
    keyboard(host, figure.querySelector(".said"), this.open);
    figure.draw = redraw;
    const watch = new IntersectionObserver((entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      watch.disconnect();
      figure.ready = redraw;
      redraw();
    }, { rootMargin: "300px" });
    watch.observe(figure);
  }

  axes(names) {
    return names.filter((name) => this.data.has(name) && this.data.byName.get(name).values.some((v) => !Number.isNaN(v))).map((name) => [name, this.data.label(name)]);
  }

  points(x, y) {
    const data = this.data, found = [];
    for (const row of this.kept) {
      const [a, b] = [data.value(x, row), data.value(y, row)];
      if (!(a > 0) || !(b > 0) || (data.value("frozen_one", row) === "yes" && y !== "median")) continue;
      found.push({ row, x: a, y: b, group: data.value("method", row) });
    }
    return thinned(found).map((p) => ({ ...p, low: data.value(`${y}_low`, p.row), high: data.value(`${y}_high`, p.row), text: this.said(p.row, [x, y]), title: data.value("setting", p.row) }));
  }

  said(row, names) {
    const data = this.data, lines = [`<b>${plain(data.value("setting", row))}</b>`];
    for (const name of names) lines.push(`${plain(data.label(name))}: ${plain(data.shown(name, row))}`);
    lines.push(plain(`${data.value("subject", row)}, ${data.value("workload", row)}, ${data.value("dtype", row)}`));
    lines.push(plain(`${data.value("machine", row)}, ${data.value("created", row)}, row ${data.value("key", row)}`));
    return lines.join("<br>");
  }
}

Explorer.plots = {
  front: {
    controls() {
      return [["x", "across", this.axes(AXES.front.x)], ["y", "up", this.axes(AXES.front.y)]];
    },
    traces({ x, y }) {
      const points = this.points(x, y), best = this.alike ? front(points) : [];
      const made = marks(points, this.config.styles, this.titles, new Set(best));
      return best.length ? [...made, staircase(best), labels(best)] : made;
    },
    layout({ x, y }) {
      return { xaxis: { type: "log", title: { text: plain(x ? this.data.label(x) : ABSENT) } }, yaxis: { type: "log", title: { text: plain(y ? this.data.label(y) : ABSENT) } } };
    },
  },
  map: {
    controls() {
      const maps = MAPS.map(([a, b]) => [`${a} ${b}`, `${this.data.byName.get(a).title} × ${this.data.byName.get(b).title}`]);
      const methods = this.data.words("method").filter((name) => name !== "frozen");
      methods.sort((a, b) => (b === "cdvft") - (a === "cdvft"));
      return [["axes", "map", maps], ["z", "shade", this.axes(["lora", "frozen"])], ["method", "method", methods.map((name) => [name, this.titles[name] ?? name])]];
    },
    traces({ axes, z, method }) {
      const [up, across] = axes.split(" "), data = this.data, cells = new Map(), ys = new Set(), xs = new Set();
      for (const row of this.rows([up, across])) {
        const value = z ? data.value(z, row) : null, y = data.value(up, row), x = data.value(across, row);
        if (!(value > 0) || data.value("method", row) !== method || x === null || y === null) continue;
        ys.add(y);
        xs.add(x);
        const key = JSON.stringify([y, x]), cell = cells.get(key);
        cells.set(key, { n: (cell?.n ?? 0) + 1, row: !cell || value < data.value(z, cell.row) ? row : cell.row });
      }
      const collator = new Intl.Collator("en", { numeric: true }), order = (set) => [...set].sort((a, b) => collator.compare(a, b)).slice(0, 60);
      const [rows, columns] = [order(ys), order(xs)], at = (y, x) => cells.get(JSON.stringify([y, x]));
      const each = (read) => rows.map((y) => columns.map((x) => (at(y, x) ? read(at(y, x)) : null)));
      const c = colors(), most = Math.max(1, ...[...cells.values()].map(({ row }) => Math.abs(Math.log2(data.value(z, row)))));
      return [{
        type: "heatmap", x: columns.map((v) => plain(v)), y: rows.map((v) => plain(v)), z: each(({ row }) => Math.log2(data.value(z, row))),
        text: rows.map((y) => columns.map((x) => (at(y, x) ? data.value(z, at(y, x).row).toFixed(2) : ""))), texttemplate: columns.length > 14 ? "" : "%{text}", hoverongaps: false, xgap: 2, ygap: 2, zmin: -most, zmax: most,
        customdata: each(({ row }) => row), hovertext: each(({ row, n }) => `${this.said(row, [z])}<br>least of ${n}`), hovertemplate: "%{hovertext}<extra></extra>",
        colorscale: [[0, "#2a6fb0"], [0.5, c.dark ? "#3a3d44" : "#f4f4f4"], [1, "#c2620e"]],
        colorbar: { title: { text: "×" }, tickvals: [-most, 0, most], ticktext: [-most, 0, most].map((v) => (2 ** v).toFixed(2)), outlinewidth: 0, thickness: 12 },
      }];
    },
    layout({ axes }) {
      const [up, across] = axes.split(" ");
      return { xaxis: { type: "category", title: { text: plain(this.data.label(across)) } }, yaxis: { type: "category", title: { text: plain(this.data.label(up)) } } };
    },
  },
  formula: {
    controls() {
      return [["x", "predicted", this.axes(AXES.formula.x)], ["y", "measured", this.axes(AXES.formula.y)]];
    },
    traces({ x, y }) {
      const points = this.points(x, y), made = marks(points, this.config.styles, this.titles);
      if (SAME[x] !== y || !points.length) return made;
      const both = points.flatMap((p) => [p.x, p.y]), ends = [both.reduce((a, b) => Math.min(a, b)), both.reduce((a, b) => Math.max(a, b))];
      return [...made, { type: "scatter", mode: "lines", name: "agreement", x: ends, y: ends, hoverinfo: "skip", line: { color: colors().faint, dash: "dash", width: 1 } }];
    },
    layout: null,
  },
  families: {
    controls() {
      return [["n", "settings", [["12", "12"], ["24", "24"], ["48", "48"]]]];
    },
    traces({ n }) {
      const data = this.data, rows = data.sorted([...this.kept].filter((row) => data.value("launches", row) !== null), "launches", false).slice(0, Number(n));
      const y = Array.from(rows, (row) => plain(`${data.value("setting", row)}${this.alike ? "" : ` (${data.value("key", row).slice(0, 4)})`}`));
      return Object.entries(FAMILY_LOOK).map(([name, [color, shape]]) => ({
        type: "bar", orientation: "h", name, y, x: Array.from(rows, (row) => data.value(`family_${name}`, row) ?? 0), customdata: [...rows],
        text: Array.from(rows, (row) => `${this.said(row, ["launches"])}<br>${name}: ${data.value(`family_${name}`, row) ?? ABSENT}`), textposition: "none", hovertemplate: "%{text}<extra></extra>",
        marker: { color: visible(color), pattern: { shape, size: 6, solidity: 0.35 } },
      }));
    },
    layout({ n }) {
      return { barmode: "stack", height: 180 + 20 * Math.min(Number(n), Math.max(this.kept.length, 4)), xaxis: { title: { text: "launches, dispatched" } }, yaxis: { autorange: "reversed" } };
    },
  },
};
Explorer.plots.formula.layout = Explorer.plots.front.layout;
