// A training run: its headline, and the SQL it wrote for the same few validation questions as it learned.

function trainingHeadline() {
  const validation = PAGE.losses.validation.filter(([, loss]) => isNumber(loss));
  const best = validation.reduce((lowest, point) => (lowest === null || point[1] < lowest[1] ? point : lowest), null);
  const tile = (name, value, explained, primary) =>
    isNumber(value) &&
    element(
      "div",
      { class: primary ? "figure primary" : "figure" },
      element("dt", null, name),
      element("dd", null, element("span", { class: "value" }, value.toFixed(3))),
      element("dd", { class: "explained" }, explained),
    );
  const number = (name) => (isNumber(metric(name)) ? count(metric(name)) : null);
  const shortened = metric("train/prompts_shortened");
  const tooLong = metric("train/too_long");
  return [
    element(
      "dl",
      { class: "figures" },
      tile(
        "Validation loss",
        metric("validation/loss"),
        `nats a token of SQL${number("validation/examples") ? `, ${number("validation/examples")} examples` : ""}`,
        true,
      ),
      best && tile("Lowest validation loss", best[1], `at step ${count(best[0])}`),
      tile("Training loss", metric("train/loss"), "mean over the run"),
    ),
    facts([
      ["Examples", number("train/examples")],
      ["Steps", number("train/steps")],
      ["Tokens", number("train/tokens")],
      [
        "Speed",
        isNumber(metric("train/examples_per_second")) &&
          `${metric("train/examples_per_second").toFixed(1)} examples a second`,
      ],
      ["Left out", isNumber(tooLong) && `${count(tooLong)} too long`],
      ["Schema shortened to fit", isNumber(shortened) && things(shortened, "prompt")],
      ["Data", PAGE.run.data_summary && quoted("span", PAGE.run.data_summary)],
    ]),
  ];
}

const SHOWN_STEPS = 8;

function samplesSection() {
  const byQuestion = new Map();
  for (const sample of PAGE.samples) {
    const key = JSON.stringify([sample.id, sample.question]);
    byQuestion.set(key, [...(byQuestion.get(key) ?? []), sample]);
  }
  if (!byQuestion.size) return null;
  const title = "Live samples";
  const note = element(
    "p",
    { class: "note" },
    "SQL for the same validation questions at each evaluation. Marked: what the gold does not have.",
  );
  return section("samples", title, note, [...byQuestion.values()].map(question));
}

function question(samples) {
  const [first] = samples;
  const gold = asText(first.gold);
  const cards = (some) => some.map((sample) => sampleAt(sample, gold));
  const earlier = samples.slice(0, -SHOWN_STEPS);
  const rest = earlier.length
    ? lazy(things(earlier.length, "earlier evaluation"), () => element("ol", { class: "steps" }, cards(earlier)))
    : null;
  const written = element("li", { class: "step" }, element("h4", null, "Gold"), sqlBlock(gold, sqlTokens(gold), null));
  return element(
    "article",
    { class: "sample" },
    element("h3", null, quoted("span", first.question), " ", quoted("span", first.id, { class: "id" })),
    rest,
    element("ol", { class: "steps" }, written, cards(samples.slice(-SHOWN_STEPS))),
  );
}

function sampleAt(sample, gold) {
  const outcome = sample.matches === true ? "correct" : sample.matches === false ? "wrong" : "left-out";
  const sign = { correct: "✓ ", wrong: "✗ ", "left-out": "– " }[outcome];
  const why = sample.reason ? [": ", shown(asText(sample.reason))] : null;
  const verdict = element("p", { class: `verdict-line ${outcome}` }, sign, shown(spaced(sample.verdict)), why);
  return element(
    "li",
    { class: "step" },
    element("h4", null, `Step ${asText(sample.step)}`),
    sqlPair(gold, asText(sample.prediction)).prediction,
    verdict,
  );
}
