// The leaderboard: one table of all records; sorted, searched, filtered; LoRA on top of its group.
const SHOWN = ["label", "lora", "trust", "seconds", "parameters", "adapter_flops", "launches", "saved_bytes", "peak_bytes", "agreement"];
const WHERE = ["subject", "pass", "sequence", "machine"];  // shown too where rows of several groups are listed
const SEARCHED = ["label", "method", "subject", "pass", "dtype", "device", "machine", "store", "path", "status", "trust"];
const PAGE = 40;

function leaderboard(host, records, openRecord) {
  const columns = records.columns.filter((c) => !/_(low|high)$/.test(c.name));
  const chosen = new Set(SHOWN.filter((name) => records.has(name)));
  const groups = new Map();
  for (let row = 0; row < records.rows; row++) {
    const key = records.group(row);
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(row);
  }
  const several = new Set(Array.from({ length: records.rows }, (_, row) => records.value("environment", row))).size > 1;
  const titled = [...groups].map(([key, rows]) => ({ key, rows, title: `${records.where(rows[0])}${several ? ` · ${records.value("store", rows[0])}` : ""}` }));
  const firstRow = model.overview ? Object.values(model.overview.panels[0].cells)[0].record : 0;
  let group = records.rows ? records.group(firstRow) : "", query = "", sort = { name: "lora", down: false }, limit = PAGE;

  const picker = make("select", { "aria-label": "Layer or model, and workload", onchange: () => { group = picker.value; limit = PAGE; update(); } },
    make("option", { value: "" }, `All ${records.rows.toLocaleString("en")} records`),
    titled.map(({ key, rows, title }) => make("option", { value: key, selected: key === group }, `${title} (${rows.length})`)));
  const search = make("input", { type: "search", placeholder: "Search", "aria-label": "Search the leaderboard", oninput: () => { query = search.value.toLowerCase(); limit = PAGE; update(); } });
  const count = make("span", { class: "count", role: "status" });
  const boxes = columns.map((column) => make("label", { title: column.doc },
    make("input", { type: "checkbox", checked: chosen.has(column.name), onchange: (e) => { chosen[e.target.checked ? "add" : "delete"](column.name); update(); } }),
    `${column.title}${column.unit && column.unit !== "×" ? ` [${column.unit}]` : ""}`));
  const menu = make("details", { class: "menu" }, make("summary", {}, "Columns"), make("div", {}, boxes));
  menu.addEventListener("keydown", (event) => { if (event.key === "Escape") { menu.open = false; menu.querySelector("summary").focus(); } });
  document.addEventListener("click", (event) => { if (!menu.contains(event.target)) menu.open = false; });
  const head = make("thead"), body = make("tbody"), foot = make("p", { class: "moreline" });
  host.replaceChildren(make("div", { class: "tools" }, picker, search, menu, count),
    make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Leaderboard" }, make("table", {}, head, body)), foot);

  function matching() {
    const rows = group ? groups.get(group) : Array.from({ length: records.rows }, (_, i) => i);
    const words = query.split(/\s+/).filter(Boolean);
    if (!words.length) return rows;
    return rows.filter((row) => { const text = SEARCHED.map((name) => records.value(name, row)).join(" ").toLowerCase(); return words.every((word) => text.includes(word)); });
  }

  function ordered(rows) {
    const column = records.named[sort.name] ?? records.named.label, sign = sort.down ? -1 : 1;
    const values = new Map(rows.map((row) => [row, records.value(column.name, row)]));
    const missing = (v) => v === null || v === undefined || v === "";
    return [...rows].sort((a, b) => {
      const x = values.get(a), y = values.get(b);
      if (missing(x) || missing(y)) return missing(x) - missing(y) || a - b;
      return sign * (column.words ? String(x).localeCompare(String(y), "en", { numeric: true }) : x - y) || a - b;
    });
  }

  function update() {
    const listed = columns.filter((column) => chosen.has(column.name) || (!group && WHERE.includes(column.name)));
    const place = (column) => (SHOWN.includes(column.name) ? SHOWN.indexOf(column.name) : column.name === "subject" ? 0.5 : SHOWN.length);
    listed.sort((a, b) => place(a) - place(b));
    const rows = ordered(matching()), pinned = group ? rows.filter((row) => records.value("setting", row) === "LoRA r=8") : [];
    const all = [...pinned, ...rows.filter((row) => !pinned.includes(row))], focus = model.overview?.focus;
    count.textContent = `${rows.length.toLocaleString("en")} of ${records.rows.toLocaleString("en")}`;
    head.replaceChildren(make("tr", {}, listed.map((column) => make("th", { scope: "col", class: column.words ? "text" : "", title: column.doc, "aria-sort": column.name === sort.name ? (sort.down ? "descending" : "ascending") : null },
      make("button", { type: "button", onclick: () => { sort = { name: column.name, down: sort.name === column.name && !sort.down }; update(); head.querySelector(`[data-name="${column.name}"]`)?.focus(); }, "data-name": column.name }, column.title)))));
    body.replaceChildren(...all.slice(0, limit).map((row) => make("tr", { class: [pinned.includes(row) ? "pinned" : "", records.value("setting", row) === focus ? "focus" : ""].join(" ").trim() || null },
      listed.map((column) => cell(column, row)))));
    foot.replaceChildren(...(all.length > limit ? [make("button", { type: "button", onclick: () => { limit += 5 * PAGE; update(); } }, `Show more (${(all.length - limit).toLocaleString("en")} left)`)] : []));
  }

  function cell(column, row) {
    const text = records.text(column.name, row);
    if (column.name === "label") {
      const dot = make("i", { class: "dot", style: `background:${paint(records.value("method", row))}` });
      return make("td", {}, make("button", { type: "button", class: "name", onclick: () => openRecord(row) }, dot, text));
    }
    if (column.name === "trust" || column.name === "agreement") return make("td", { class: "text" }, make("span", { class: `tag t-${text.replace(/ /g, "-")}`, title: column.name === "trust" ? records.value("warnings", row) || null : null }, text));
    if (column.name === "lora" || column.name === "frozen") {
      const [value, bounds] = text === "1.00 [1.00, 1.00]" ? ["1", ""] : text.split(" [");
      return make("td", {}, known(records.value(column.name, row)) ? [make("b", {}, value), bounds ? make("small", {}, ` [${bounds}`) : ""] : make("span", { class: "absent" }, text));
    }
    return make("td", { class: `${column.words ? "text" : ""}${text.startsWith("not ") ? " absent" : ""}`.trim() || null }, text);
  }

  update();
  return { show(key) { group = picker.value = key; query = search.value = ""; limit = PAGE; update(); } };
}

// One record, everything that is known of it, and the command that measures it again.
function recordDialog(records) {
  const dialog = byId("record");
  return (row) => {
    const facts = records.columns.filter((c) => !/_(low|high)$/.test(c.name) && c.name !== "setting").map((column) => [column, records.text(column.name, row)]).filter(([, text]) => text && text !== "not recorded" && text !== "not measured");
    dialog.replaceChildren(
      make("div", { class: "drawer-head" }, make("h2", { id: "record-title" }, records.text("label", row)), make("button", { type: "button", class: "close", "aria-label": "Close", onclick: () => dialog.close() }, "✕")),
      make("p", { class: "lead" }, `${records.where(row)} · ${records.text("machine", row)}`),
      make("p", {}, "Measure it again: ", make("code", {}, records.command(row))),
      make("dl", { class: "facts" }, facts.filter(([c]) => c.name !== "label").flatMap(([column, text]) => [make("dt", { title: column.doc }, column.title), make("dd", {}, text)])));
    dialog.showModal();
    dialog.scrollTop = 0;
  };
}

// Each layer or model folded: its methods with formula, count and clock side by side.
function subjectFolds(host, records, openRecord) {
  const subjects = new Map();
  for (let row = 0; row < records.rows; row++) {
    const key = ["machine", "subject", "dtype", "device"].map((name) => records.value(name, row)).join("\u0001");
    if (!subjects.has(key)) subjects.set(key, []);
    subjects.get(key).push(row);
  }
  const shown = [["lora", "time ÷ LoRA r=8"], ["frozen", "time ÷ frozen"], ["seconds", "time"], ["parameters_formula", "parameters, formula"], ["parameters", "counted"], ["launches_formula", "launches, formula"], ["launches", "counted"], ["launches_profiler", "profiler"], ["flops", "FLOPs, formula"], ["flops_counted", "counted"], ["saved_bytes_formula", "saved bytes, formula"], ["saved_bytes", "counted"], ["peak_bytes", "peak, measured"], ["agreement", "formula = count"]].filter(([name]) => records.has(name));
  for (const [key, rows] of subjects) {
    const [machine, subject, dtype, device] = key.split("\u0001");
    const fold = make("details", { class: "fold" }, make("summary", {}, subject, make("small", {}, `${[dtype, device === "cpu" ? machine : `${machine}, ${device}`].join(", ")} · ${rows.length} records`)));
    fold.addEventListener("toggle", () => {
      if (!fold.open || fold.children.length > 1) return;
      const workloads = Map.groupBy ? Map.groupBy(rows, (row) => records.group(row)) : rows.reduce((m, row) => m.set(records.group(row), [...(m.get(records.group(row)) ?? []), row]), new Map());
      for (const group of workloads.values()) {
        group.sort((a, b) => (records.value("lora", a) ?? 9e9) - (records.value("lora", b) ?? 9e9));
        fold.append(make("p", { class: "lead" }, `${records.where(group[0])} · ${records.value("store", group[0])}, ${records.value("recorded", group[0])}`),
          make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": records.where(group[0]) }, make("table", {}, make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "setting"), shown.map(([, title]) => make("th", { scope: "col" }, title)))),
            make("tbody", {}, group.slice(0, 200).map((row) => make("tr", {}, make("td", {}, make("button", { type: "button", class: "name", onclick: () => openRecord(row) }, records.text("label", row))),
              shown.map(([name]) => { const text = records.text(name, row); return make("td", { class: text.startsWith("not ") ? "absent" : null }, text); })))))));
      }
    });
    host.append(fold);
  }
}
