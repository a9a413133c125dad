// Puts everything into its place.
function parts(id) {
  const figure = byId(id);
  return figure && { figure, caption: figure.querySelector("figcaption"), host: figure.querySelector(".plot"), below: figure.querySelector(".below") };
}

function theme() {
  const root = document.documentElement;
  try { if (localStorage.theme) root.dataset.theme = localStorage.theme; } catch { /* a page without storage */ }
  byId("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    try { localStorage.theme = root.dataset.theme; } catch { /* likewise */ }
  });
}

function drawers() {
  const guide = byId("guide");
  byId("guide-open").addEventListener("click", () => guide.showModal());
  guide.querySelector(".close").addEventListener("click", () => guide.close());
  for (const dialog of document.querySelectorAll("dialog"))
    dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
}

// Without a choice, the claims that a reader has to see: those that do not simply hold.
function claims() {
  const buttons = [...document.querySelectorAll(".verdicts button")], cards = [...document.querySelectorAll(".claim")];
  const search = byId("claim-search"), all = byId("claim-all");
  if (!cards.length) return;
  const notable = cards.some((card) => card.dataset.word !== "holds");
  let word = "", whole = !notable;
  const update = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const card of cards) {
      const text = card.textContent.toLowerCase();
      const fits = word ? card.dataset.word === word : whole || words.length || card.dataset.word !== "holds";
      card.hidden = !(fits && words.every((one) => text.includes(one)));
      shown += !card.hidden;
    }
    byId("claim-count").textContent = `${shown} of ${cards.length}${word ? `: ${word}` : shown < cards.length && !words.length ? ": what does not simply hold" : ""}`;
    all.hidden = shown === cards.length;
    buttons.forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.word === word)));
  };
  for (const button of buttons)
    button.addEventListener("click", () => {
      word = word === button.dataset.word ? "" : button.dataset.word;
      update();
      if (word) byId("claims").scrollIntoView();
    });
  all.addEventListener("click", () => { word = search.value = ""; whole = true; update(); });
  search.addEventListener("input", update);
  update();
}

function overview(open) {
  const one = parts("overview");
  if (!one) return;
  one.caption.textContent = model.overview.title;
  ratioPanels(one.host, one.below, model.overview, { most: byId("front") ? 4 : 5, open });
}

function accuracy() {
  const hero = parts("front");
  // As tall as the picture beside it, where the two stand side by side.
  const beside = byId("overview")?.querySelector(".plot");
  if (hero) front(hero.figure, model.studies[0], { compact: Boolean(beside), height: innerWidth > 980 && beside ? Math.max(300, beside.clientHeight - 30) : 340 });
  for (const section of document.querySelectorAll(".study")) {
    const view = model.studies[Number(section.dataset.study)];
    lazily(section, () => {
      const rows = view.differences[0]?.rows.length ?? 0;
      front(section.querySelector(".wide-front"), view, { height: Math.max(330, Math.min(560, rows * 24 + 20)) });
      differencePlot(section.querySelector(".difference"), view.differences);
    });
  }
  const maps = byId("maps");
  const drawMaps = () => { if (maps.open && !maps.querySelector(".grid").children.length) maps.querySelector(".grid").append(...model.maps.map(heatMap)); };
  maps?.addEventListener("toggle", drawMaps);
  if (maps) drawMaps();
  for (const published of document.querySelectorAll(".published")) {
    const view = model.published[Number(published.dataset.published)];
    const show = () => {
      if (!published.open || published.dataset.drawn) return;
      published.dataset.drawn = "yes";
      front(published.querySelector("figure"), view, { labels: false });
      published.querySelector(".below").replaceChildren(make("span", {}, view.file));
    };
    published.addEventListener("toggle", show);
    show();
  }
}

function prediction() {
  const one = parts("predicted");
  if (!one || !model.prediction) return;
  lazily(one.figure, () => {
    const points = model.prediction.points.map((p) => ({
      x: p.measured, y: p.predicted, method: p.method, label: p.label, hollow: p.kind === "layer",
      text: `${p.label}\n${p.where}\nmeasured ${seconds(p.measured)}, predicted ${seconds(p.predicted)}${known(p.low) ? ` [${seconds(p.low)}, ${seconds(p.high)}]` : ""}`,
    }));
    const off = points.map((p) => Math.max(p.x / p.y, p.y / p.x)).sort((a, b) => a - b), middle = off[Math.floor(off.length / 2)];
    one.caption.textContent = `Predicted against measured: off by a factor of ${middle.toFixed(2)} in the median of ${points.length} cases`;
    scatter(one.host, points, { title: one.caption.textContent, xTitle: "measured time of a call", yTitle: "predicted, by a fit without the case", xLog: true, yLog: true, diagonal: true, labels: false, r: 4, write: [seconds, seconds].map((w) => (v) => w(v).replace(/\.0+(?= )/, "")) });
    one.below.replaceChildren(make("span", {}, "on the line: as predicted"), make("span", {}, "○ layers, ● whole models"));
  });
}

function executed() {
  const fold = byId("ways");
  if (!fold || !model.ways) return;
  fold.hidden = false;
  fold.addEventListener("toggle", () => {
    if (!fold.open || fold.dataset.drawn) return;
    fold.dataset.drawn = "yes";
    fold.querySelector("figcaption").textContent = model.ways.title;
    ratioPanels(fold.querySelector(".plot"), fold.querySelector(".below"), model.ways, { most: 5 });
  });
}

async function start() {
  theme();
  drawers();
  claims();
  let openRecord = () => {};
  if (model.overview) overview((row) => openRecord(row));
  if (model.studies?.length || model.maps?.length) accuracy();
  prediction();
  executed();
  const data = await unpack("records");
  if (data) {
    const records = new Records(data);
    openRecord = recordDialog(records);
    leaderboard(byId("board"), records, (row) => openRecord(row));
    lazily(byId("explorer"), () => explorer(byId("explorer"), records, (row) => openRecord(row)));
    subjectFolds(byId("folds"), records, (row) => openRecord(row));
  }
  document.documentElement.dataset.ready = "yes";
  drawLater();
}

start();
