"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const PAGE = 40;
const $ = (id) => document.getElementById(id);

function make(tag, text, attributes) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  for (const [name, value] of Object.entries(attributes || {})) node.setAttribute(name, value);
  return node;
}

/* The board: sortable by every column, numbers descending first. */
let sorted = { column: -1, down: true };
function board() {
  const wanted = $("board-filter").value.toLowerCase();
  let lines = data.board.lines.filter(
    (line) => line.model.toLowerCase().includes(wanted) && (line.measured || !$("board-measured").checked));
  if (sorted.column >= 0) {
    const key = sorted.column ? data.board.columns[sorted.column - 1].id : null;
    const value = (line) => (key ? (line.cells[key] ? line.cells[key].value : null) : line.model.toLowerCase());
    lines = [...lines].sort((a, b) => {
      const x = value(a), y = value(b);
      if (x === null || y === null) return (x === null) - (y === null);
      return (x < y ? -1 : x > y ? 1 : 0) * (sorted.down ? -1 : 1);
    });
  }
  const head = make("tr");
  ["model", ...data.board.columns.map((column) => column.heading)].forEach((heading, place) => {
    const direction = sorted.column !== place ? "none" : sorted.down ? "descending" : "ascending";
    const cell = make("th", undefined, { scope: "col", "aria-sort": direction });
    const button = make("button", heading, { type: "button" });
    button.addEventListener("click", () => {
      sorted = { column: place, down: sorted.column === place ? !sorted.down : place > 0 };
      board();
      $("board-table").querySelectorAll("th button")[place].focus();
    });
    cell.append(button);
    head.append(cell);
  });
  const table = $("board-table");
  table.replaceChildren(make("thead"), make("tbody"));
  table.tHead.append(head);
  for (const line of lines) {
    const row = make("tr", undefined, line.measured ? { class: "measured" } : {});
    row.append(make("td", line.model));
    for (const column of data.board.columns) {
      const cell = line.cells[column.id];
      const box = make("td", cell ? undefined : "–", cell ? { title: cell.title } : {});
      if (cell) {
        const [value, width] = cell.text.split(" ±");
        box.append(value, ...(width ? [" ", make("small", `±${width}`)] : []));
      }
      row.append(box);
    }
    table.tBodies[0].append(row);
  }
}

/* A box that opens, with a table that scrolls sideways. */
function tableBox(title, header, rows) {
  const box = make("details", undefined, { open: "" });
  box.append(make("summary", title));
  const wide = make("div", undefined, { class: "wide", tabindex: "0", role: "region", "aria-label": title });
  const table = make("table");
  const head = make("tr");
  for (const heading of header) head.append(make("th", heading, { scope: "col" }));
  table.append(head);
  for (const cells of rows) {
    const row = make("tr");
    for (const cell of cells) row.append(make("td", cell));
    table.append(row);
  }
  wide.append(table);
  box.append(wide);
  return box;
}

/* Tables over several runs, then every run's metrics. */
function runs() {
  for (const table of data.tables) {
    const box = tableBox(table.caption, table.header, table.rows);
    for (const note of table.notes) box.append(make("p", note, { class: "quiet" }));
    $("run-tables").append(box);
  }
  for (const run of data.runs) {
    const rows = run.rows.map(([name, cells]) => [name, ...cells]);
    const box = tableBox(`${run.benchmark} · ${run.model}`, ["metric", ...run.subsets], rows);
    for (const caveat of run.caveats) box.append(make("p", `‡ ${caveat}`, { class: "caveat" }));
    box.append(make("p", run.folder, { class: "quiet" }));
    $("run-tables").append(box);
  }
}

/* The samples: filtered, a page at a time, pictures as they come into view. */
let found = [];
let shown = 0;
function options(select, values, kept) {
  select.replaceChildren(...values.map(([value, text]) => make("option", text, { value })));
  if (values.some(([value]) => value === kept)) select.value = kept;
}
function benchmarkOf() { return data.samples[Number($("f-benchmark").value)]; }
function fillModels() {
  const part = benchmarkOf();
  if (!part) return;
  const models = part.models.map((name, place) => [String(place), name]);
  options($("f-first"), models, $("f-first").value);
  options($("f-second"), [["-1", "nothing"], ...models], $("f-second").value);
  if (part.models.length > 1 && $("f-second").value === "-1") $("f-second").value = "1";
  options($("f-subset"), [["", "all"], ...part.subsets.map((name) => [name, name])], $("f-subset").value);
}
function filter() {
  const part = benchmarkOf();
  if (!part) { $("count").textContent = "No run came with its samples."; $("more").hidden = true; return; }
  const first = Number($("f-first").value), second = Number($("f-second").value);
  const subset = $("f-subset").value, words = $("f-text").value.toLowerCase();
  const right = (sample, model) => (model < 0 || !sample.a[model] ? null : sample.a[model].ok);
  const kept = {
    all: () => true,
    worse: (sample) => right(sample, first) === true && right(sample, second) === false,
    better: (sample) => right(sample, first) === false && right(sample, second) === true,
    wrong: (sample) => right(sample, first) === false,
    unscored: (sample) => [first, second].some((model) => model >= 0 && sample.a[model] && sample.a[model].why),
    unended: (sample) => [first, second].some((model) => model >= 0 && sample.a[model] && (sample.a[model].cut || sample.a[model].loop)),
  }[$("f-state").value];
  found = part.rows.filter((sample) => (!subset || sample.s === subset) && kept(sample) && (!words ||
    [sample.q, sample.r, sample.id, ...sample.a.map((answer) => (answer ? answer.t : ""))].join("\n").toLowerCase().includes(words)));
  shown = 0;
  $("list").replaceChildren();
  $("count").textContent = `${found.length} of ${part.rows.length} samples`;
  more();
}
function more() {
  const part = benchmarkOf();
  const models = [Number($("f-first").value), Number($("f-second").value)].filter((model) => model >= 0);
  for (const sample of found.slice(shown, shown + PAGE)) $("list").append(item(part, sample, models));
  shown = Math.min(found.length, shown + PAGE);
  $("more").hidden = shown >= found.length;
}
function marked(text, words) {
  const node = make("p");
  if (!words.length) { node.textContent = text; return node; }
  const escaped = words.map((word) => word.replace(/[.*+?^$(){}|[\]\\]/g, "\\$&"));
  for (const part of text.split(new RegExp(`\\b((?:${escaped.join("|")})(?:s|es)?)\\b`, "i"))) {
    node.append(words.some((word) => part.toLowerCase().startsWith(word.toLowerCase())) ? make("mark", part) : part);
  }
  return node;
}
function item(part, sample, models) {
  const box = make("li", undefined, { class: "sample", tabindex: "0", id: `s-${sample.n}`, "aria-label": sample.id });
  const place = make("div", undefined, { class: "picture" });
  const source = data.pictures[sample.i];
  if (source) {
    const picture = make("img", undefined, { alt: `Picture of sample ${sample.id}`, loading: "lazy", decoding: "async" });
    picture.src = source;
    place.append(picture);
  } else place.append(make("div", "no picture", { class: "none" }));
  const asked = make("div", undefined, { class: "asked" });
  const link = make("a", sample.id, { href: `#samples/${part.benchmark}/${encodeURIComponent(sample.id)}` });
  asked.append(link, make("span", ` · ${sample.s}`, { class: "quiet" }), make("p", sample.q), make("p", `Reference: ${sample.r}`, { class: "quiet" }));
  box.append(place, asked);
  for (const model of models) {
    const answer = sample.a[model];
    const state = !answer || answer.ok === null ? "" : answer.ok ? " right" : " wrong";
    const column = make("div", undefined, { class: `answer${state}` });
    column.append(make("p", part.models[model] + (state ? `:${state}` : ""), { class: "quiet" }));
    if (!answer) column.append(make("p", "no answer", { class: "quiet" }));
    else {
      column.append(marked(answer.t, answer.h || []));
      if (answer.note) column.append(make("p", answer.note, { class: "quiet" }));
      if (answer.cut) column.append(make("p", "cut off at the token limit", { class: "quiet" }));
      if (answer.loop) column.append(make("p", "repeats itself to the end", { class: "quiet" }));
      if (answer.why) column.append(make("p", `unscored: ${answer.why}`, { class: "quiet" }));
      for (const [name, text] of [["thoughts", answer.th], ["verdict", answer.v]]) {
        if (!text) continue;
        const folded = make("details");
        folded.append(make("summary", name), make("p", text));
        column.append(folded);
      }
    }
    box.append(column);
  }
  return box;
}
function move(step) {
  const items = [...$("list").children];
  const at = items.indexOf(document.activeElement);
  if (at + step >= items.length && shown < found.length) more();
  const next = $("list").children[Math.max(0, at + step)];
  if (next) { next.focus(); next.scrollIntoView({ block: "nearest" }); }
}

/* Views and deep links. */
function route() {
  const [view, benchmark, id] = location.hash.slice(1).split("/");
  const name = ["board", "runs", "samples"].includes(view) ? view : "board";
  for (const other of ["board", "runs", "samples"]) $(`view-${other}`).hidden = other !== name;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.getAttribute("href") === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (name === "samples" && id) {
    const place = data.samples.findIndex((part) => part.benchmark === benchmark);
    if (place < 0) return;
    $("f-benchmark").value = String(place);
    fillModels();
    $("f-state").value = "all"; $("f-subset").value = ""; $("f-text").value = decodeURIComponent(id);
    filter();
    const target = [...$("list").children].find((node) => node.getAttribute("aria-label") === decodeURIComponent(id));
    if (target) target.focus();
  }
}
board();
runs();
options($("f-benchmark"), data.samples.map((part, place) => [String(place), part.title]));
fillModels();
filter();
for (const id of ["board-filter", "board-measured"]) $(id).addEventListener("input", board);
$("f-benchmark").addEventListener("input", () => { fillModels(); filter(); });
for (const id of ["f-first", "f-second", "f-state", "f-subset", "f-text"]) $(id).addEventListener("input", filter);
$("filters").addEventListener("submit", (event) => event.preventDefault());
$("more").addEventListener("click", more);
document.addEventListener("keydown", (event) => {
  if ($("view-samples").hidden || ["INPUT", "SELECT"].includes(event.target.tagName) || event.ctrlKey || event.metaKey) return;
  if (event.key === "j") move(1);
  if (event.key === "k") move(-1);
  if (event.key === "Enter" && event.target.classList.contains("sample")) location.hash = event.target.querySelector("a").getAttribute("href");
});
window.addEventListener("hashchange", route);
route();
