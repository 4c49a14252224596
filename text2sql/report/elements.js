"use strict";
// Elements, numbers and text. Text from the run reaches the document as text nodes only, never as markup.

function element(tag, attributes, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

function svg(tag, attributes, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

// The names of attributes are written in this script; only their values may come from the run.
function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  for (const child of children.flat(Infinity)) {
    if (child != null && child !== false && child !== "") node.append(child);
  }
  return node;
}

// Own keys only: a database may be called "constructor".
const lookup = (object, key) => (object != null && Object.hasOwn(object, key) ? object[key] : undefined);

// Characters that are not seen or that turn the text around, and halves of surrogate pairs; whole pairs are found[1].
const UNSEEN = new RegExp(
  [
    String.raw`([\ud800-\udbff][\udc00-\udfff])`,
    String.raw`[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\xa0\xad\u200b\u200e\u200f\u2028-\u202f\u2060-\u2069\ufeff]`,
    String.raw`[\ud800-\udfff]`,
  ].join("|"),
  "g",
);

// Text from the run as nodes, with the first MAX_CODES of its unseen characters as their code points.
const MAX_CODES = 1000;
function shown(text) {
  const nodes = [];
  let start = 0;
  for (const found of text.matchAll(UNSEEN)) {
    if (found[1] || nodes.length >= 2 * MAX_CODES) continue;
    const code = "U+" + found[0].charCodeAt(0).toString(16).toUpperCase().padStart(4, "0");
    nodes.push(text.slice(start, found.index), element("span", { class: "unseen" }, code));
    start = found.index + found[0].length;
  }
  return [...nodes, text.slice(start)];
}

const asText = (value) => (value == null ? "" : typeof value === "object" ? JSON.stringify(value) : String(value));

// An element that holds text from the run: its own direction, so that it cannot turn what stands around it.
function quoted(tag, value, attributes) {
  return element(tag, { dir: "auto", ...attributes }, shown(asText(value)));
}

function shortened(value, length) {
  const text = asText(value);
  return text.length <= length ? text : text.slice(0, length).replace(/[\ud800-\udbff]$/, "") + "…";
}

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
const count = (number) => number.toLocaleString("en", { maximumFractionDigits: 0 });
const things = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
const percent = (share) => `${(100 * share).toFixed(1)}\u00a0%`;
const interval = (low, high) => `${(100 * low).toFixed(1)} to ${(100 * high).toFixed(1)}`;
const spaced = (name) => asText(name).replaceAll("_", " ");

function duration(seconds) {
  const parts = [
    [Math.floor(seconds / 3600), "h"],
    [Math.floor(seconds / 60) % 60, "min"],
    [Math.floor(seconds % 60), "s"],
  ];
  const used = parts.filter(([number]) => number > 0).slice(0, 2);
  return used.length ? used.map(([number, unit]) => `${number} ${unit}`).join(" ") : `${seconds.toFixed(1)} s`;
}

// The score interval of Wilson 1927 for a share, 95 %.
function wilson(correct, total) {
  if (total === 0) return [0, 1];
  const z = 1.96;
  const share = correct / total;
  const shrink = 1 + (z * z) / total;
  const centre = (share + (z * z) / (2 * total)) / shrink;
  const half = (z / shrink) * Math.sqrt((share * (1 - share)) / total + (z * z) / (4 * total * total));
  return [Math.max(0, centre - half), Math.min(1, centre + half)];
}

// A bar from 0 to 1 with its interval; the numbers stand beside it, so it is not read out.
function bar(share, low, high) {
  const fill = element("span", { class: "bar-fill" });
  fill.style.width = `${100 * share}%`;
  const box = element("span", { class: "bar", "aria-hidden": "true" }, fill);
  if (isNumber(low) && isNumber(high)) {
    const whisker = element("span", { class: "bar-interval" });
    whisker.style.left = `${100 * low}%`;
    whisker.style.width = `${100 * (high - low)}%`;
    box.append(whisker);
  }
  return box;
}

function section(id, title, ...children) {
  const heading = element("h2", { id: `${id}-title`, tabindex: "-1" }, title);
  return element("section", { id, "aria-labelledby": `${id}-title` }, heading, ...children);
}

function scrolling(label, ...children) {
  return element("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": label }, ...children);
}

const WINDOW = 20;

// A table of `rows` in its own scrolling box. A column is {title, cell(row)} and may have: number (aligned right), bar,
// and value(row), which makes it sortable by a click on its heading. The first column names the row.
function table(caption, columns, rows, options = {}) {
  let order = options.order ?? null;
  let length = WINDOW;
  const body = element("tbody");
  const headings = columns.map((column, i) =>
    element(
      "th",
      { scope: "col", class: kind(column) },
      column.value ? element("button", { type: "button", onclick: () => sort(i) }, column.title) : column.title,
    ),
  );
  const more = element("button", {
    type: "button",
    class: "more",
    onclick: () => {
      length += 10 * WINDOW;
      draw();
    },
  });

  function kind(column) {
    return column.number ? "number" : column.bar ? "bar-column" : null;
  }
  function sort(i) {
    order = { column: i, down: order?.column === i ? !order.down : Boolean(columns[i].number) };
    draw();
  }
  function ordered() {
    if (!order) return rows;
    const { value } = columns[order.column];
    const sign = order.down ? -1 : 1;
    return [...rows].sort((a, b) => sign * (value(a) < value(b) ? -1 : value(a) > value(b) ? 1 : 0));
  }
  function draw() {
    headings.forEach((heading, i) => {
      if (order?.column === i) heading.setAttribute("aria-sort", order.down ? "descending" : "ascending");
      else heading.removeAttribute("aria-sort");
    });
    const drawn = ordered()
      .slice(0, length)
      .map((row) =>
        element(
          "tr",
          null,
          columns.map((column, i) =>
            element(i ? "td" : "th", { scope: i ? null : "row", class: kind(column) }, column.cell(row)),
          ),
        ),
      );
    body.replaceChildren(...drawn);
    more.hidden = rows.length <= length;
    more.textContent = `Show more of the ${count(rows.length)}`;
  }
  draw();
  const head = element("thead", null, element("tr", null, headings));
  return element(
    "div",
    null,
    scrolling(caption, element("table", null, element("caption", { class: "unheard" }, caption), head, body)),
    more,
  );
}

// Facts as a list of name and value; those without a value are left out.
function facts(pairs) {
  const known = pairs.filter(([, value]) => value != null && value !== "" && value !== false);
  return element(
    "dl",
    { class: "facts" },
    known.map(([name, value]) => element("div", null, element("dt", null, name), element("dd", null, value))),
  );
}
