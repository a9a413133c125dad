// Points on two axes, with error bars, direct labels that keep clear of each other, and step lines.
// points: {x, y, xlow, xhigh, ylow, yhigh, method, label, strong, text, open}; options below.
function scatter(host, points, options) {
  const { title, xTitle, yTitle, xLog = false, yLog = false, height = null, steps = null, diagonal = false, labels = true,
    lines = [], yLimits = null, xTicks = null, margin = 10, write = [short, short], connect = null, r = 5, yZero = false } = options;
  return drawn(host, (width) => {
    const tall = height ?? Math.max(210, Math.min(430, width * 0.72));
    const svg = make("svg", { viewBox: `0 0 ${width} ${tall}`, height: tall, role: "group", "aria-label": title });
    host.replaceChildren(svg);
    const usable = points.filter((p) => known(p.x) && known(p.y) && (!xLog || p.x > 0) && (!yLog || p.y > 0));
    if (!usable.length) { svg.append(make("text", { x: 8, y: 24, class: "soft" }, "not measured")); return; }
    const reach = (values, log, zero) => {
      const kept = values.filter((v) => known(v) && (!log || v > 0)), low = Math.min(...kept), high = Math.max(...kept);
      if (log) { const pad = Math.max((high / low) ** 0.07, 1.04); return [low / pad, high * pad]; }
      const pad = (high - low || Math.abs(high) || 1) * 0.07;
      return [zero ? Math.min(0, low) : low - pad, high + pad];
    };
    let [xl, xh] = reach(usable.flatMap((p) => [p.x, p.xlow, p.xhigh]), xLog), [yl, yh] = yLimits ?? reach(usable.flatMap((p) => [p.y, p.ylow, p.yhigh]), yLog, yZero);
    if (diagonal) { xl = yl = Math.min(xl, yl); xh = yh = Math.max(xh, yh); }
    const yTicks = (yLog ? logTicks : linearTicks)(yl, yh), gutter = 12 + Math.max(...yTicks.map((t) => measure(write[1](t), 11)));
    const x = scale(xl, xh, gutter + 4, width - margin, xLog), y = scale(yl, yh, tall - 42, 22, yLog);
    let last = -Infinity;
    for (const tick of xTicks ?? x.ticks) {
      const text = write[0](tick), half = measure(text, 11) / 2, at = x(tick);
      svg.append(make("line", { class: "rule", x1: at, x2: at, y1: 22, y2: tall - 42 }));
      const centre = Math.min(Math.max(at, half), width - half);
      if (centre - half < last + 6) continue;
      last = centre + half;
      svg.append(make("text", { class: "tick", x: centre, y: tall - 27, "text-anchor": "middle" }, text));
    }
    for (const tick of yTicks) {
      svg.append(make("line", { class: "rule", x1: gutter, x2: width, y1: y(tick), y2: y(tick) }));
      svg.append(make("text", { class: "tick", x: gutter - 5, y: y(tick) + 4, "text-anchor": "end" }, write[1](tick)));
    }
    svg.append(make("text", { class: "tick", x: gutter, y: 11 }, `↑ ${fitted(yTitle, width - gutter - 14, 11)}`));
    svg.append(make("text", { class: "tick", x: width - 2, y: tall - 8, "text-anchor": "end" }, `${fitted(xTitle, width - 20, 11)} →`));
    if (diagonal) svg.append(make("line", { class: "one", x1: x(xl), y1: y(yl), x2: x(xh), y2: y(yh) }));
    const blocked = [];
    for (const { axis, at, text, bare } of lines) {
      if (axis === "y" ? at < yl || at > yh : at < xl || at > xh) continue;
      const place = axis === "y" ? y(at) : x(at);
      if (!bare) svg.append(axis === "y" ? make("line", { class: "one", x1: gutter, x2: width, y1: place, y2: place }) : make("line", { class: "one", x1: place, x2: place, y1: 22, y2: tall - 42 }));
      if (!text) continue;
      const above = place > 40, foot = above ? place - 4 : place + 13;
      svg.append(make("text", { class: "tick", x: width - 3, y: foot, "text-anchor": "end" }, text));
      blocked.push({ left: width - 5 - measure(text, 11), right: width, top: foot - 10, bottom: foot + 3 });
      for (let along = gutter; along < width && !bare; along += 10) blocked.push({ left: along, right: along + 4, top: place - 1, bottom: place + 1, light: true });
    }
    if (steps) stepLine(svg, steps.filter((p) => known(p.x)), x, y, blocked);
    for (const series of connect ?? []) {
      const path = series.filter((p) => known(p.x) && known(p.y)).map((p, i) => `${i ? "L" : "M"}${x(p.x).toFixed(1)},${y(p.y).toFixed(1)}`).join("");
      if (path) svg.append(make("path", { d: path, fill: "none", stroke: paint(series[0].method), "stroke-width": 1.6, opacity: 0.55 }));
    }
    const drawnMarks = [...usable].sort((a, b) => (a.strong ?? true) - (b.strong ?? true));
    for (const p of drawnMarks) {
      const group = make("g", {}), faded = p.strong === false ? 0.42 : 1, cx = x(p.x), cy = y(p.y), look = { stroke: paint(p.method), "stroke-width": 1.4, opacity: faded === 1 ? 0.75 : 0.25 };
      if (known(p.ylow) && known(p.yhigh)) blocked.push({ left: cx - 1, right: cx + 1, top: y(Math.min(p.yhigh, yh)), bottom: y(Math.max(p.ylow, yl)), light: true });
      if (known(p.ylow) && known(p.yhigh)) group.append(make("line", { x1: cx, x2: cx, y1: y(Math.max(p.ylow, yl)), y2: y(Math.min(p.yhigh, yh)), ...look }));
      if (known(p.xlow) && known(p.xhigh)) group.append(make("line", { y1: cy, y2: cy, x1: x(p.xlow), x2: x(p.xhigh), ...look }));
      group.append(make("circle", { class: "halo", cx, cy, r: r + 4 }), make("circle", { class: "hit", cx, cy, r: r + 5 }));
      group.append(mark(cx, cy, p.method, { r, hollow: p.hollow, opacity: faded }));
      svg.append(telling(group, p.text ?? p.label, p.open));
      blocked.push({ left: cx - r - 1, right: cx + r + 1, top: cy - r - 1, bottom: cy + r + 1 });
    }
    if (labels) placeLabels(svg, drawnMarks.filter((p) => p.label && p.named !== false).reverse().sort((a, b) => (b.first ?? false) - (a.first ?? false)), x, y, blocked, { left: gutter, right: width, top: 16, bottom: tall - 42 }, drawnMarks);
    roving(svg);
  });
}

function stepLine(svg, steps, x, y, blocked) {
  let d = "", last = null;
  for (const p of steps) {
    d += last ? `H${x(p.x).toFixed(1)}V${y(p.y).toFixed(1)}` : `M${x(p.x).toFixed(1)},${y(p.y).toFixed(1)}`;
    if (last) for (let at = x(last.x); at < x(p.x); at += 10) blocked.push({ left: at, right: at + 4, top: y(last.y) - 1, bottom: y(last.y) + 1, light: true });
    if (last) for (let up = y(p.y); up < y(last.y); up += 10) blocked.push({ left: x(p.x) - 1, right: x(p.x) + 1, top: up, bottom: up + 4, light: true });
    last = p;
  }
  if (d) svg.append(make("path", { d, fill: "none", stroke: "var(--faint)", "stroke-width": 1.3, "stroke-dasharray": "3 3" }));
}

// Greedy: each label at the nearest place that is free and not clearly nearer to another mark than to its own; one that
// finds none is left to the tooltip.
function placeLabels(svg, points, x, y, blocked, frame, marks) {
  const away = (p, box) => Math.hypot(Math.max(box.left - x(p.x), 0, x(p.x) - box.right), Math.max(box.top - y(p.y), 0, y(p.y) - box.bottom));
  const overlap = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
  for (const p of points) {
    const size = 11.5, weight = p.strong ? 640 : 400, text = p.label, w = measure(text, size, weight) + 3, h = 14, cx = x(p.x), cy = y(p.y);
    let best = null;
    for (const gap of [9, 16, 26, 40]) {
      for (const [dx, dy] of [[1, 0], [-1, 0], [0, -1], [0, 1], [0.8, -0.8], [0.8, 0.8], [-0.8, -0.8], [-0.8, 0.8]]) {
        const left = cx + dx * gap + (dx > 0 ? 0 : dx < 0 ? -w : -w / 2), top = cy + dy * (gap - 2) - h / 2 + (dy ? dy * 2 : 0);
        const box = { left, right: left + w, top, bottom: top + h };
        if (box.left < frame.left || box.right > frame.right || box.top < frame.top || box.bottom > frame.bottom) continue;
        const hard = blocked.filter((other) => !other.light && overlap(box, other)).length;
        if (hard || marks.some((q) => q !== p && away(q, box) + 6 < away(p, box))) continue;
        const cost = gap + 4 * blocked.filter((other) => other.light && overlap(box, other)).length;
        if (!best || cost < best.cost) best = { cost, box, gap };
      }
      if (best && best.cost <= gap) break;
    }
    if (!best) continue;
    blocked.push(best.box);
    if (best.gap > 16) svg.append(make("line", { class: "rule", x1: cx, y1: cy, x2: Math.min(Math.max(cx, best.box.left), best.box.right), y2: Math.min(Math.max(cy, best.box.top), best.box.bottom) }));
    svg.append(make("text", { x: best.box.left + 1.5, y: best.box.bottom - 3.2, class: `over ${p.strong ? "strong" : "soft"}`, "data-x": cx, "data-y": cy, style: `font-size:${size}px` }, text));
  }
}
