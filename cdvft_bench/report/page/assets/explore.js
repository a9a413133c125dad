// Any quantity against any other, small multiples; settings alike in all else are joined, and named at the line's end.
const AXES = ["lora", "frozen", "seconds", "parameters", "adapter_flops", "flops", "launches", "saved_bytes", "peak_bytes", "traffic", "p", "m", "tokens", "joules"];
const LOG = new Set(["seconds", "parameters", "adapter_flops", "flops", "launches", "saved_bytes", "peak_bytes", "traffic", "p", "tokens", "joules"]);
const SWEPT = ["p", "m", "tokens"];  // axes along which settings are joined
const MOST_FACETS = 12, MOST_MARKS = 600;

function explorer(host, records, openRecord) {
  const axes = AXES.filter((name) => records.has(name)), all = Array.from({ length: records.rows }, (_, row) => row);
  const distinct = (name, rows = all) => [...new Set(rows.map((row) => records.value(name, row)))].filter((v) => v !== "" && v !== null);
  const methods = distinct("method"), sizes = records.has("p") ? distinct("p").length : 0;
  const state = { x: sizes > 2 ? "p" : "parameters", y: axes[0], by: "workload", pass: distinct("pass").includes("step") ? "step" : "", method: "", query: "", best: true };
  const option = (name, text, selected) => make("option", { value: name, selected }, text);
  const chooser = (label, key, options) => make("label", {}, label, make("select", { "aria-label": label, onchange: (e) => { state[key] = e.target.value; draw(); } }, options.map(([value, text]) => option(value, text, state[key] === value))));
  const titled = axes.map((name) => [name, records.named[name].title]);
  const search = make("input", { type: "search", placeholder: "Filter settings", "aria-label": "Filter settings", oninput: () => { state.query = search.value.toLowerCase(); draw(); } });
  const paths = make("label", {}, make("input", { type: "checkbox", checked: true, onchange: (e) => { state.best = e.target.checked; draw(); } }), "one path a setting");
  const said = make("span", { class: "count", role: "status" }), legend = make("div", { class: "legend" }), facets = make("div", { class: "facets" });
  host.replaceChildren(make("div", { class: "tools" },
    chooser("↑", "y", titled), chooser("→", "x", titled),
    chooser("a picture for each", "by", [["workload", "workload"], ["subject", "layer or model"], ["method", "method"], ["", "no: all in one"]]),
    chooser("pass", "pass", [["", "both"], ...distinct("pass").map((v) => [v, v])]),
    chooser("method", "method", [["", "all"], ...methods.map((m) => [m, lookOf(m).title])]), paths, search, said), legend, facets);

  function chosen() {
    const words = state.query.split(/\s+/).filter(Boolean);
    const rows = all.filter((row) => {
      if (!known(records.value(state.x, row)) || !known(records.value(state.y, row))) return false;
      if (state.pass && records.value("pass", row) !== state.pass) return false;
      if (state.method && records.value("method", row) !== state.method) return false;
      const text = `${records.value("label", row)} ${records.value("subject", row)}`.toLowerCase();
      return words.every((word) => text.includes(word));
    });
    if (!state.best) return rows;
    const kept = new Map();  // auto, else the fastest
    for (const row of rows) {
      const key = `${records.group(row)}\u0001${records.value("setting", row)}`, other = kept.get(key);
      const rank = (r) => (records.value("path", r) === "auto" ? -1 : records.value("lora", r) ?? records.value("frozen", r) ?? 9e9);
      if (other === undefined || rank(row) < rank(other)) kept.set(key, row);
    }
    return [...kept.values()];
  }

  function draw() {
    const rows = chosen(), groups = new Map(), swept = SWEPT.includes(state.x);
    for (const row of rows) {
      const key = state.by === "workload" ? records.group(row) : state.by ? records.value(state.by, row) : "All records";
      if (!groups.has(key)) groups.set(key, []);
      groups.get(key).push(row);
    }
    const telling_ = [...groups].filter(([, some]) => !swept || distinct(state.x, some).length > 1).sort((a, b) => b[1].length - a[1].length);
    const kept = telling_.slice(0, MOST_FACETS);
    said.textContent = `${rows.length.toLocaleString("en")} records${telling_.length > MOST_FACETS ? `; the ${MOST_FACETS} largest of ${telling_.length} pictures` : ""}`;
    legend.replaceChildren(...distinct("method", kept.flatMap(([, some]) => some)).map((m) => make("span", {}, swatch(m), lookOf(m).title)));
    facets.replaceChildren(...kept.map(([key, some]) => facet(state.by === "workload" ? records.where(some[0]) : state.by === "method" ? lookOf(key).title : key, some, swept)));
    if (!kept.length) facets.replaceChildren(make("p", { class: "missing" }, swept ? `No setting was recorded at two values of ${state.x} with all else equal.` : "No record has both of these quantities."));
  }

  function facet(title, rows, swept) {
    const box = make("div", { class: "plot" }), [name, ...rest] = title.split(" · ");
    const series = swept ? joined(rows) : [], ends = new Map(series.map((one) => [one.rows.at(-1), one.name]));
    const points = rows.filter((_, i) => i % Math.ceil(rows.length / MOST_MARKS) === 0).map((row) => point(row, ends.get(row)));
    const span = rows.map((row) => records.value(state.y, row)), ratio = ["lora", "frozen"].includes(state.y);
    const values = distinct(state.x, rows).sort((a, b) => a - b);
    queueMicrotask(() => scatter(box, points, {
      title, xTitle: records.named[state.x].title, yTitle: records.named[state.y].title, xLog: LOG.has(state.x), yLog: LOG.has(state.y) || (ratio && Math.max(...span) > 3 * Math.min(...span)),
      labels: series.length > 1, r: 4, height: state.by ? 220 : 420, lines: ratio ? [{ axis: "y", at: 1 }] : [], connect: series.map((one) => one.points), xTicks: swept ? spaced(values) : null, margin: series.length > 1 ? 44 : 10, write: [swept ? WRITE.count : short, short],
    }));
    return make("figure", { class: "card" }, make("figcaption", {}, name, rest.length ? make("small", {}, rest.join(" · ")) : ""), box);
  }

  const point = (row, end) => ({
    x: records.value(state.x, row), y: records.value(state.y, row), method: records.value("method", row), label: end ?? "", named: Boolean(end), strong: undefined,
    ylow: records.value(`${state.y}_low`, row), yhigh: records.value(`${state.y}_high`, row), hollow: ["doubtful", "no interval"].includes(records.value("trust", row)),
    text: `${records.text("label", row)}\n${records.where(row)}\n${records.named[state.y].title}: ${records.text(state.y, row)}\n${records.named[state.x].title}: ${records.text(state.x, row)}`, open: () => openRecord(row),
  });

  function joined(rows) {
    const rest = ["method", "environment", "subject", "dtype", "device", "pass", "seed", ...SWEPT.filter((n) => n !== state.x), ...(state.best ? [] : ["path"])], found = new Map();
    for (const row of rows) {
      const key = [...rest.map((n) => records.value(n, row)), state.x === "tokens" ? records.value("setting", row) : ""].join("\u0001");
      if (!found.has(key)) found.set(key, []);
      found.get(key).push(row);
    }
    return [...found.values()].filter((some) => distinct(state.x, some).length > 1).map((some) => {
      const ordered = some.sort((a, b) => records.value(state.x, a) - records.value(state.x, b)), m = records.value("m", ordered[0]), first = lookOf(records.value("method", ordered[0])).title;
      const name = state.x === "tokens" ? records.value("setting", ordered[0]) : state.x !== "m" && known(m) ? `m=${m}` : first;
      return { rows: ordered, name, points: ordered.map((row) => ({ x: records.value(state.x, row), y: records.value(state.y, row), method: records.value("method", row) })) };
    });
  }

  draw();
}
