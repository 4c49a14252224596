// The list of examples that pass the filters, in pages of 50, one of them open, as the address says.

const PAGE_SIZE = 50;
const SHOWN_QUESTION = 300;

let state = { ...START };
let found = [];
let current = -1; // the place in `found` of the example that the keyboard is on
const list = element("ol", { class: "examples" });
const counted = element("p", { class: "counted", role: "status" });
const pages = element("nav", { class: "pages", "aria-label": "Pages of the list" });

// New filters or another page: the open example stays open only while it is in the list.
function change(differences) {
  state = { ...state, page: 0, ...differences };
  found = matching();
  current = -1;
  if (!found.slice(state.page * PAGE_SIZE, (state.page + 1) * PAGE_SIZE).some(({ key }) => key === state.example))
    state.example = "";
  drawList();
  writeHash();
}

function drawList(missing) {
  for (const [name, control] of controls) {
    const known = control.tagName !== "SELECT" || [...control.options].some(({ value }) => value === state[name]);
    if (!known) control.append(option({ name: state[name], total: found.length }));
    control.value = state[name];
  }
  const first = state.page * PAGE_SIZE;
  const drawn = found.slice(first, first + PAGE_SIZE);
  list.replaceChildren(...drawn.map(row));
  list.start = first + 1;
  const correct = found.filter((example) => example.judged && example.correct).length;
  const judged = found.filter((example) => example.judged).length;
  const share = judged ? `, ${count(correct)} correct (${percent(correct / judged)})` : "";
  counted.replaceChildren(`${count(found.length)} of ${things(EXAMPLES.length, "example")}${share}`);
  if (missing) counted.append(". This run has no example ", quoted("code", missing), ".");
  drawPages(first, drawn.length);
}

function drawPages(first, number) {
  pages.hidden = found.length <= PAGE_SIZE;
  const button = (text, page, usable) =>
    element(
      "button",
      {
        type: "button",
        disabled: !usable,
        onclick: () => {
          change({ page });
          showHeading("examples");
        },
      },
      text,
    );
  pages.replaceChildren(
    button("Previous page", state.page - 1, state.page > 0),
    element("span", null, `${count(first + 1)} to ${count(first + number)} of ${count(found.length)}`),
    button("Next page", state.page + 1, first + number < found.length),
  );
}

function row(example) {
  const open = example.key === state.example;
  const sign = { correct: "✓", wrong: "✗", "left out": "–" }[example.outcome];
  const button = element(
    "button",
    { type: "button", class: "opener", "aria-expanded": String(open), onclick: () => toggle(example) },
    element("span", { class: "sign", role: "img", "aria-label": example.outcome }, sign),
    quoted("span", shortened(example.question, SHOWN_QUESTION) || "no question", { class: "question" }),
  );
  const tags = [example.differ && "rules differ", ...example.diagnosis.map(spaced)]
    .filter(Boolean)
    .map((tag) => quoted("span", shortened(tag, 60), { class: "tag" }));
  const about = [
    quoted("span", spaced(example.verdict), { class: "verdict" }),
    quoted("span", example.db_id),
    quoted("span", example.hardness),
    quoted("span", example.id),
    tags.length ? element("p", { class: "tags" }, tags) : null,
  ];
  const brief = element(
    "code",
    { class: "brief", dir: "ltr" },
    shown(shortened(example.prediction.replace(/\s+/g, " "), 200)),
  );
  const item = element(
    "li",
    { class: `example ${example.outcome.replace(" ", "-")}${open ? " open" : ""}` },
    element("h3", null, button),
    brief,
    element("div", { class: "about" }, about),
  );
  if (open) item.append(detail(example));
  return item;
}

function toggle(example) {
  openAt(found.indexOf(example), example.key !== state.example);
}

// Move to a place of the list, turning its page if need be, and open or close the example there.
function openAt(place, open) {
  const page = Math.floor(place / PAGE_SIZE);
  state = { ...state, page, example: open ? found[place].key : "" };
  current = place;
  drawList();
  writeHash();
  focusCurrent(open ? "start" : "nearest");
}

function focusCurrent(block) {
  const button = list.children[current - state.page * PAGE_SIZE].querySelector(".opener");
  button.focus({ preventScroll: true });
  button.scrollIntoView({ block });
}

// The keyboard's next or previous example; one that is open makes way for it.
function step(by) {
  if (!found.length) return;
  const focused = [...list.children].findIndex((item) => item.contains(document.activeElement));
  const from = focused >= 0 ? focused + state.page * PAGE_SIZE : current;
  const start = from >= 0 ? from + by : state.page * PAGE_SIZE;
  const place = Math.min(Math.max(start, 0), found.length - 1);
  if (state.example) openAt(place, true);
  else openAt(place, false);
}

function writeHash() {
  const used = Object.entries(state).filter(([name, value]) => value && (name !== "page" || !state.example));
  const hash = new URLSearchParams(used.map(([name, value]) => [name, String(value)])).toString();
  history.replaceState(null, "", hash ? `#${hash}` : location.href.split("#")[0]);
}

// Filters, page and the open example from the address; an example is shown on its own page of the list.
function readHash() {
  const given = new URLSearchParams(location.hash.slice(1));
  state = Object.fromEntries(Object.entries(START).map(([name, value]) => [name, given.get(name) ?? value]));
  found = matching();
  const wanted = state.example;
  const place = found.findIndex(({ key }) => key === wanted);
  const last = Math.max(0, Math.ceil(found.length / PAGE_SIZE) - 1);
  const page =
    place >= 0 ? Math.floor(place / PAGE_SIZE) : Math.min(last, Math.max(0, Math.floor(Number(state.page)) || 0));
  state = { ...state, page, example: place >= 0 ? wanted : "" };
  current = place;
  drawList(place < 0 ? wanted : "");
  if (place >= 0) focusCurrent("start");
}
