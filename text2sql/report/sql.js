// SQL as the page shows it: tokens, colours, line breaks before clauses, and the words in which two queries differ.

const TOKEN = new RegExp(
  [
    String.raw`(?<space>\s+)`,
    String.raw`(?<comment>--[^\n]*|\/\*[^]*?(?:\*\/|$))`,
    String.raw`(?<string>'[^']*(?:''[^']*)*'?|"[^"]*(?:""[^"]*)*"?)`,
    "(?<name>`[^`]*`?|\\[[^\\]]*\\]?)",
    String.raw`(?<number>(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)`,
    String.raw`(?<word>[\p{L}_][\p{L}\p{N}_$]*)`,
    String.raw`(?<operator><>|[<>=!]=|\|\||[^])`,
  ].join("|"),
  "giu",
);

const KEYWORDS = new Set(
  (
    "select from where group by order having limit offset distinct all as on using join left right full inner outer " +
    "cross natural union intersect except and or not in is null like glob between exists case when then else end asc " +
    "desc with recursive values cast over partition collate escape"
  ).split(" "),
);
const FUNCTIONS = new Set(
  "count sum avg min max total abs round length lower upper substr coalesce ifnull strftime date datetime".split(" "),
);
const CLAUSES = new Set(
  "from where group order having limit union intersect except join left right full inner cross natural".split(" "),
);
const BEFORE_JOIN = new Set("left right full inner outer cross natural".split(" "));
const SET_OPERATIONS = new Set("union intersect except all".split(" "));
const ONE_LINE = 60;
const MAX_COLOURED = 20000;
const MAX_COMPARED = 1500;

function sqlTokens(text) {
  return [...text.matchAll(TOKEN)].map((found) => {
    const [type] = Object.entries(found.groups).find(([, part]) => part !== undefined);
    const value = found[0];
    return { type, text: value, key: comparable(type, value) };
  });
}

// What two tokens share when they count as the same: the case of names and the kind of quotes do not matter.
function comparable(type, text) {
  if (type === "string") return `'${text.slice(1).replace(/['"]$/, "")}`;
  if (type === "name") return text.slice(1, -1).toLowerCase();
  return text.toLowerCase();
}

// Space, comments and the semicolon at the end of a statement do not set two queries apart.
const counts = (token) => token.type !== "space" && token.type !== "comment" && token.text !== ";";

// The tokens of both sides outside of a longest common subsequence, or null when the two are too long to compare.
function differing(left, right) {
  const [a, b] = [left, right].map((tokens) => tokens.filter(counts));
  if (a.length * b.length > MAX_COMPARED * MAX_COMPARED) return null;
  const width = b.length + 1;
  const longest = new Uint16Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      longest[i * width + j] =
        a[i].key === b[j].key
          ? longest[(i + 1) * width + j + 1] + 1
          : Math.max(longest[(i + 1) * width + j], longest[i * width + j + 1]);
    }
  }
  const only = new Set([...a, ...b]);
  for (let i = 0, j = 0; i < a.length && j < b.length;) {
    if (a[i].key === b[j].key) {
      only.delete(a[i++]);
      only.delete(b[j++]);
    } else if (longest[(i + 1) * width + j] >= longest[i * width + j + 1]) i++;
    else j++;
  }
  return only;
}

// Line breaks before clauses, in a query that was written on one long line.
function broken(tokens) {
  const length = tokens.reduce((sum, token) => sum + token.text.length, 0);
  if (length <= ONE_LINE || tokens.some((token) => token.text.includes("\n"))) return tokens;
  let depth = 0;
  let previous = "";
  return tokens.map((token, i) => {
    if (token.text === "(") depth += 1;
    if (token.text === ")") depth -= 1;
    if (token.type !== "space") {
      previous = token.key;
      return token;
    }
    const next = tokens[i + 1];
    return next?.type === "word" && startsLine(previous, next.key)
      ? { ...token, text: "\n" + "  ".repeat(Math.max(0, depth)) }
      : token;
  });
}

function startsLine(previous, word) {
  if (word === "select") return SET_OPERATIONS.has(previous);
  return CLAUSES.has(word) && !BEFORE_JOIN.has(previous);
}

function colour(token) {
  if (token.type === "word") return KEYWORDS.has(token.key) ? "keyword" : FUNCTIONS.has(token.key) ? "function" : null;
  return token.type === "operator" || token.type === "space" ? null : token.type;
}

// The nodes of a query; tokens in `only` are marked, neighbours on one line together.
function sqlNodes(tokens, only) {
  const nodes = [];
  let run = null;
  for (const [i, token] of broken(tokens).entries()) {
    const text = shown(token.text);
    const coloured = colour(token) ? element("span", { class: `sql-${colour(token)}` }, text) : text;
    const joins = token.type === "space" && run && only.has(tokens[i + 1]) && !token.text.includes("\n");
    if (!only?.has(token) && !joins) run = null;
    else if (!run) nodes.push((run = element("mark", null, coloured)));
    else run.append(...[coloured].flat());
    if (!run) nodes.push(coloured);
  }
  return nodes;
}

function sqlBlock(text, tokens, only) {
  const plain = text.length > MAX_COLOURED;
  return element(
    "pre",
    { class: "sql", dir: "ltr" },
    element("code", null, plain ? shown(text) : sqlNodes(tokens, only)),
  );
}

// Two queries as blocks, with what only one of them has marked; `compared` is false where they are too long for that.
function sqlPair(gold, prediction) {
  const tokens = [gold, prediction].map((text) => (text.length > MAX_COLOURED ? [] : sqlTokens(text)));
  const short = Math.max(gold.length, prediction.length) <= MAX_COLOURED;
  const only = short ? differing(...tokens) : null;
  const [left, right] = [gold, prediction].map((text, i) => sqlBlock(text, tokens[i], only));
  return { gold: left, prediction: right, compared: only !== null, differ: Boolean(only?.size) };
}

// The names that a query may mean, in lower case.
function namesIn(text) {
  const tokens = sqlTokens(text.slice(0, MAX_COLOURED)).filter((token) =>
    ["word", "name", "string"].includes(token.type),
  );
  return new Set(tokens.map((token) => (token.type === "string" ? token.key.slice(1).toLowerCase() : token.key)));
}
