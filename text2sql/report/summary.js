// What stands above the list of examples: the headline, and tables by hardness, database, verdict and diagnosis.

const metric = (name) => lookup(PAGE.metrics, name);

function stamped(run) {
  const when = asText(run.finished ?? run.started)
    .replace("T", " ")
    .slice(0, 16);
  const seconds = metric("eval/seconds") ?? metric("train/seconds");
  const status =
    run.status && run.status !== "finished"
      ? element("strong", { class: "status" }, `Status: ${spaced(run.status)}. `, quoted("span", run.error))
      : null;
  const parts = [
    lookup(run.data, "name"),
    lookup(run.data, "path"),
    when,
    isNumber(seconds) && duration(seconds),
  ].filter(Boolean);
  return [
    element(
      "p",
      { class: "when" },
      parts.map((part, i) => [i ? " · " : "", quoted("span", part)]),
    ),
    status,
  ];
}

// One number of the headline with its interval: that of the metrics, or else from the examples that have the field.
function figure(name, key, field, meaning, primary) {
  const share = metric(key);
  if (!isNumber(share)) return null;
  const total = EXAMPLES.filter((example) => example.judged && isKnown(example[field])).length;
  const computed = total ? wilson(share * total, total) : [];
  const [low, high] = [metric(`${key}_low`) ?? computed[0], metric(`${key}_high`) ?? computed[1]];
  const known = isNumber(low) && isNumber(high);
  return element(
    "div",
    { class: primary ? "figure primary" : "figure" },
    element("dt", null, name),
    element(
      "dd",
      null,
      element("span", { class: "value" }, percent(share)),
      known && element("span", { class: "interval" }, `${interval(low, high)} (95\u00a0%)`),
    ),
    element("dd", { class: "explained" }, bar(share, low, high), meaning),
  );
}

const RULES = { strict: "both queries run as they are", official: "as Spider's own evaluator judges" };

function evaluationHeadline() {
  const total = metric("eval/examples");
  const path = (rule) => `eval/${rule}_execution_accuracy`;
  const rule = Object.keys(RULES).find((name) => metric(path(name)) === metric("eval/execution_accuracy"));
  const meaning = [isNumber(total) && things(total, "example"), rule && RULES[rule]].filter(Boolean).join("; ");
  const others = Object.keys(RULES).filter((name) => name !== rule);
  return [
    element(
      "dl",
      { class: "figures" },
      figure(`Execution accuracy${rule ? `, ${rule}` : ""}`, "eval/execution_accuracy", "correct", meaning, true),
      others.map((name) => figure(`Execution accuracy, ${name}`, path(name), name, RULES[name])),
      figure("Exact match", "eval/exact_match", "exact_match", "same clauses, values aside"),
    ),
    evaluationFacts(),
  ];
}

function evaluationFacts() {
  const rate = (name) => (isNumber(metric(name)) ? percent(metric(name)) : null);
  const number = (name) => (isNumber(metric(name)) ? count(metric(name)) : null);
  const leftOut = [
    [metric("eval/gold_errors"), "whose gold does not run"],
    [metric("eval/gold_budget"), "whose gold hits a limit"],
  ].filter(([found]) => isNumber(found));
  return facts([
    ["Invents a column", rate("eval/hallucinated_column_rate") ?? rate("eval/unknown_column_rate")],
    ["Invents a table", rate("eval/hallucinated_table_rate") ?? rate("eval/unknown_table_rate")],
    ["Both results empty", number("eval/empty_both")],
    [
      "Left out",
      leftOut.length
        ? leftOut
            .filter(([found]) => found > 0)
            .map(([found, why]) => `${count(found)} ${why}`)
            .join(", ") || "none"
        : null,
    ],
    ["Data", PAGE.run.data_summary && quoted("span", PAGE.run.data_summary)],
  ]);
}

const LEVELS = ["easy", "medium", "hard", "extra", "unparsed"];

function hardnessSection() {
  const rows = LEVELS.filter((level) => isNumber(metric(`eval/${level}/examples`))).map((level) =>
    accuracyRow(level, `eval/${level}`),
  );
  if (!rows.length) return null;
  if (isNumber(metric("eval/examples"))) rows.push(accuracyRow("all", "eval"));
  const columns = [
    { title: "hardness", cell: (row) => (row.name === "all" ? "all" : filterButton(row.name, "hardness", row.name)) },
    ...accuracyColumns(),
  ];
  if (rows.some(({ exact }) => isNumber(exact)))
    columns.push({
      title: "exact match",
      number: true,
      cell: (row) => (isNumber(row.exact) ? percent(row.exact) : "–"),
    });
  const note = element(
    "p",
    { class: "note" },
    "Of the gold, by Spider's rules: the more clauses, conditions and nesting, the harder.",
  );
  return section("by-hardness", "By hardness", table("Accuracy by hardness", columns, rows), note);
}

function accuracyRow(name, path) {
  const [share, low, high] = ["", "_low", "_high"].map((end) => metric(`${path}/execution_accuracy${end}`));
  return { name, total: metric(`${path}/examples`), share, low, high, exact: metric(`${path}/exact_match`) };
}

// Columns for rows of {total, share, low, high}.
function accuracyColumns(sortable) {
  const by = (name) => (sortable ? (row) => row[name] : undefined);
  return [
    { title: "examples", number: true, cell: (row) => count(row.total), value: by("total") },
    { title: "accuracy", number: true, cell: (row) => (row.total ? percent(row.share) : "–"), value: by("share") },
    {
      title: "95\u00a0% interval",
      number: true,
      cell: (row) => (row.total && isNumber(row.low) ? interval(row.low, row.high) : "–"),
      value: by("low"),
    },
    { title: "0 to 100\u00a0%", bar: true, cell: (row) => (row.total ? bar(row.share, row.low, row.high) : "") },
  ];
}

function databaseSection() {
  if (!EXAMPLES.length) return null;
  const counts = new Map();
  for (const { db_id, correct, judged } of EXAMPLES) {
    const one = counts.get(db_id) ?? { name: db_id, total: 0, correct: 0 };
    counts.set(db_id, { ...one, total: one.total + judged, correct: one.correct + (judged && correct) });
  }
  const rows = [...counts.values()].map((row) => {
    const [low, high] = wilson(row.correct, row.total);
    return { ...row, share: row.total ? row.correct / row.total : 0, low, high };
  });
  const columns = [
    { title: "database", cell: (row) => filterButton(row.name, "database", row.name), value: (row) => row.name },
    ...accuracyColumns(true),
  ];
  return section(
    "by-database",
    "By database",
    table("Accuracy by database", columns, rows, { order: { column: 2, down: false } }),
  );
}

// Counts of values over all examples, the most frequent first; `values(example)` is a list.
function tallied(values) {
  const counts = new Map();
  for (const example of EXAMPLES) for (const value of values(example)) counts.set(value, (counts.get(value) ?? 0) + 1);
  return [...counts].map(([name, total]) => ({ name, total })).sort((a, b) => b.total - a.total);
}

// A name with the one line that says what it means, where there is one.
function explained(name, kind, word) {
  const meaning = lookup(PAGE.words[kind], word);
  return meaning ? [name, element("span", { class: "meaning" }, meaning)] : name;
}

function tallySection(id, title, filter, values, kind) {
  const rows = tallied(values);
  if (!rows.length) return null;
  const judged = Math.max(1, EXAMPLES.filter((example) => example.judged).length);
  const share = ({ name, total }) => (LEFT_OUT.has(name) ? null : total / judged);
  const columns = [
    { title: filter, cell: (row) => explained(filterButton(spaced(row.name), filter, row.name), kind, row.name) },
    { title: "examples", number: true, cell: (row) => count(row.total) },
    { title: "share", number: true, cell: (row) => (share(row) === null ? "–" : percent(share(row))) },
    { title: "0 to 100\u00a0%", bar: true, cell: (row) => (share(row) === null ? "" : bar(share(row))) },
  ];
  return section(id, title, table(title, columns, rows));
}

function differenceSection() {
  if (!EXAMPLES.some(({ strict, official }) => isKnown(strict) && isKnown(official))) return null;
  const differing = EXAMPLES.filter(({ differ }) => differ);
  const only = (rule) => differing.filter((example) => example[rule]).length;
  const button = filterButton(`${things(differing.length, "example")}`, "rules", "differ");
  const text = [
    button,
    ` of ${count(EXAMPLES.length)} are judged differently: ${count(only("strict"))} right by strict only, `,
    `${count(only("official"))} right by official only.`,
  ];
  const reasons = tallied((example) => example.differences);
  const columns = [
    { title: "how they differ", cell: (row) => filterButton(row.name, "rules", row.name) },
    { title: "examples", number: true, cell: (row) => count(row.total) },
  ];
  const because = reasons.length ? table("How strict and official differ", columns, reasons) : null;
  return section(
    "rules",
    "Strict and official",
    element("p", { class: "note" }, differing.length ? text : "Both rules give every example the same verdict."),
    because,
  );
}

const isKnown = (value) => typeof value === "boolean";

function partialSection() {
  const parts = new Map();
  const prefix = "eval/partial/";
  for (const [key, value] of Object.entries(PAGE.metrics)) {
    if (!key.startsWith(prefix) || !isNumber(value)) continue;
    const end = key.lastIndexOf("/"); // a part may be called "and/or"
    const name = key.slice(prefix.length, end);
    parts.set(name, (parts.get(name) ?? new Map()).set(key.slice(end + 1), value));
  }
  if (!parts.size) return null;
  const measures = [...new Set([...parts.values()].flatMap((part) => [...part.keys()]))];
  const columns = [
    { title: "part of the query", cell: ([name]) => shown(spaced(name)) },
    ...measures.map((measure) => ({
      title: spaced(measure),
      number: true,
      cell: ([, part]) => (part.has(measure) ? percent(part.get(measure)) : "–"),
    })),
  ];
  return section("partial", "Exact match by part", table("Exact match by part of the query", columns, [...parts]));
}
