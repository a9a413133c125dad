// A table of any number of rows: only those in sight are in the document.
class Grid {
  static height = 30;
  static printed = 200;

  constructor(host, data, { title, file, open }) {
    Object.assign(this, { data, file, open, order: Int32Array.from({ length: data.rows }, (_, i) => i), by: null, down: false });
    this.columns = data.columns.filter((column) => column.shown);
    this.count = element("p", { class: "count", role: "status" });
    this.body = element("tbody");
    this.heads = this.columns.map((column) =>
      element("th", { scope: "col" }, element("button", { type: "button", title: `Sort by ${column.title}`, onclick: () => this.sort(column.name) },
        column.title, column.unit ? element("small", {}, `[${column.unit}]`) : null)));
    this.table = element("table", { class: "virtual", "aria-rowcount": data.rows + 1 }, element("thead", {}, element("tr", { "aria-rowindex": 1 }, ...this.heads)), this.body);
    this.scroller = element("div", { class: "scroll grid", role: "region", tabindex: 0, "aria-label": `Table: ${title}` }, this.table);
    this.scroller.addEventListener("scroll", () => requestAnimationFrame(() => this.render()), { passive: true });
    this.body.addEventListener("keydown", (event) => this.step(event));
    host.replaceChildren(this.count, this.scroller);
    new ResizeObserver(() => this.render()).observe(this.scroller);
    addEventListener("beforeprint", () => this.render(true));
    addEventListener("afterprint", () => this.render());
  }

  show(rows = this.order) {
    this.filtered = rows;
    this.order = this.by ? this.data.sorted(rows, this.by, this.down) : rows;
    this.count.textContent = `${grouped.format(rows.length)} of ${grouped.format(this.data.rows)} rows`;
    this.table.setAttribute("aria-rowcount", rows.length + 1);
    this.scroller.scrollTop = 0;
    this.render();
  }

  sort(name) {
    this.down = this.by === name && !this.down;
    this.by = name;
    this.heads.forEach((head, i) => {
      if (this.columns[i].name === name) head.setAttribute("aria-sort", this.down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
    this.show(this.filtered);
  }

  // Up and down move from row to row, also to rows that are not in the document yet.
  step(event) {
    const move = { ArrowDown: 1, ArrowUp: -1, PageDown: 12, PageUp: -12 }[event.key];
    const row = event.target.closest("tr");
    if (!move || !row) return;
    event.preventDefault();
    const place = Math.min(Math.max(Number(row.getAttribute("aria-rowindex")) - 2 + move, 0), this.order.length - 1);
    const top = place * Grid.height, room = this.scroller.clientHeight - 3 * Grid.height;
    if (top < this.scroller.scrollTop) this.scroller.scrollTop = top;
    else if (top > this.scroller.scrollTop + room) this.scroller.scrollTop = top - room;
    this.render();
    this.body.querySelector(`tr[aria-rowindex="${place + 2}"] button`)?.focus({ preventScroll: true });
  }

  render(everything = false) {
    const total = this.order.length, sight = Math.ceil((this.scroller.clientHeight || 480) / Grid.height);
    let first = Math.max(0, Math.floor(this.scroller.scrollTop / Grid.height) - 8), last = Math.min(total, first + sight + 16);
    if (everything) [first, last] = [0, Math.min(total, Grid.printed)];
    const focused = document.activeElement?.closest?.("tr")?.getAttribute("aria-rowindex");
    const rows = [this.spacer(first)];
    for (let place = first; place < last; place++) rows.push(this.row(place));
    rows.push(everything ? this.rest(total - last) : this.spacer(total - last));
    this.body.replaceChildren(...rows.filter(Boolean));
    if (focused) this.body.querySelector(`tr[aria-rowindex="${focused}"] button`)?.focus({ preventScroll: true });
  }

  spacer(rows) {
    if (!rows) return null;
    const made = element("tr", { "aria-hidden": "true", class: "spacer" }, element("td", { colspan: this.columns.length }));
    made.firstChild.style.height = `${rows * Grid.height}px`;
    return made;
  }

  rest(rows) {
    return rows ? element("tr", {}, element("td", { colspan: this.columns.length }, `${grouped.format(rows)} more rows are in ${this.file}`)) : null;
  }

  row(place) {
    const row = this.order[place];
    const cells = this.columns.map((column, i) => {
      const text = this.data.shown(column.name, row);
      if (i === 0) return element("th", { scope: "row", title: text }, element("button", { type: "button", class: "source", "data-row": row, onclick: () => this.open(row) }, text));
      const kind = text === ABSENT ? "absent" : column.words ? "text" : "number";
      return element("td", { class: kind, title: text.length > 24 ? text : null }, text);
    });
    return element("tr", { "aria-rowindex": place + 2, class: place % 2 ? "odd" : null }, ...cells);
  }
}
