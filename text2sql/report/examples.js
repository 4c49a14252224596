// The examples and the filters over them.

const MAX_OPTIONS = 300;
const LEFT_OUT = new Set(["gold_error", "gold_budget"]);
const RIGHT = new Set(["match", "empty_both"]);

// Filters by name: what it is called, and the values of an example among which the chosen one must be.
const FILTERS = {
  outcome: { label: "Outcome", values: (example) => [example.outcome] },
  verdict: { label: "Verdict", values: (example) => [example.verdict] },
  diagnosis: { label: "Diagnosis", values: (example) => example.diagnosis },
  hardness: { label: "Hardness", values: (example) => [example.hardness] },
  database: { label: "Database", values: (example) => [example.db_id] },
  rules: {
    label: "Strict and official",
    values: (example) => (example.differ ? ["differ", ...example.differences] : []),
  },
};
const START = { q: "", page: 0, example: "", ...Object.fromEntries(Object.keys(FILTERS).map((name) => [name, ""])) };

const controls = new Map();

const listOf = (value) => (Array.isArray(value) ? value.map(asText) : []);

// The rows of predictions.jsonl, old ones too, with every field that the page uses; keys are ids made different.
function normalised(rows) {
  const seen = new Set();
  return rows.map((row, i) => {
    const verdict = asText(row.verdict);
    const correct = isKnown(row.correct) ? row.correct : RIGHT.has(verdict);
    const judged = !LEFT_OUT.has(verdict);
    const differences = listOf(row.differences);
    const differ =
      differences.length > 0 || (isKnown(row.strict) && isKnown(row.official) && row.strict !== row.official);
    let key = new URLSearchParams({ id: asText(row.id) || String(i) }).get("id");
    while (seen.has(key)) key += `~${i}`;
    seen.add(key);
    const [question, gold, prediction, db_id, hardness] = ["question", "gold", "prediction", "db_id", "hardness"].map(
      (field) => asText(row[field]),
    );
    const text = [question, gold, prediction, db_id, asText(row.id)].join("\n").toLowerCase();
    const outcome = !judged ? "left out" : correct ? "correct" : "wrong";
    const known = {
      question,
      gold,
      prediction,
      db_id,
      hardness,
      verdict,
      correct,
      judged,
      outcome,
      differences,
      differ,
      key,
      text,
    };
    return {
      ...row,
      ...known,
      reason: asText(row.reason),
      diagnosis: listOf(row.diagnosis),
      details: listOf(row.diagnosis_details),
    };
  });
}

function matching() {
  const sought = state.q.toLowerCase().split(/\s+/).filter(Boolean);
  const chosen = Object.entries(FILTERS).filter(([name]) => state[name]);
  return EXAMPLES.filter(
    (example) =>
      chosen.every(([name, { values }]) => values(example).includes(state[name])) &&
      sought.every((word) => example.text.includes(word)),
  );
}

function examplesSection() {
  const search = element("input", {
    type: "search",
    id: "q",
    autocomplete: "off",
    spellcheck: "false",
    placeholder: "question, SQL, database, id",
    oninput: () => change({ q: search.value }),
  });
  controls.set("q", search);
  const fields = [element("div", { class: "field search" }, element("label", { for: "q" }, "Search"), search)];
  for (const [name, { label, values }] of Object.entries(FILTERS)) {
    const options = tallied(values);
    if (!options.length) continue;
    const select = element("select", { id: `filter-${name}`, onchange: () => change({ [name]: select.value }) });
    select.append(element("option", { value: "" }, "all"), ...options.slice(0, MAX_OPTIONS).map((one) => option(one)));
    controls.set(name, select);
    fields.push(element("div", { class: "field" }, element("label", { for: `filter-${name}` }, label), select));
  }
  const clear = element(
    "button",
    { type: "button", onclick: () => change({ ...START, example: state.example }) },
    "Clear",
  );
  const form = element(
    "form",
    { class: "filters", role: "search", onsubmit: (event) => event.preventDefault() },
    fields,
    element("div", { class: "field clear" }, clear),
  );
  const keys = element(
    "p",
    { class: "note keys" },
    ["/", "j", "k", "Enter"].map((key, i) => [
      i ? " " : "",
      element("kbd", null, key),
      [" search,", " next,", " previous,", " open"][i],
    ]),
  );
  const omitted =
    PAGE.prompts_left_out &&
    element(
      "p",
      { class: "note" },
      "Prompts and answers are not in this page, as together they are too long; predictions.jsonl has them.",
    );
  return section("examples", "Examples", keys, omitted, form, counted, list, pages);
}

function option({ name, total }) {
  return element("option", { value: name }, shortened(spaced(name), 60) || "none", ` (${count(total)})`);
}

// A button that shows the examples with one value of one filter.
function filterButton(text, filter, value) {
  const button = element(
    "button",
    { type: "button", class: "filter", title: "Show these examples", onclick: () => showOnly(filter, value) },
    shown(shortened(text, 200)),
  );
  if (!asText(text)) button.textContent = "none";
  return button;
}

function showOnly(filter, value) {
  change({ ...START, [filter]: value });
  showHeading("examples");
}

function showHeading(id) {
  const heading = document.getElementById(`${id}-title`);
  heading.focus({ preventScroll: true });
  heading.scrollIntoView();
}
