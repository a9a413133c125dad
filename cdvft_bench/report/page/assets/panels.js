// Ratios of times: rows are methods, a panel a layer or model, the line at 1; beside it what else they cost.
const ROW = 26, HEAD = 38, LINE = 13, FOOT = 38;
const FAR = 2.3;  // ratios beyond this are drawn as an arrow at the edge

function ratioPanels(host, below, view, { most = 4, open = null } = {}) {
  const several = new Set(view.panels.map((panel) => panel.machine)).size > 1, head = HEAD + (several ? 2 * LINE : 0);
  let first = 0;

  function perLine(width) {
    return Math.max(1, Math.min(most, Math.floor((width - nameWidth(view, width) - costWidth(view, width)) / 132)));
  }

  const rowsOf = (panels) => view.rows.filter((row) => panels.some((panel) => row.name in panel.cells));

  // Panels of few rows take several lines, as many as the first screen has room for.
  function linesOf(width) {
    if (width < 560) return [view.panels.slice(first, first + 3)];
    const each = perLine(width), lines = [], room = Math.max(320, innerHeight - host.offsetTop - 152);
    let height = 0;
    for (let at = first; at < view.panels.length; at += each) {
      const line = view.panels.slice(at, at + each), tall = head + rowsOf(line).length * ROW + FOOT + (lines.length ? 8 : 0);
      if (lines.length && height + tall > room) break;
      height += tall;
      lines.push(line);
    }
    return lines;
  }

  const redraw = drawn(host, (width) => {
    const lines = linesOf(width);
    host.replaceChildren(...lines.flatMap((line) => (width < 560 ? narrow(line, rowsOf(line), width) : [wide(line, rowsOf(line), width, perLine(width))])));
    foot(lines.flat().length);
  });

  function wide(shown, rows, width, places) {
    const names = nameWidth(view, width), costs = costWidth(view, width);
    const height = head + rows.length * ROW + FOOT, each = (width - names - costs) / Math.min(places, view.panels.length);
    const svg = picture(width, height);
    bands(svg, rows, width);
    rowNames(svg, rows, names);
    const across = domain(shown);
    shown.forEach((panel, i) => drawPanel(svg, panel, rows, names + i * each, each - 14, across));
    if (costs) drawCosts(svg, shown[0], rows, width - costs, costs);
    caption(svg, names, height, width);
    roving(svg);
    return svg;
  }

  function narrow(shown, rows, width) {
    const names = nameWidth(view, width), across = domain(shown);
    const made = shown.map((panel) => {
      const own = rows.filter((row) => row.name in panel.cells), height = head + own.length * ROW + FOOT;
      const svg = picture(width, height);
      bands(svg, own, width);
      rowNames(svg, own, names);
      drawPanel(svg, panel, own, names, width - names, across);
      caption(svg, names, height, width);
      roving(svg);
      return svg;
    });
    if (view.costs.length && shown.length) {
      const own = rows.filter((row) => row.name in shown[0].cells), svg = picture(width, head + own.length * ROW + 8);
      bands(svg, own, width);
      rowNames(svg, own, names);
      drawCosts(svg, shown[0], own, names, width - names);
      made.push(svg);
    }
    return made;
  }

  function picture(width, height) {
    return make("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "group", "aria-label": view.title });
  }

  function bands(svg, rows, width) {
    rows.forEach((row, i) => {
      const y = head + i * ROW;
      if (row.name === view.focus) svg.append(make("rect", { class: "band", x: -6, y, width: width + 12, height: ROW, rx: 6 }));
      else if (i) svg.append(make("line", { class: "rule", x1: 0, x2: width, y1: y, y2: y }));
    });
  }

  function rowNames(svg, rows, width) {
    const size = sizeFor(rows.map((row) => row.name), width - 24, 12.5, 680);
    rows.forEach((row, i) => {
      const y = head + (i + 0.5) * ROW, weight = row.name === view.focus ? 680 : 400;
      svg.append(mark(7, y, row.method, { r: 4.6 }));
      const text = fitted(row.name, width - 24, size, weight);
      svg.append(make("text", { x: 19, y: y + 4.3, class: weight > 400 ? "strong" : "", style: `font-size:${size}px` }, text));
    });
  }

  function drawPanel(svg, panel, rows, x0, width, { low, high }) {
    const values = 44, x = scale(low, high, x0 + 8, x0 + width - values, true), bottom = head + rows.length * ROW;
    const ground = svg.appendChild(make("g", { "data-panel": panel.title }));
    const titles = sizeFor(view.panels.map((p) => p.title), width - 4, 12.5, 600);
    // Where panels are of several machines: what is timed, on how much, and where, a line each.
    const under = (p) => (several ? [...p.subtitle.split(/, (.*)/, 2), p.machine] : [p.subtitle]);
    const small = sizeFor(view.panels.flatMap(under), width - 4, 11);
    ground.append(make("text", { x: x0 + 2, y: 13, class: "head", style: `font-size:${titles}px` }, fitted(panel.title, width - 4, titles, 600)));
    under(panel).forEach((line, i) => ground.append(make("text", { x: x0 + 2, y: 28 + i * LINE, class: "tick", style: `font-size:${small}px` }, fitted(line, width - 4, small))));
    ticksOf(low, high, width - values).forEach((tick) => {
      ground.append(make("line", { class: tick === 1 ? "one" : "rule", x1: x(tick), x2: x(tick), y1: head - 2, y2: bottom }));
      ground.append(make("text", { class: `tick${tick === 1 ? " strong" : ""}`, x: x(tick), y: bottom + 13, "text-anchor": "middle" }, `${tick}`));
    });
    rows.forEach((row, i) => {
      const cell = panel.cells[row.name], y = head + (i + 0.5) * ROW;
      if (!cell) { svg.append(make("text", { x: x0 + width - 2, y: y + 4, class: "tick", "text-anchor": "end" }, "–")); return; }
      const far = cell.value > high, doubt = cell.trust && cell.trust !== "firm" && cell.trust !== "fair";
      const group = make("g", {});
      group.append(make("rect", { class: "hit halo", x: x0, y: y - ROW / 2 + 1, width, height: ROW - 2, rx: 5 }));
      if (known(cell.low) && known(cell.high) && cell.low < high && cell.high > cell.low) {
        const ends = [Math.max(cell.low, low), Math.min(cell.high, high)].map(x);
        group.append(make("line", { x1: ends[0], x2: ends[1], y1: y, y2: y, stroke: paint(row.method), "stroke-width": 3, opacity: 0.5, "stroke-linecap": "round" }));
      }
      // An interval that goes on beyond the axis says so at its end.
      for (const [beyond, at, shape] of [[cell.low < low, low, "left"], [cell.high > high && !far, high, "right"]])
        if (known(cell.low) && beyond) group.append(make("path", { d: SHAPES[shape](3.2), transform: `translate(${x(at)},${y})`, fill: paint(row.method) }));
      if (far) group.append(make("path", { d: SHAPES.right(5), transform: `translate(${x(high) - 2},${y})`, fill: doubt ? "var(--paper)" : paint(row.method), stroke: paint(row.method), "stroke-width": 1.5 }));
      else group.append(mark(x(cell.value), y, row.method, { r: 5, hollow: doubt }));
      const lit = cell.rank ? "strong" : "soft";
      group.append(make("text", { x: x0 + width - 2, y: y + 4, class: lit, "text-anchor": "end" }, cell.text));
      svg.append(telling(group, describe(view, panel, row, cell), open && known(cell.record) ? () => open(cell.record) : null));
    });
  }

  function drawCosts(svg, panel, rows, x0, width) {
    const each = width / view.costs.length;
    svg.append(make("text", { x: x0 + 8, y: 13, class: "tick" }, fitted(`÷ ${view.baseline}, ${panel.title}`, width - 8, 11)));
    view.costs.forEach((cost, k) => {
      const left = x0 + k * each + 8, right = x0 + (k + 1) * each - 4;
      svg.append(make("text", { x: right, y: 29, class: "head", "text-anchor": "end", style: "font-size:11.5px" }, measure(cost.title, 11.5, 600) > each - 6 ? cost.short : cost.title));
      const values = rows.map((row) => panel.cells[row.name]?.costs[cost.name]).filter((v) => known(v) && v > 0);
      const reach = Math.max(1.5, ...values.map((v) => Math.max(v, 1 / v)));
      const bar = right - 40, middle = left + (bar - left) / 2, half = (bar - left) / 2;
      if (half > 8) svg.append(make("line", { class: "one", x1: middle, x2: middle, y1: head - 2, y2: head + rows.length * ROW }));
      rows.forEach((row, i) => {
        const value = panel.cells[row.name]?.costs[cost.name], y = head + (i + 0.5) * ROW;
        const said = !known(value) ? "–" : value === 0 ? "0" : value >= 9.95 ? value.toFixed(0) : Number(value.toPrecision(2)).toString();
        svg.append(make("text", { x: right, y: y + 4, "text-anchor": "end", class: "soft" }, said));
        if (half <= 8 || !known(value) || value <= 0) return;
        const to = middle + (Math.log(value) / Math.log(reach)) * (half - 3);
        svg.append(make("line", { x1: middle, x2: to, y1: y, y2: y, stroke: paint(row.method), "stroke-width": 2, opacity: 0.75 }));
        svg.append(make("circle", { cx: to, cy: y, r: 3.2, fill: paint(row.method) }));
      });
    });
  }

  function caption(svg, x, height, width) {
    const said = [`${view.axis} · ← faster · slower →`, `${view.axis} · ← faster`, "← faster · slower →"], room = width - x - 4;
    svg.append(make("text", { x: x + 2, y: height - 7, class: "tick" }, said.find((text) => measure(text, 11) <= room) ?? fitted(view.axis, room, 11)));
  }

  function foot(shown) {
    const n = view.panels.length;
    const go = (step) => { first = Math.max(0, Math.min(first + step, n - 1)); redraw(); };
    const pager = n > shown || first ? [make("span", { class: "pager" },
      make("button", { type: "button", disabled: first === 0, "aria-label": "Earlier layers and models", onclick: () => go(-shown) }, "‹"),
      ` ${first + 1}–${first + shown} of ${n} `,
      make("button", { type: "button", disabled: first + shown >= n, "aria-label": "More layers and models", onclick: () => go(shown) }, "›"))] : [];
    below.replaceChildren(make("span", {}, "● interval, no warning"), make("span", {}, "○ doubtful: point at it"), make("span", {}, "▸ beyond the axis"), ...pager);
  }
}

function describe(view, panel, row, cell) {
  const said = known(cell.low) ? bounded(cell.value, cell.low, cell.high, (v) => v.toFixed(3)) : `${cell.value.toFixed(2)}, no interval`;
  const costs = (view.costs ?? []).filter((c) => known(cell.costs?.[c.name])).map((c) => `${c.title} ${Number(cell.costs[c.name].toPrecision(3))}`);
  return [`${cell.label ?? row.name}`, `${panel.title} · ${panel.subtitle}${panel.machine ? ` · ${panel.machine}` : ""}`,
    `time ÷ ${view.baseline}: ${said} (${cell.word})`, costs.length ? `÷ ${view.baseline}: ${costs.join(", ")}` : "",
    cell.trust ? `trust: ${cell.trust}` : ""].filter(Boolean).join("\n");
}

function nameWidth(view, width) {
  const widest = Math.max(60, ...view.rows.map((row) => measure(row.name, 12.5, row.name === view.focus ? 680 : 400) + 26));
  return Math.min(widest, width < 560 ? 138 : 190);
}

const costWidth = (view, width) => (view.costs.length && width >= 560 ? view.costs.length * (width > 760 ? 92 : 62) : 0);

function domain(panels) {
  const cells = panels.flatMap((panel) => Object.values(panel.cells));
  const near = cells.flatMap((cell) => [cell.value, cell.low, cell.high]).filter((v) => known(v) && v > 0 && v <= FAR);
  return { low: Math.min(0.9, ...near) * 0.97, high: Math.max(1.15, ...near) * 1.03 };
}

function ticksOf(low, high, width) {
  const near = [0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.3], far = [0.25, 0.35, 0.5, 0.7, 1, 1.4, 2];
  const all = (high / low > 1.7 ? far : near).filter((t) => t >= low && t <= high);
  const gap = width / Math.log(high / low), kept = [1];
  for (const tick of all.sort((a, b) => Math.abs(Math.log(b)) - Math.abs(Math.log(a))))
    if (kept.length < MOST_TICKS && kept.every((other) => Math.abs(Math.log(tick / other)) * gap > 24)) kept.push(tick);
  return kept;
}
