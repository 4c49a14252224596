"use strict";
// The form that asks, and its answers, the newest on top. What a model wrote or a database holds becomes text nodes only.

const POLL_MS = 700;
const form = document.getElementById("ask");
const send = document.getElementById("send");
const progress = document.getElementById("progress");
const question = document.getElementById("question");
const database = document.getElementById("database");
let tables = [];

async function told(response) {
  const value = await response.json().catch(() => ({ error: `the server answered ${response.status}` }));
  if (!response.ok) throw new Error(value.error);
  return value;
}

function say(text, problem = false) {
  progress.classList.toggle("problem", problem);
  progress.replaceChildren(...shown(text));
}

// What the server does, until the answer is there.
function watch() {
  const timer = setInterval(async () => {
    const work = await fetch("/work").then(told, () => null).catch(() => null);
    if (send.disabled && work?.doing) say(`${work.doing}: ${Math.round(work.seconds)} s`);
  }, POLL_MS);
  return () => clearInterval(timer);
}

async function ask() {
  const run = document.getElementById("run").value;
  const body = JSON.stringify({ question: question.value, database: database.value, run });
  send.disabled = true;
  say("asking");
  const stop = watch();
  try {
    const headers = { "Content-Type": "application/json" };
    const answer = await told(await fetch("/ask", { method: "POST", headers, body }));
    document.getElementById("answers").prepend(answerBox(answer));
    drawTables(answer.sql);
    say(answer.abstained ? "no answer, and why" : "answered");
  } catch (error) {
    say(error.message, true);
  } finally {
    stop();
    send.disabled = false;
  }
}

function answerBox(answer) {
  const { sql, abstained, result } = answer;
  const block = sql.trim() ? sqlBlock(sql, sqlTokens(sql)) : element("p", { class: "nothing" }, "No SQL.");
  return element(
    "article",
    { class: "answer-box" },
    quoted("h2", answer.question),
    element("div", { class: abstained ? "not-run" : null }, abstained && element("h4", null, "Not run"), block),
    checkOf(answer),
    abstained
      ? element("p", { class: "abstained", dir: "auto" }, "No answer: ", shown(abstained))
      : element("div", null, resultTable(`Rows for: ${shortened(answer.question, 80)}`, result, new Set())),
    element("p", { class: "note" }, notes(answer).join("; ")),
  );
}

// Whether the names in the SQL are in the schema, and which they are.
function checkOf({ missing, reads }) {
  if (missing.length) {
    const list = missing.map((sentence) => quoted("li", sentence));
    return element("div", { class: "check" }, element("p", { class: "no" }, "✗ Not in the schema:"), element("ul", { class: "why" }, list));
  }
  const names = reads.flatMap((name, i) => [i ? ", " : "", quoted("code", name)]);
  const found = names.length ? [": reads ", names] : "";
  return element("p", { class: "check" }, element("span", { class: "yes" }, "✓ All its names are in the schema"), found);
}

function notes({ repaired, asked, agreed, confidence, seconds }) {
  return [
    repaired && "the second try: the first did not run",
    asked > 1 && `${agreed} of ${asked} answers have this result`,
    `the model's least sure token has a probability of ${confidence.toFixed(2)}`,
    `${seconds.toFixed(1)} s`,
  ].filter(Boolean);
}

// The schema of the chosen database; the names that the last query used are set in bold.
async function showSchema() {
  try {
    const address = `/schema?${new URLSearchParams({ database: database.value })}`;
    tables = (await told(await fetch(address))).tables;
    drawTables("");
  } catch (error) {
    tables = [];
    document.getElementById("tables").replaceChildren(quoted("p", error.message, { class: "nothing" }));
  }
}

const MAX_TABLES = 60;
function drawTables(sql) {
  const names = namesIn(sql);
  const used = (one) => names.has(one.name.toLowerCase());
  const sorted = [...tables.filter(used), ...tables.filter((one) => !used(one))].slice(0, MAX_TABLES);
  const cards = sorted.map((one) => card(one, used(one) ? names : new Set()));
  const more = tables.length - sorted.length;
  document
    .getElementById("tables")
    .replaceChildren(element("div", { class: "cards" }, cards), more ? element("p", { class: "note" }, `and ${things(more, "more table")}`) : "");
}

if (form) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!send.disabled) ask();
  });
  question.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    form.requestSubmit(send);
  });
  database.addEventListener("change", showSchema);
  showSchema();
  question.focus();
}
