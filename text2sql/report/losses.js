// The loss curves: training and validation loss by optimizer step, drawn anew when their box changes width.

const SERIES = [
  { name: "training", class: "training" },
  { name: "validation", class: "validation" },
];
const CHART_HEIGHT = 260;
const MARGIN = { top: 12, right: 16, bottom: 40, left: 48 };

function lossSection(losses) {
  const series = SERIES.map((one) => ({
    ...one,
    points: (losses[one.name] ?? []).filter(([step, loss]) => isNumber(step) && isNumber(loss)),
  }));
  if (series.every(({ points }) => points.length === 0)) return null;
  const box = element("div", { class: "chart" });
  const readout = element("p", { class: "note readout" }, summary(series));
  const draw = () => box.replaceChildren(chart(series, Math.max(260, box.clientWidth || 720), readout));
  new ResizeObserver(draw).observe(box);
  const broken = SERIES.flatMap(({ name }) =>
    (losses[name] ?? [])
      .filter(([, loss]) => loss === null)
      .map(([step]) => `The ${name} loss is not a number at step ${count(step)}.`),
  );
  const legend = series
    .filter(({ points }) => points.length)
    .map((one) => element("li", { class: one.class }, `${one.name} loss`));
  const source =
    losses.source &&
    element("p", { class: "note" }, "From the run that made the adapter, ", quoted("code", losses.source), ".");
  return section(
    "losses",
    "Loss",
    source,
    element("ul", { class: "legend" }, legend),
    box,
    readout,
    broken.length ? element("p", null, broken[0]) : null,
    numbers(series),
  );
}

function summary(series) {
  const parts = series
    .filter(({ points }) => points.length)
    .map(({ name, points }) => {
      const [step, loss] = points.at(-1);
      return `${name} ${loss.toFixed(3)} at step ${count(step)}`;
    });
  return `Last: ${parts.join(", ")}.`;
}

function numbers(series) {
  const steps = new Map();
  series.forEach(({ points }, i) =>
    points.forEach(([step, loss]) => steps.set(step, { ...steps.get(step), step, [i]: loss })),
  );
  const rows = [...steps.values()].sort((a, b) => a.step - b.step);
  const written = (loss) => (isNumber(loss) ? loss.toFixed(4) : "");
  const columns = [
    { title: "step", cell: (row) => count(row.step) },
    ...SERIES.map(({ name }, i) => ({ title: name, number: true, cell: (row) => written(row[i]) })),
  ];
  return lazy(`The numbers, ${things(rows.length, "step")}`, () => table("Losses by step", columns, rows));
}

// A closed box whose content is made when it is first opened.
function lazy(title, make) {
  const details = element(
    "details",
    { ontoggle: () => details.open && details.childElementCount === 1 && details.append(make()) },
    element("summary", null, title),
  );
  return details;
}

function ticks(highest, number) {
  const rough = highest / number;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= rough * 0.999);
  const decimals = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  return Array.from({ length: Math.floor(highest / step + 1e-9) + 1 }, (_, i) => ({
    value: i * step,
    label: (i * step).toFixed(decimals),
  }));
}

function chart(series, width, readout) {
  const points = series.flatMap((one) => one.points);
  const last = Math.max(1, ...points.map(([step]) => step));
  const top = Math.max(...points.map(([, loss]) => loss)) * 1.05 || 1;
  const x = (step) => MARGIN.left + (step / last) * (width - MARGIN.left - MARGIN.right);
  const y = (loss) => CHART_HEIGHT - MARGIN.bottom - (loss / top) * (CHART_HEIGHT - MARGIN.top - MARGIN.bottom);
  const cursor = svg("line", {
    class: "cursor",
    y1: MARGIN.top,
    y2: CHART_HEIGHT - MARGIN.bottom,
    visibility: "hidden",
  });
  const drawing = svg(
    "svg",
    {
      viewBox: `0 0 ${width} ${CHART_HEIGHT}`,
      width,
      height: CHART_HEIGHT,
      role: "img",
      "aria-label": `Loss by optimizer step. ${summary(series)}`,
    },
    axes(x, y, last, top, width),
    series.map((one) => curve(one, x, y)),
    cursor,
  );
  drawing.addEventListener("pointermove", (event) => {
    const at =
      ((event.clientX - drawing.getBoundingClientRect().left - MARGIN.left) / (width - MARGIN.left - MARGIN.right)) *
      last;
    const step = nearest(points, at);
    cursor.setAttribute("x1", x(step));
    cursor.setAttribute("x2", x(step));
    cursor.setAttribute("visibility", "visible");
    const here = series.flatMap(({ name, points }) =>
      points.filter((point) => point[0] === step).map(([, loss]) => `${name} ${loss.toFixed(4)}`),
    );
    readout.textContent = `Step ${count(step)}: ${here.join(", ")}.`;
  });
  drawing.addEventListener("pointerleave", () => {
    cursor.setAttribute("visibility", "hidden");
    readout.textContent = summary(series);
  });
  return drawing;
}

function nearest(points, at) {
  return points.reduce((best, [step]) => (Math.abs(step - at) < Math.abs(best - at) ? step : best), points[0][0]);
}

function axes(x, y, last, top, width) {
  const bottom = CHART_HEIGHT - MARGIN.bottom;
  const left = ticks(top, 5).map(({ value, label }) => [
    svg("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: y(value), y2: y(value) }),
    svg("text", { x: MARGIN.left - 8, y: y(value), "text-anchor": "end", "dominant-baseline": "middle" }, label),
  ]);
  const below = ticks(last, Math.max(3, Math.floor(width / 110)))
    .filter(({ value }) => Number.isInteger(value))
    .map(({ value }) => svg("text", { x: x(value), y: bottom + 16, "text-anchor": "middle" }, count(value)));
  const title = svg(
    "text",
    { x: (MARGIN.left + width - MARGIN.right) / 2, y: CHART_HEIGHT - 4, "text-anchor": "middle" },
    "optimizer step",
  );
  const unit = svg(
    "text",
    {
      x: 12,
      y: (MARGIN.top + bottom) / 2,
      "text-anchor": "middle",
      transform: `rotate(-90 12 ${(MARGIN.top + bottom) / 2})`,
    },
    "loss (nats a token)",
  );
  return svg("g", { class: "axes" }, left, below, title, unit);
}

function curve({ class: name, points }, x, y) {
  const path = points.map(([step, loss]) => `${x(step).toFixed(1)},${y(loss).toFixed(1)}`).join(" ");
  const few = points.length <= 40;
  const dots = few ? points.map(([step, loss]) => svg("circle", { cx: x(step), cy: y(loss), r: 3 })) : [];
  return svg("g", { class: `curve ${name}` }, svg("polyline", { points: path }), dots);
}
