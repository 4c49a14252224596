// Puts the page together and listens to the keyboard and the address.

const PAGE = JSON.parse(document.getElementById("run-data").textContent);
const EXAMPLES = normalised(JSON.parse(document.getElementById("examples-data").textContent));
const IS_TRAINING = PAGE.run.kind === "train";

function title() {
  const { label, fingerprint, phase, data } = PAGE.run;
  if (label) return asText(label);
  const model = asText(lookup(fingerprint, "model")).split("/").pop();
  const parts = [model, phase != null && `phase ${phase}`, asText(lookup(data, "name"))].filter(Boolean);
  return parts.join(", ") || asText(PAGE.folder);
}

function themeButton() {
  const dark = () =>
    (document.documentElement.dataset.theme ??
      (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const button = element("button", {
    type: "button",
    id: "theme",
    onclick: () => {
      document.documentElement.dataset.theme = dark() ? "light" : "dark";
      name();
    },
  });
  const name = () => (button.textContent = dark() ? "Light theme" : "Dark theme");
  name();
  return button;
}

// The sections, as rows of columns; the columns of a row stand side by side where there is room.
function sections() {
  if (IS_TRAINING) return [[[lossSection(PAGE.losses), samplesSection(), repeatSection()]]];
  return [
    [
      [
        hardnessSection(),
        tallySection("by-verdict", "By verdict", "verdict", (example) => [example.verdict], "verdicts"),
        databaseSection(),
      ],
      [
        differenceSection(),
        tallySection("by-diagnosis", "By diagnosis", "diagnosis", (example) => example.diagnosis, "diagnoses"),
        partialSection(),
      ],
    ],
    [[lossSection(PAGE.losses)]],
    [[EXAMPLES.length ? examplesSection() : null]],
    [[repeatSection()]],
  ];
}

function contents(drawn) {
  const jump = (id) => (event) => {
    event.preventDefault();
    showHeading(id);
  };
  const links = drawn.map(({ id, firstChild }) =>
    element("a", { href: `#${id}`, onclick: jump(id) }, firstChild.textContent),
  );
  return element("nav", { class: "contents", "aria-label": "Sections" }, links);
}

function start() {
  const name = title();
  document.title = `${name} · text2sql`;
  const kind = element(
    "p",
    { class: "kind" },
    IS_TRAINING ? "text2sql training run" : "text2sql evaluation",
    themeButton(),
  );
  document.getElementById("top").append(kind, quoted("h1", name), ...stamped(PAGE.run).filter(Boolean));
  const rows = sections().map((row) => row.map((column) => column.filter(Boolean)).filter((column) => column.length));
  document.getElementById("main").replaceChildren(
    ...(IS_TRAINING ? trainingHeadline() : evaluationHeadline()),
    contents(rows.flat(2)),
    ...rows.map((row) =>
      element(
        "div",
        { class: "columns" },
        row.map((column) => element("div", null, column)),
      ),
    ),
  );
  if (!EXAMPLES.length) return;
  readHash();
  addEventListener("hashchange", readHash);
  document.addEventListener("keydown", pressed);
}

function pressed(event) {
  const typing = event.target.closest("input, select, textarea");
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (typing && event.key === "Escape") event.target.blur();
  if (typing) return;
  const action = { "/": () => controls.get("q").focus(), j: () => step(1), k: () => step(-1) }[event.key];
  if (!action) return;
  event.preventDefault();
  action();
}

start();
