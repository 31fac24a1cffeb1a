"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const PAGE = 40; // samples that are added at once
const EXAMPLES = 3; // samples in the first view
const SHOWN_MODELS = 4; // whose answers stand in them
const AXES = { fraction: "percentage points", rating: "rating", amount: "as counted", count: "as counted" };
const VERDICTS = { better: "better", worse: "worse", noise: "noise", "": "" };
const $ = (id) => document.getElementById(id);

function make(tag, text, attributes) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  for (const [name, value] of Object.entries(attributes || {})) node.setAttribute(name, value);
  return node;
}

function draw(tag, attributes, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

/* A row of headings; those named in `optional` are left out on a narrow screen. */
function headRow(headings, optional) {
  const row = make("tr");
  for (const heading of headings) {
    const off = (optional || []).includes(heading) ? { class: "narrow-off" } : {};
    row.append(make("th", heading, { scope: "col", ...off }));
  }
  return row;
}

/* Verdict: differences from the first model, drawn so that right is better. */
function verdictView() {
  const view = $("view-verdict");
  for (const { benchmark, model, answered, questions } of data.progress) {
    const line = make("p", `${benchmark} · ${model}: ${answered.toLocaleString("en")} of ${questions.toLocaleString("en")} answered `, { class: "progress" });
    line.append(make("progress", undefined, { value: answered, max: questions, "aria-label": `${benchmark}, ${model}` }));
    view.append(line);
  }
  if (!data.verdicts.length) view.append(...figuresOnly());
  else if (data.verdicts.length === 1) view.append(make("h2", versus(data.verdicts[0])), ...oneVerdict(data.verdicts[0]));
  else view.append(...severalVerdicts());
  const examples = firstExamples();
  if (examples) view.append(...examples);
}

function versus(verdict) { return `${verdict.first} → ${verdict.second}`; }

/* "3 better, 1 worse, 20 no more than noise", as nodes. */
function counted(verdict) {
  const counts = { better: 0, worse: 0, noise: 0 };
  for (const row of verdict.rows) if (row.verdict) counts[row.verdict] += 1;
  return [make("b", `${counts.better} better`, { class: "good" }), ", ",
    make("b", `${counts.worse} worse`, { class: "bad" }), `, ${counts.noise} no more than noise`];
}

function oneVerdict(verdict) {
  const lead = make("p", undefined, { class: "lead" });
  const figures = verdict.rows.filter((row) => row.verdict).length;
  lead.append(...counted(verdict), `: ${figures} figures, paired by image, after Holm's correction.`);
  const nodes = [lead, flipList(verdict), effectTable(verdict)];
  if (verdict.caveats.length) {
    const box = make("details");
    box.append(make("summary", `What a reader must know (${verdict.caveats.length})`));
    for (const caveat of verdict.caveats) box.append(make("p", `‡ ${caveat}`));
    nodes.push(box);
  }
  nodes.push(howRun([verdict.first, verdict.second]));
  return nodes;
}

/* Several models: a figure a row, a model a column, and each model's own verdict behind it. */
function severalVerdicts() {
  const first = data.verdicts[0].first;
  const rows = new Map(); // figure → its row in each verdict
  for (const verdict of data.verdicts) {
    for (const row of verdict.rows) {
      if (!rows.has(row.figure)) rows.set(row.figure, new Map());
      rows.get(row.figure).set(verdict, row);
    }
  }
  const table = make("table", undefined, { class: "models" });
  table.append(make("thead"), make("tbody"));
  const head = headRow(["figure", first]);
  for (const verdict of data.verdicts) head.append(make("th", verdict.second, { scope: "colgroup", colspan: "2" }));
  table.tHead.append(head);
  let further = 0, someOnPart = false;
  for (const [figure, byVerdict] of rows) {
    const all = [...byVerdict.values()];
    const line = make("tr", undefined, all.some(isFirst) ? {} : { class: "further", hidden: "" });
    if (line.hidden) further += 1;
    line.append(make("td", figure), make("td", all[0].first));
    for (const verdict of data.verdicts) line.append(...modelCells(byVerdict.get(verdict), all[0].first));
    if (all.some((row) => row.first !== all[0].first)) someOnPart = true;
    table.tBodies[0].append(line);
  }
  let legend = "Differences with 95 % intervals, paired by image. ▲ better, ▼ worse, after Holm's correction over all of them; without a mark no more than noise.";
  if (someOnPart) legend += ` "from": what ${first} has on the samples that both answered, if these are not those of its column.`;
  const nodes = [
    make("h2", `${first} → ${data.verdicts.length} others`),
    make("p", legend, { class: "quiet" }),
    scrolled(table, `${first} and the others`, "tall")];
  if (further) nodes.push(furtherButton(table, further));
  for (const verdict of data.verdicts) {
    const box = make("details", undefined, { class: "verdict" });
    const summary = make("summary", `${versus(verdict)}: `);
    summary.append(...counted(verdict));
    box.append(summary, ...oneVerdict(verdict));
    nodes.push(box);
  }
  return nodes;
}

/* A model's value and its difference from the first one's with its interval; the mark hangs. */
function modelCells(row, first) {
  if (!row) return [make("td", "–"), make("td")];
  const tone = { better: "good", worse: "bad" }[row.verdict];
  const cell = make("td", undefined, { class: "change" });
  cell.append(make(tone ? "b" : "small", signed(row.difference), tone ? { class: tone } : {}));
  if (tone) cell.append(make("span", row.verdict === "better" ? " ▲" : " ▼", { class: `mark ${tone}` }));
  cell.append(make("small", signed(row.interval), { class: "interval narrow-off" }));
  const value = make("td", row.second);
  // A model with fewer samples is compared on these, where the first one has another value.
  if (row.first !== first) value.append(make("small", `from ${row.first}`, { class: "interval" }));
  return [value, cell];
}

/* What the models' runs were made with, folded. */
function howRun(models) {
  const box = make("details");
  box.append(make("summary", "How they were run"));
  for (const run of data.runs.filter((run) => models.includes(run.model))) {
    box.append(make("h3", `${run.title} · ${run.model}`), runDetails(run));
  }
  return box;
}

function runDetails(run) {
  const list = make("dl");
  for (const [name, value] of [["folder", run.folder], ...run.details]) list.append(make("dt", name), make("dd", value));
  return list;
}

/* A round number at least as large as x. */
function roundUp(x) {
  const power = 10 ** Math.floor(Math.log10(x || 1));
  return [1, 2, 3, 4, 6, 8, 10].map((step) => step * power).find((end) => end >= x);
}

/* Whether a figure is seen at once: the board's, and whatever is more than noise. */
function isFirst(row) { return row.main || row.verdict === "better" || row.verdict === "worse"; }

/* One table; the figures of each unit have an axis of their own. */
function effectTable(verdict) {
  const box = make("div");
  const table = make("table", undefined, { class: "effects" });
  const models = [verdict.first, verdict.second], tests = ["95 % interval", "p"];
  const head = headRow(["figure", ...models, "difference", ...tests], [...models, ...tests]);
  const barHead = make("th", undefined, { scope: "col", class: "bar" });
  const ends = make("span", undefined, { class: "ends" });
  ends.append(make("span", "← worse"), make("span", "better →"));
  barHead.append(ends);
  head.append(barHead, make("th", "verdict", { scope: "col", class: "said" }));
  table.append(make("thead"));
  table.tHead.append(head);
  for (const unit of new Set(verdict.rows.map((row) => row.unit))) {
    table.append(effectRows(verdict.rows.filter((row) => row.unit === unit), unit));
  }
  box.append(scrolled(table, `Differences: ${versus(verdict)}`, "fits"));
  const further = verdict.rows.filter((row) => !isFirst(row)).length;
  if (further) box.append(furtherButton(table, further));
  return box;
}

function effectRows(rows, unit) {
  const body = make("tbody");
  const drawn = rows.filter((row) => row.drawn);
  const end = roundUp(Math.max(0, ...drawn.flatMap((row) => row.drawn.map(Math.abs))));
  for (const row of rows) {
    const line = make("tr", undefined, isFirst(row) ? {} : { class: "further", hidden: "" });
    line.append(make("td", row.figure));
    for (const value of [row.first, row.second]) line.append(make("td", value, { class: "narrow-off" }));
    const tone = { better: "good", worse: "bad" }[row.verdict] || "";
    line.append(make("td", signed(row.difference), { class: tone }));
    line.append(make("td", signed(row.interval), { class: "narrow-off" }), make("td", row.p, { class: "narrow-off" }));
    const bar = make("td", undefined, { class: "bar" });
    if (row.drawn) bar.append(effectBar(row, end));
    line.append(bar, make("td", VERDICTS[row.verdict], { class: "said" }));
    body.append(line);
  }
  if (drawn.length) {
    const axis = axisRow(end, unit);
    if (!rows.some(isFirst)) { axis.classList.add("further"); axis.hidden = true; }
    body.append(axis);
  }
  return body;
}

/* A number with the sign that typesetters use. */
function signed(text) { return text.replace(/-(?=\d)/g, "−"); }

/* A button that shows the other figures. */
function furtherButton(table, count) {
  const button = make("button", `Show ${count} further figures`, { type: "button" });
  button.addEventListener("click", () => {
    for (const row of table.querySelectorAll("tr.further")) row.hidden = false;
    button.remove();
  });
  return button;
}

const WIDTH = 320, MIDDLE = WIDTH / 2, HALF = 140;
function effectBar(row, end) {
  const x = (value) => MIDDLE + (HALF * value) / end;
  const [value, low, high] = row.drawn;
  const text = `${row.figure}: ${row.difference} ${row.interval}, ${VERDICTS[row.verdict]}`;
  const svg = draw("svg", { viewBox: `0 0 ${WIDTH} 30`, role: "img", "aria-label": text });
  svg.append(draw("line", { x1: MIDDLE, x2: MIDDLE, y1: 0, y2: 30, class: "zero" }));
  const group = draw("g", { class: row.verdict || "noise" });
  group.append(draw("line", { x1: x(low), x2: x(high), y1: 15, y2: 15, class: "range" }));
  if (row.verdict === "worse") group.append(draw("rect", { x: x(value) - 5, y: 10, width: 10, height: 10, class: "point" }));
  else group.append(draw("circle", { cx: x(value), cy: 15, r: 5, class: "point" }));
  svg.append(group);
  return svg;
}

function axisRow(end, unit) {
  const row = make("tr", undefined, { class: "axis" });
  for (const name of ["", "narrow-off", "narrow-off", "", "narrow-off", "narrow-off"]) row.append(make("td", "", { class: name }));
  const svg = draw("svg", { viewBox: `0 0 ${WIDTH} 19`, "aria-hidden": "true" });
  for (const share of [-1, -0.5, 0, 0.5, 1]) {
    const number = Math.abs(share * end);
    const place = { x: MIDDLE + HALF * share, y: 13, class: Math.abs(share) === 0.5 ? "half" : "" };
    svg.append(draw("text", place, Number(number.toPrecision(2)).toString()));
  }
  const cell = make("td", undefined, { class: "bar" });
  cell.append(svg);
  row.append(cell, make("td", AXES[unit], { class: "said quiet" }));
  return row;
}

function flipList(verdict) {
  const list = make("ul", undefined, { class: "flips" });
  for (const flips of verdict.flips) {
    const entry = make("li");
    const seen = data.samples.some((part) => part.benchmark === flips.benchmark);
    const count = (number, state, text) =>
      seen && number
        ? make("a", `${number.toLocaleString("en")} ${text}`, { href: `#samples/${flips.benchmark}//${state}/${encodeURIComponent(verdict.second)}` })
        : make("span", `${number.toLocaleString("en")} ${text}`);
    entry.append(make("b", flips.title), ": ", count(flips.worse, "worse", "to wrong"), ", ",
      count(flips.better, "better", "to right"), make("span", ` of ${flips.matched.toLocaleString("en")}`, { class: "quiet" }));
    list.append(entry);
  }
  return list;
}

/* Without a second model: each run's main figures. */
function figuresOnly() {
  const nodes = [make("h2", "What was measured")];
  for (const model of [...new Set(data.runs.map((run) => run.model))]) {
    nodes.push(make("h3", model));
    const rows = [];
    for (const run of data.runs.filter((run) => run.model === model)) {
      run.whole.forEach(([name, text, mark], index) => rows.push([index ? "" : run.title, name, text + mark]));
    }
    nodes.push(scrolled(plainTable(["benchmark", "figure", "value, 95 % interval"], rows), model, "tall"));
  }
  return nodes;
}

/* Samples with pictures to begin with: flipped to wrong, or wrong. */
function firstExamples() {
  // What was said beyond the image is seen best where words are marked.
  const isMarked = (sample) => sample.a.some((answer) => answer && falseWords(answer).length);
  const parts = [...data.samples].sort((a, b) => b.rows.some(isMarked) - a.rows.some(isMarked));
  for (const [state, title] of [["worse", "Flipped to wrong"], ["wrong", "Wrong"]]) {
    for (const part of parts) {
      const models = part.models.map((_, index) => index).slice(0, SHOWN_MODELS);
      const others = models.length > 1 ? models.slice(1) : [0];
      const asked = new Set(); // POPE asks the same in several subsets
      const rows = part.rows.filter((sample) => {
        const question = `${sample.i} ${sample.q}`;
        if (asked.has(question) || !data.pictures[sample.i] || !others.some((other) => isKept(state, sample, 0, other))) return false;
        return asked.add(question);
      });
      rows.sort((a, b) => isMarked(b) - isMarked(a));
      if (!rows.length) continue;
      const list = make("ol");
      for (const sample of rows.slice(0, EXAMPLES)) list.append(sampleItem(part, sample, models));
      return [make("h3", `${title}: ${part.title}`), list];
    }
  }
  return null;
}
/* The board: sortable by every column, numbers descending first. */
const MODEL = { id: "", heading: "model" };
let sorted = { id: null, down: true };
function board() {
  const wanted = $("board-filter").value.toLowerCase();
  let lines = data.board.lines.filter(
    (line) => line.model.toLowerCase().includes(wanted) && (line.measured || !$("board-measured").checked));
  // A column that no line has tells nothing.
  const columns = data.board.columns.filter((column) => lines.some((line) => line.cells[column.id]));
  if (sorted.id !== null) {
    const value = (line) => (sorted.id === MODEL.id ? line.model.toLowerCase() : line.cells[sorted.id] ? line.cells[sorted.id].value : null);
    lines = [...lines].sort((a, b) => {
      const x = value(a), y = value(b);
      if (x === null || y === null) return (x === null) - (y === null);
      return (x < y ? -1 : x > y ? 1 : 0) * (sorted.down ? -1 : 1);
    });
  }
  const head = make("tr");
  [MODEL, ...columns].forEach((column, index) => {
    const direction = sorted.id !== column.id ? "none" : sorted.down ? "descending" : "ascending";
    const cell = make("th", undefined, { scope: "col", "aria-sort": direction });
    const button = make("button", undefined, { type: "button" });
    // Several benchmarks have an accuracy and a recall.
    const benchmark = column.id.slice(0, column.id.lastIndexOf("."));
    if (benchmark) button.append(make("small", benchmark));
    button.append(column.heading);
    button.addEventListener("click", () => {
      sorted = { id: column.id, down: sorted.id === column.id ? !sorted.down : column !== MODEL };
      board();
      $("board-table").querySelectorAll("th button")[index].focus();
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
    for (const column of columns) row.append(boardCell(line.cells[column.id]));
    table.tBodies[0].append(row);
  }
}

/* A number with its interval small, and its marks hanging, so that decimals stand below each other. */
function boardCell(cell) {
  if (!cell) return make("td", "–");
  const box = make("td", undefined, { title: cell.title });
  const [, value, spread, marks] = cell.text.match(/^([^ *†‡]*)( [^*†‡]*)?([*†‡]*)$/);
  box.append(value);
  if (spread) box.append(make("small", spread));
  if (marks) box.append(make("span", marks, { class: "mark" }));
  return box;
}

/* A table in a box of its own that scrolls sideways; `kind` says how it does up and down. */
function scrolled(table, label, kind) {
  const box = make("div", undefined, { class: `wide ${kind}`, tabindex: "0", role: "region", "aria-label": label });
  box.append(table);
  return box;
}

function plainTable(header, rows) {
  const table = make("table");
  table.append(make("thead"), make("tbody"));
  table.tHead.append(headRow(header));
  for (const cells of rows) {
    const row = make("tr");
    for (const cell of cells) row.append(make("td", cell));
    table.tBodies[0].append(row);
  }
  return table;
}

/* A box that opens, with a table that scrolls sideways. */
function tableBox(title, header, rows) {
  const box = make("details", undefined, { open: "" });
  box.append(make("summary", title));
  box.append(scrolled(plainTable(header, rows), title, "tall"));
  return box;
}

/* Tables over several runs, then every run's metrics and what they were made with. */
function runs() {
  for (const table of data.tables) {
    const box = tableBox(table.caption, table.header, table.rows);
    for (const note of table.notes) box.append(make("p", note, { class: "quiet" }));
    $("run-tables").append(box);
  }
  for (const run of data.runs) {
    const rows = run.rows.map(([name, cells]) => [name, ...cells]);
    const box = tableBox(`${run.title} · ${run.model}`, ["metric", ...run.subsets], rows);
    for (const caveat of run.caveats) box.append(make("p", `‡ ${caveat}`, { class: "caveat" }));
    const details = make("details");
    details.append(make("summary", "How it was run"), runDetails(run));
    box.append(details);
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
  const models = part.models.map((name, index) => [String(index), name]);
  options($("f-first"), models, $("f-first").value);
  options($("f-second"), [["-1", "nothing"], ...models], $("f-second").value);
  if (part.models.length > 1 && $("f-second").value === "-1") $("f-second").value = "1";
  options($("f-subset"), [["", "all"], ...part.subsets.map((name) => [name, name])], $("f-subset").value);
  $("f-all-label").hidden = part.models.length < 3;
}
function isRight(sample, model) { return model < 0 || !sample.a[model] ? null : sample.a[model].ok; }
function isKept(state, sample, first, second) {
  const answers = [first, second].filter((model) => model >= 0 && sample.a[model]).map((model) => sample.a[model]);
  switch (state) {
    case "worse": return isRight(sample, first) === true && isRight(sample, second) === false;
    case "better": return isRight(sample, first) === false && isRight(sample, second) === true;
    case "wrong": return isRight(sample, first) === false;
    case "unscored": return answers.some((answer) => answer.why);
    case "unended": return answers.some((answer) => answer.cut || answer.loop);
    default: return true;
  }
}
/* What is worth a look first: flipped to wrong, else wrong, else all. */
function firstState() {
  const part = benchmarkOf();
  if (!part) return;
  const first = Number($("f-first").value), second = Number($("f-second").value);
  $("f-state").value = ["worse", "wrong", "all"].find((state) => part.rows.some((sample) => isKept(state, sample, first, second))) || "all";
}
function filter() {
  const part = benchmarkOf();
  if (!part) { $("count").textContent = "No run came with its samples."; $("more").hidden = true; return; }
  const first = Number($("f-first").value), second = Number($("f-second").value);
  const state = $("f-state").value, subset = $("f-subset").value, words = $("f-text").value.toLowerCase();
  found = part.rows.filter((sample) => (!subset || sample.s === subset) && isKept(state, sample, first, second) && (!words ||
    [sample.q, sample.r, sample.id, ...sample.a.map((answer) => (answer ? answer.t : ""))].join("\n").toLowerCase().includes(words)));
  shown = 0;
  $("list").replaceChildren();
  $("count").textContent = `${found.length} of ${part.rows.length} samples`;
  more();
}
function more() {
  const part = benchmarkOf();
  let models = [Number($("f-first").value), Number($("f-second").value)].filter((model) => model >= 0);
  if ($("f-all").checked) models = part.models.map((_, index) => index);
  for (const sample of found.slice(shown, shown + PAGE)) $("list").append(sampleItem(part, sample, models));
  shown = Math.min(found.length, shown + PAGE);
  $("more").hidden = shown >= found.length;
}
function falseWords(answer) { return [...(answer.h || []), ...(answer.f || [])]; }
function marked(text, answer) {
  const node = make("p"), words = falseWords(answer);
  const reason = answer.h ? "The image does not show it." : "What is said of it is false.";
  if (!words.length) { node.textContent = text; return node; }
  const escaped = words.map((word) => word.replace(/[.*+?^$(){}|[\]\\]/g, "\\$&"));
  for (const part of text.split(new RegExp(`\\b((?:${escaped.join("|")})(?:s|es)?)\\b`, "i"))) {
    const isFalse = words.some((word) => part.toLowerCase().startsWith(word.toLowerCase()));
    node.append(isFalse ? make("mark", part, { title: reason }) : part);
  }
  return node;
}
function sampleItem(part, sample, models) {
  const box = make("li", undefined, { class: "sample", tabindex: "0", "aria-label": sample.id });
  const asked = make("div", undefined, { class: "asked" });
  const link = make("a", sample.id, { href: `#samples/${part.benchmark}/${encodeURIComponent(sample.id)}` });
  const from = make("p", undefined, { class: "quiet" });
  from.append(`${part.title} · ${sample.s} · `, link);
  asked.append(from, make("p", sample.q, { class: "question" }), make("p", `Reference: ${sample.r}`, { class: "quiet" }));
  const answers = make("div", undefined, { class: "answers" });
  for (const model of models) answers.append(answerBox(part.models[model], sample.a[model]));
  box.append(pictureOf(sample), asked, answers);
  return box;
}
function pictureOf(sample) {
  const picture = data.pictures[sample.i];
  if (!picture) return make("div", "no picture", { class: "none" });
  const button = make("button", undefined, { class: "picture", type: "button", "aria-label": `Enlarge the picture of ${sample.id}` });
  const image = make("img", undefined, { alt: `Picture of sample ${sample.id}`, loading: "lazy", decoding: "async" });
  image.src = picture[0];
  button.append(image);
  button.addEventListener("click", () => enlarge(sample));
  return button;
}
function answerBox(model, answer) {
  const state = !answer || answer.ok === null ? "" : answer.ok ? " right" : " wrong";
  const column = make("div", undefined, { class: `answer${state}` });
  const who = make("p", undefined, { class: "who" });
  who.append(model);
  if (state) who.append(": ", make("b", state.trim()));
  column.append(who);
  if (!answer) { column.append(make("p", "no answer", { class: "quiet" })); return column; }
  const remarks = [
    answer.h && `not in the image: ${answer.h.join(", ")}`,
    answer.f && `what is said of it is false: ${answer.f.join(", ")}`,
    answer.note,
    answer.cut && "cut off at the token limit",
    answer.loop && "repeats itself to the end",
    answer.why && `unscored: ${answer.why}`,
  ];
  column.append(marked(answer.t, answer));
  for (const remark of remarks) if (remark) column.append(make("p", remark, { class: "quiet" }));
  for (const [name, text] of [["thoughts", answer.th], ["the judge's words", answer.v]]) {
    if (!text) continue;
    const folded = make("details");
    folded.append(make("summary", name), make("p", text));
    column.append(folded);
  }
  return column;
}

/* The whole picture, from beside the page if it is not in it. */
function enlarge(sample) {
  const picture = data.pictures[sample.i];
  if (!picture) return;
  const image = $("enlarged-image");
  image.onerror = () => { image.onerror = null; image.src = picture[0]; };
  image.src = picture[picture.length - 1];
  image.alt = `Picture of sample ${sample.id}`;
  $("enlarged-text").textContent = `${sample.q.split("\n")[0]} Reference: ${sample.r}`;
  $("enlarged").showModal();
}

function move(step) {
  const items = [...$("list").children];
  const at = items.indexOf(document.activeElement);
  if (at + step >= items.length && shown < found.length) more();
  const next = $("list").children[Math.max(0, at + step)];
  if (next) { next.focus(); next.scrollIntoView({ block: "nearest" }); }
}

/* Views and deep links: #VIEW, #samples/BENCHMARK/ID, #samples/BENCHMARK//STATE/MODEL. */
const VIEWS = ["verdict", "samples", "board", "runs"];
function route() {
  const [view, benchmark, id, state, model] = location.hash.slice(1).split("/");
  const name = VIEWS.includes(view) ? view : VIEWS[0];
  for (const other of VIEWS) $(`view-${other}`).hidden = other !== name;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.getAttribute("href") === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  window.scrollTo(0, 0);
  const index = data.samples.findIndex((part) => part.benchmark === benchmark);
  if (name !== "samples" || index < 0) return;
  $("f-benchmark").value = String(index);
  fillModels();
  const second = data.samples[index].models.indexOf(decodeURIComponent(model || ""));
  if (second > 0) { $("f-first").value = "0"; $("f-second").value = String(second); }
  $("f-subset").value = ""; $("f-text").value = decodeURIComponent(id || "");
  if (id) $("f-state").value = "all";
  else if (state) $("f-state").value = state;
  else firstState();
  filter();
  const target = [...$("list").children].find((node) => node.getAttribute("aria-label") === decodeURIComponent(id || ""));
  if (target) target.focus();
}
verdictView();
board();
runs();
options($("f-benchmark"), data.samples.map((part, index) => [String(index), part.title]));
fillModels();
firstState();
filter();
for (const id of ["board-filter", "board-measured"]) $(id).addEventListener("input", board);
$("f-benchmark").addEventListener("input", () => { fillModels(); firstState(); filter(); });
for (const id of ["f-first", "f-second", "f-state", "f-subset", "f-text", "f-all"]) $(id).addEventListener("input", filter);
$("filters").addEventListener("submit", (event) => event.preventDefault());
$("more").addEventListener("click", more);
$("enlarged-close").addEventListener("click", () => $("enlarged").close());
document.addEventListener("keydown", (event) => {
  const typing = ["INPUT", "SELECT"].includes(event.target.tagName);
  if ($("enlarged").open || typing || event.ctrlKey || event.metaKey) return;
  const sample = event.target.classList.contains("sample");
  const picture = event.key === "Enter" && sample && event.target.querySelector("button.picture");
  if (picture) { event.preventDefault(); picture.click(); }
  if ($("view-samples").hidden) return;
  if (event.key === "j") move(1);
  if (event.key === "k") move(-1);
});
window.addEventListener("hashchange", route);
route();

/* Served by `bench view`: told when files have changed. */
if (data.live) {
  setInterval(async () => {
    try {
      const answer = await fetch("state");
      if (answer.ok) $("changed").hidden = (await answer.text()) === data.live;
    } catch { /* the server has ended; the page stays */ }
  }, 3000);
  $("reload").addEventListener("click", () => location.reload());
}
