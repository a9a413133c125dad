// Fine-tuning: fronts of accuracy against cost, differences, maps.
const STATES = { on: "on the front beyond chance", open: "whether on the front is not told", off: "beaten beyond chance" };

function costChooser(view, chosen, change) {
  if (view.costs.length < 2) return null;
  const select = make("select", { "aria-label": "Cost", onchange: () => change(select.value) });
  for (const cost of view.costs) select.append(make("option", { value: cost.name, selected: cost.name === chosen }, cost.title));
  return select;
}

function front(figure, view, { compact = false, labels = true, height = null } = {}) {
  const [caption, host, below] = ["figcaption", ".plot", ".below"].map((part) => figure.querySelector(part));
  let name = view.costs[0]?.name;
  let redraw = () => {};
  const score = view.score ?? { title: "test accuracy [%]", word: "accuracy", unit: " %", factor: 100, digits: 1 };
  const scored = (v) => (known(v) ? score.factor * v : null);
  const draw = () => {
    const cost = view.costs.find((c) => c.name === name);
    const points = view.points.filter((p) => p.costs[name]).map((p) => {
      const at = p.costs[name], share = at.share, strong = at.state ? at.state !== "off" : share >= 0.5;
      const focus = model.overview?.focus, first = Boolean(focus) && p.label.startsWith(focus);
      return {
        x: at.value, xlow: at.low, xhigh: at.high, y: scored(p.accuracy), ylow: scored(p.low), yhigh: scored(p.high),
        method: p.method, label: p.label, strong, state: at.state, hollow: at.state === "open", named: strong || (labels && (!compact || first || p.label === "LoRA r=8")), first,
        text: [p.label, `${score.word} ${bounded(scored(p.accuracy), scored(p.low), scored(p.high), (v) => v.toFixed(score.digits))}${score.unit}`,
          `${cost.title}: ${short(at.value)}${known(at.low) ? ` [${short(at.low)}, ${short(at.high)}]` : ""}`,
          view.name === "published" ? (share ? "on the front" : "") : `${STATES[at.state]}; on it in ${Math.round(100 * share)} % of draws`,
          p.seeds ? `${p.seeds} seeds, ${p.examples.toLocaleString("en")} test examples` : ""].filter(Boolean).join("\n"),
      };
    });
    const steps = [];
    for (const p of [...points].sort((a, b) => a.x - b.x || b.y - a.y)) if (!steps.length || p.y > steps.at(-1).y) steps.push(p);
    const values = points.map((p) => p.x), log = Math.max(...values) > 3 * Math.min(...values) && Math.min(...values) > 0;
    const count = (state) => points.filter((p) => p.state === state).length, chooser = costChooser(view, name, (value) => { name = value; draw(); });
    const seen = view.window, lines = (seen?.lines ?? []).map((line) => ({
      axis: "y", at: scored(line.at), bare: Boolean(line.side),
      text: `${line.label} ${bounded(scored(line.mean), scored(line.low), scored(line.high), (v) => v.toFixed(score.digits))}${score.unit}${line.side ? `, ${line.side}` : ""}`,
    }));
    const message = view.name === "published" ? `${steps.length} of ${points.length} published runs on the front of ${score.word} and cost`
      : `Of ${points.length} methods ${count("on")} on the front of accuracy and cost beyond chance, ${count("off")} beaten, ${count("open")} not told`;
    caption.replaceChildren(...[make("span", {}, message), chooser ?? make("small", {}, cost.title)].filter(Boolean));
    host.replaceChildren();
    redraw = scatter(host, points, { title: message, xTitle: cost.title, yTitle: score.title, xLog: log, steps, lines, yLimits: seen && [scored(seen.low), scored(seen.high)], height, write: [short, (v) => `${Number(v.toFixed(score.digits))}`] });
    below.replaceChildren(make("span", {}, compact ? `${view.name.replace(/ \(.*/, "")}; bars are 95 % intervals` : view.name === "published" ? "strong: on the front" : "full: on the front beyond chance; hollow: not told; faint: beaten beyond chance; bars are 95 % intervals"), ...(compact ? [] : view.missing.map((text) => make("span", {}, text))));
  };
  if (view.costs.length) draw();
  else { caption.textContent = "no cost is known of two methods"; figure.hidden = !compact; }
  return redraw;
}

function differencePlot(figure, views) {
  const [caption, host, below] = ["figcaption", ".plot", ".below"].map((part) => figure.querySelector(part));
  if (!views.length) { figure.hidden = true; return; }
  let at = 0;
  const draw = () => {
    const view = views[at], rows = [...view.rows].sort((a, b) => b.value - a.value), sure = rows.filter((r) => r.sure).length;
    const chooser = views.length < 2 ? null : make("select", { "aria-label": "Compared with", onchange: (e) => { at = Number(e.target.value); draw(); } }, views.map((v, i) => make("option", { value: i, selected: i === at }, `less ${v.against}`)));
    caption.replaceChildren(...[make("span", {}, sure ? `${sure} of ${rows.length} differ from ${view.against} beyond chance` : `None of ${rows.length} is told apart from ${view.against}`), chooser].filter(Boolean));
    host.replaceChildren();
    drawn(host, (width) => {
      const names = Math.min(170, Math.max(...rows.map((r) => measure(r.label, 12) + 22)), width * 0.45), height = rows.length * 24 + 44;
      const size = sizeFor(rows.map((r) => r.label), names - 20);
      const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "group", "aria-label": caption.textContent });
      const reach = Math.max(1, ...rows.flatMap((r) => [r.value, r.low, r.high].filter(known).map((v) => Math.abs(100 * v)))), x = scale(-reach, reach, names + 6, width - 8, false);
      for (const tick of x.ticks) {
        svg.append(make("line", { class: tick === 0 ? "one" : "rule", x1: x(tick), x2: x(tick), y1: 0, y2: rows.length * 24 }));
        svg.append(make("text", { class: "tick", x: x(tick), y: rows.length * 24 + 15, "text-anchor": "middle" }, `${tick > 0 ? "+" : ""}${tick}`));
      }
      rows.forEach((row, i) => {
        const y = i * 24 + 12, group = make("g", { opacity: row.sure ? 1 : 0.55 });
        group.append(make("rect", { class: "hit halo", x: 0, y: y - 11, width, height: 22, rx: 4 }));
        group.append(mark(6, y, row.method, { r: 4.4 }), make("text", { x: 17, y: y + 4, style: `font-size:${size}px` }, fitted(row.label, names - 20, size)));
        if (known(row.low) && known(row.high)) group.append(make("line", { x1: x(100 * row.low), x2: x(100 * row.high), y1: y, y2: y, stroke: paint(row.method), "stroke-width": 2.4, opacity: 0.6 }));
        group.append(mark(x(100 * row.value), y, row.method, { r: 4.8 }));
        svg.append(telling(group, `${row.label} less ${view.against}\n${bounded(100 * row.value, known(row.low) ? 100 * row.low : null, known(row.high) ? 100 * row.high : null, (v) => `${v > 0 ? "+" : ""}${v.toFixed(1)}`)} points\np = ${significant(row.p, 2)} after Holm's correction: ${row.sure ? "beyond chance" : "not told apart"}`));
      });
      svg.append(make("text", { class: "tick", x: width - 2, y: height - 6, "text-anchor": "end" }, "accuracy, points →"));
      host.replaceChildren(svg);
      roving(svg);
    });
    below.replaceChildren(make("span", {}, "paired by seed and example; strong: beyond chance after Holm’s correction"));
  };
  draw();
}

function heatMap(view) {
  const figure = make("figure", { class: "card heat" }), host = make("div", { class: "plot" });
  figure.append(make("figcaption", {}, view.title), host, make("p", { class: "caption" }, view.caption));
  const values = view.cells.map((cell) => cell[2]), low = Math.min(...values), high = Math.max(...values);
  drawn(host, (width) => {
    const names = 10 + Math.max(...view.rows.map((row) => measure(row, 11))), w = (width - names) / view.columns.length, h = Math.min(34, Math.max(24, w * 0.42));
    const height = view.rows.length * h + 38, at = (j) => names + (j + 0.5) * w, up = (i) => (view.rows.length - i - 0.5) * h;
    const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "group", "aria-label": view.title });
    const texts = [];
    for (const [i, j, value, starred] of view.cells) {
      const share = high > low ? (value - low) / (high - low) : 1, group = make("g", {});
      group.append(make("rect", { x: at(j) - w / 2 + 1, y: up(i) - h / 2 + 1, width: w - 2, height: h - 2, rx: 4, fill: `color-mix(in oklab, var(--accent) ${Math.round(6 + 62 * share)}%, var(--paper))`, stroke: view.framed.some(([a, b]) => a === i && b === j) ? "var(--ink)" : "none", "stroke-width": 2 }));
      texts.push(make("text", { x: at(j), y: up(i) + 4, "text-anchor": "middle", class: `over ${share > 0.92 ? "strong" : ""}` }, `${value.toFixed(1)}${starred ? "*" : ""}`));
      svg.append(telling(group, `${view.rows[i]}, ${view.columns[j]}\n${value.toFixed(1)} %${starred ? "\nbest learning rate at the edge of those tried" : ""}`));
    }
    view.lines.forEach((line, k) => {
      const inside = line.values.map((v, j) => [at(j), up(Math.max(-0.5, Math.min(v, view.rows.length - 0.5)))]);
      svg.append(make("polyline", { points: inside.map((p) => p.join(",")).join(" "), fill: "none", stroke: "var(--ink)", "stroke-width": 1.6, "stroke-dasharray": k ? "5 4" : null, opacity: 0.5 }));
    });
    svg.append(...texts);
    view.rows.forEach((row, i) => svg.append(make("text", { class: "tick", x: names - 6, y: up(i) + 4, "text-anchor": "end" }, row)));
    view.columns.forEach((column, j) => svg.append(make("text", { class: "tick", x: at(j), y: view.rows.length * h + 15, "text-anchor": "middle" }, fitted(column.replace("p = ", w < 52 ? "" : "p = "), w, 11))));
    svg.append(make("text", { class: "tick", x: width - 2, y: height - 4, "text-anchor": "end" }, `${view.column_axis} →`));
    host.replaceChildren(svg);
    roving(svg);
  });
  return figure;
}
