// One example, opened: why it got its verdict, both queries, both results, the schema, and the prompt.

function detail(example) {
  return element(
    "div",
    { class: "detail" },
    detailActions(example),
    example.question.length > SHOWN_QUESTION && quoted("p", example.question, { class: "asked" }),
    outcome(example),
    queries(example),
    results(example),
    schema(example),
    conversation(example),
  );
}

function detailActions(example) {
  const link = "#" + new URLSearchParams({ example: example.key });
  return element(
    "p",
    { class: "actions" },
    element("button", { type: "button", onclick: () => step(-1) }, "Previous"),
    element("button", { type: "button", onclick: () => step(1) }, "Next"),
    element("a", { href: link }, "Link to this example"),
  );
}

function outcome(example) {
  const rules = [
    ["Strict", example.strict],
    ["Official", example.official],
    ["Exact match", example.exact_match],
  ];
  const answers = rules
    .filter(([, value]) => isKnown(value))
    .map(([name, value]) =>
      element("li", { class: value ? "yes" : "no" }, `${value ? "✓" : "✗"} ${name}${value ? "" : ": no"}`),
    );
  const paired = example.details.length === example.diagnosis.length;
  const sentences = [
    example.reason && [element("b", null, shown(spaced(example.verdict))), ": ", shown(example.reason)],
    ...example.details.map((sentence, i) => [
      paired && [element("b", null, shown(spaced(example.diagnosis[i]))), ": "],
      shown(sentence),
    ]),
    listOf(example.wrong_parts).length && `Exact match: these parts differ: ${listOf(example.wrong_parts).join(", ")}.`,
    ...example.differences.map((sentence) => ["Strict and official differ: ", shown(sentence)]),
    example.shortened > 0 &&
      `Left out of the prompt's schema to make it fit: ${count(example.shortened)} of its rows, values, types, columns and tables.`,
    ...chosen(example),
  ].filter(Boolean);
  return element(
    "div",
    { class: "outcome" },
    answers.length ? element("ul", { class: "answers", "aria-label": "By each rule" }, answers) : null,
    sentences.length
      ? element(
          "ul",
          { class: "why", "aria-label": "Why" },
          sentences.map((sentence) => element("li", { dir: "auto" }, sentence)),
        )
      : null,
  );
}

// What voting and repairing made of the answer.
function chosen({ candidates, before_votes: greedy, before_repair: failing, repair }) {
  const texts = (Array.isArray(candidates) ? candidates : []).filter((one) => isNumber(one?.count) && isNumber(one.votes));
  const answers = texts.reduce((sum, one) => sum + one.count, 0);
  const most = texts.reduce((best, one) => Math.max(best, one.votes), 0);
  return [
    answers &&
      `Votes: ${count(most)} of ${things(answers, "answer")} have the winning result; ${things(texts.length, "text")} in all.`,
    greedy != null && ["By votes, in place of the greedy answer: ", quoted("code", greedy)],
    failing != null && ["Repaired, in place of what does not run: ", quoted("code", failing)],
    repair != null && failing == null && "Does not run, and neither did the answer to a second request.",
  ];
}

function queries(example) {
  const { gold, prediction, compared, differ } = sqlPair(example.gold, example.prediction);
  const note = !compared
    ? "Too long to compare word by word."
    : differ
      ? "Marked: what only one of the two has."
      : "The two say the same, word by word.";
  return element(
    "div",
    null,
    element(
      "div",
      { class: "pair" },
      pane("Gold SQL", gold),
      pane("Predicted SQL", example.prediction.trim() ? prediction : element("p", { class: "nothing" }, "No SQL.")),
    ),
    element("p", { class: "note" }, note),
  );
}

function pane(title, ...children) {
  return element("div", { class: "pane" }, element("h4", null, title), ...children);
}

function results({ gold_result: gold, predicted_result: predicted, correct }) {
  if (!gold && !predicted) return null;
  const comparable =
    !correct &&
    gold &&
    predicted &&
    [gold, predicted].every(complete) &&
    gold.columns.length === predicted.columns.length;
  const [left, right] = comparable ? [lacking(gold, predicted), lacking(predicted, gold)] : [new Set(), new Set()];
  return element(
    "div",
    null,
    element(
      "div",
      { class: "pair" },
      pane("Gold result", resultTable("Gold result", gold, left)),
      pane("Predicted result", resultTable("Predicted result", predicted, right)),
    ),
    left.size + right.size ? element("p", { class: "note" }, "Marked: rows that the other result lacks.") : null,
  );
}

const complete = (result) => result.num_rows <= result.rows.length;

// The positions of rows that `other` does not have as often.
function lacking(result, other) {
  const left = new Map();
  for (const row of other.rows) left.set(JSON.stringify(row), (left.get(JSON.stringify(row)) ?? 0) + 1);
  const positions = result.rows.map((row, i) => {
    const found = left.get(JSON.stringify(row)) ?? 0;
    left.set(JSON.stringify(row), found - 1);
    return found > 0 ? -1 : i;
  });
  return new Set(positions.filter((i) => i >= 0));
}

function resultTable(title, result, marked) {
  if (!result) return element("p", { class: "nothing" }, "No result.");
  const head = element(
    "tr",
    null,
    result.columns.map((name) => quoted("th", name, { scope: "col" })),
  );
  const body = result.rows.map((row, i) => element("tr", { class: marked.has(i) ? "lacking" : null }, row.map(cell)));
  const all = isNumber(result.num_rows) ? result.num_rows : result.rows.length;
  const size = complete(result) ? things(all, "row") : `The first ${result.rows.length} of ${things(all, "row")}`;
  return [
    scrolling(
      title,
      element(
        "table",
        { class: "result" },
        element("caption", { class: "unheard" }, title),
        element("thead", null, head),
        element("tbody", null, body),
      ),
    ),
    element("p", { class: "note" }, `${size}, ${things(result.columns.length, "column")}`),
  ];
}

function cell(value) {
  if (value === null) return element("td", { class: "null" }, "NULL");
  if (value === "") return element("td", { class: "null" }, "empty text");
  if (typeof value === "number") return element("td", { class: "number" }, String(value));
  if (typeof lookup(value, "number") === "string") return element("td", { class: "number" }, shown(value.number));
  if (typeof lookup(value, "text") === "string") {
    return element(
      "td",
      { dir: "auto" },
      shown(value.text),
      element("span", { class: "note" }, ` … ${things(value.length, "character")} in all`),
    );
  }
  return quoted("td", value);
}

function schema(example) {
  const tables = lookup(PAGE.schemas, example.db_id)?.tables;
  if (!Array.isArray(tables) || !tables.length) return null;
  const names = new Set([...namesIn(example.gold), ...namesIn(example.prediction)]);
  const used = tables.filter(({ name }) => names.has(name.toLowerCase()));
  const others = tables.filter((one) => !used.includes(one));
  const cards = (some) =>
    element(
      "div",
      { class: "cards" },
      some.map((one) => card(one, names)),
    );
  const rest = used.length ? lazy(`${things(others.length, "other table")}`, () => cards(others)) : cards(others);
  return element(
    "div",
    null,
    element("h4", null, "Schema of ", quoted("span", example.db_id)),
    used.length ? cards(used) : null,
    others.length ? rest : null,
  );
}

// A table of the schema; columns whose names stand in one of the queries are set in bold.
function card({ name, columns, foreign_keys: keys }, names) {
  const targets = new Map();
  for (const key of keys ?? []) {
    key.columns.forEach((column, i) =>
      targets.set(column, [...(targets.get(column) ?? []), `${key.foreign_table}.${key.foreign_columns[i]}`]),
    );
  }
  const rows = columns.map((column) =>
    element(
      "li",
      { class: names.has(column.name.toLowerCase()) ? "named" : null },
      quoted("span", column.name, { class: "column-name" }),
      " ",
      quoted("span", column.type, { class: "column-type" }),
      column.primary_key && [" ", element("span", { class: "key" }, "primary key")],
      (targets.get(column.name) ?? []).map((target) => [" ", quoted("span", `→ ${target}`, { class: "key" })]),
    ),
  );
  return element("div", { class: "card" }, quoted("h5", name), element("ul", null, rows));
}

function conversation({ prompt, answer }) {
  if (prompt == null && answer == null) return null;
  const part = (title, text) =>
    text != null && [element("h5", null, title), quoted("pre", text, { class: "conversation" })];
  return lazy(answer == null ? "Prompt" : "Prompt and answer", () =>
    element("div", null, part("Prompt", prompt), part("Answer", answer)),
  );
}
