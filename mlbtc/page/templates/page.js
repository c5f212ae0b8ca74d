// The page: sliders in, numbers and curves out. Computing is in costs.js.

const $ = (id) => document.getElementById(id);
const settings = Object.fromEntries(SLIDERS.map((slider) => [slider.key, BigInt(slider.start)]));
const grouped = (value) => value.toString().replace(/\B(?=(\d{3})+$)/g, ",");

// As Python writes "%.4g".
function ratio(above, below) {
  if (above === null || below === null || above === 0n || below === 0n) return "";
  const [digits, power] = (Number(above) / Number(below)).toExponential(3).split("e");
  const exponent = Number(power);
  const plain = (text) => (text.includes(".") ? text.replace(/\.?0+$/, "") : text);
  if (exponent < -4 || exponent >= 4) {
    return `${plain(digits)}e${exponent < 0 ? "-" : "+"}${String(Math.abs(exponent)).padStart(2, "0")}`;
  }
  return plain((Number(above) / Number(below)).toFixed(3 - exponent));
}

function put(id, text) {
  const element = $(id);
  if (element !== null && element.textContent !== text) element.textContent = text;
}

function putNumber(id, value, form, model) {
  put(id, value === null ? "" : grouped(value));
  if (form !== null && form !== undefined) put(`${id}-form`, model.forms[form][0]);
}

function showSection(model, number) {
  const found = evaluate(model, settings);
  const id = `s${number}`;
  const problems = $(`${id}-problems`);
  problems.hidden = !found.problems.length;
  problems.replaceChildren(...found.problems.map((text) => Object.assign(document.createElement("li"), { textContent: text })));
  if (found.problems.length) {
    for (const element of document.querySelectorAll(`#${id} .value, [id^="${id}-m"][id$="-ratio"]`)) element.textContent = "–";
    for (const element of document.querySelectorAll(`[id^="c${number}-"]`)) element.textContent = "–";
    put(`${id}-reason`, "No numbers: the sizes do not fit.");
    return found;
  }
  model.measures.forEach((measure, place) => {
    const { value, dense, form } = found.measures[measure.key];
    putNumber(`${id}-m${place}`, value, form, model);
    putNumber(`${id}-m${place}-dense`, dense, null, model);
    put(`${id}-m${place}-ratio`, ratio(dense, value));
    put(`c${number}-${measure.key}`, grouped(value));
    put(`c${number}-${measure.key}-ratio`, ratio(dense, value));
  });
  put(`${id}-certainty`, `(${found.rank.certainty})`);
  put(`c${number}-certainty`, found.rank.certainty);
  put(`${id}-reason`, `the rank is ${found.rank.certainty === "exact" ? "exact" : "an upper bound"}: ${found.rank.reason}`);
  found.levels.forEach((level, place) => {
    for (const [key, value] of Object.entries(level)) putNumber(`${id}-l${place}-${key}`, value, found.plan.levels[place][key], model);
  });
  found.steps.forEach((step, place) => {
    put(`${id}-t${place}-text`, found.plan.steps[place].text);
    for (const [key, value] of Object.entries(step)) putNumber(`${id}-t${place}-${key}`, value, found.plan.steps[place].forms[key], model);
  });
  found.sizes.forEach((value, place) => putNumber(`${id}-i${place}`, value, null, model));
  return found;
}

// Curves: both axes logarithmic, one line a spec, dashed what it is compared with.

const BOX = { left: 70, right: 620, top: 14, bottom: 290 };
const DASHES = ["", "8 3", "2 3", "10 3 2 3", "5 5", "14 4"];

function seriesOf(key, over) {
  const slider = SLIDERS[over];
  const points = (model, pick) =>
    slider.positions.map((x) => {
      const found = evaluate(model, { ...settings, [slider.key]: BigInt(x) });
      return { x, y: found.problems.length || !found.measures[key] ? null : pick(found.measures[key]) };
    });
  const lines = MODELS.map((model, number) => ({ label: model.name, colour: `var(--c${number % 6})`, dash: DASHES[number % 6], points: points(model, (m) => m.value) }));
  const dense = MODELS.filter((model) => model.measures.some((m) => m.key === key && m.dense)).map((model) => ({
    label: model.against, name: model.name, points: points(model, (m) => m.dense),
  }));
  // Specs of one shape are compared with the same matrix.
  const text = (line) => line.points.map((point) => point.y).join();
  const distinct = dense.filter((line, place) => dense.findIndex((other) => text(other) === text(line)) === place);
  for (const line of distinct) {
    const label = distinct.length > 1 ? `${line.label}, for ${line.name}` : line.label;
    lines.push({ ...line, label, colour: "var(--faint)", dash: "3 4" });
  }
  return lines;
}

const svg = (name, attributes, text) => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
};

function short(value) {
  if (value < 1e4) return String(Number(value.toPrecision(4)));
  const names = [[1e15, "P"], [1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]];
  const [unit, name] = names.find(([unit]) => value >= unit) || [1, ""];
  return `${Number((value / unit).toPrecision(3))}${name}`;
}

function scale(values, from, to) {
  const logs = values.map(Math.log10);
  const low = Math.min(...logs);
  const high = Math.max(...logs);
  const span = high - low || 1;
  const place = (value) => from + ((Math.log10(value) - low) / span) * (to - from);
  const powers = (base) => {
    const unit = Math.log10(base);
    const found = [];
    for (let power = Math.ceil(low / unit - 1e-9); power * unit <= high + 1e-9; power += 1) found.push(base ** power);
    return found;
  };
  const wide = powers(10);
  const all = wide.length > 2 ? wide : powers(2);
  const step = Math.ceil(all.length / 6);
  const ticks = all.length ? all.filter((_, number) => number % step === 0) : [10 ** low];
  return { place, ticks };
}

function drawCurve() {
  const over = Number($("curve-over").value);
  const slider = SLIDERS[over];
  const key = $("curve-measure").value;
  const label = MODELS[0].measures.find((measure) => measure.key === key).label;
  const lines = seriesOf(key, over);
  const known = lines.flatMap((line) => line.points).filter((point) => point.y !== null && point.y > 0n);
  const chart = $("chart");
  const title = `${label} over ${slider.name}`;
  const parts = [Object.assign(svg("title", {}, title), { id: "chart-title" })];
  if (known.length) {
    const x = scale(known.map((point) => point.x), BOX.left, BOX.right);
    const y = scale(known.map((point) => Number(point.y)), BOX.bottom, BOX.top);
    for (const tick of y.ticks) {
      parts.push(svg("line", { class: "axis", x1: BOX.left, x2: BOX.right, y1: y.place(tick), y2: y.place(tick) }));
      parts.push(svg("text", { x: BOX.left - 6, y: y.place(tick) + 4, "text-anchor": "end" }, short(tick)));
    }
    for (const tick of x.ticks) {
      parts.push(svg("line", { class: "axis", x1: x.place(tick), x2: x.place(tick), y1: BOX.top, y2: BOX.bottom }));
      parts.push(svg("text", { x: x.place(tick), y: BOX.bottom + 20, "text-anchor": "middle" }, short(tick)));
    }
    parts.push(svg("text", { x: (BOX.left + BOX.right) / 2, y: BOX.bottom + 42, "text-anchor": "middle" }, slider.name));
    const now = Number(settings[slider.key]);
    if (now >= slider.positions[0] && now <= slider.positions[slider.positions.length - 1]) {
      parts.push(svg("line", { class: "now", x1: x.place(now), x2: x.place(now), y1: BOX.top, y2: BOX.bottom }));
    }
    for (const line of lines) {
      const drawn = line.points.filter((point) => point.y !== null && point.y > 0n);
      const path = drawn.map((point, number) => `${number ? "L" : "M"}${x.place(point.x).toFixed(1)} ${y.place(Number(point.y)).toFixed(1)}`);
      parts.push(svg("path", { d: path.join(" "), style: `stroke: ${line.colour}`, "stroke-dasharray": line.dash }));
      if (drawn.length === 1) parts.push(svg("circle", { cx: x.place(drawn[0].x), cy: y.place(Number(drawn[0].y)), r: 4, style: `fill: ${line.colour}` }));
    }
  } else {
    parts.push(svg("text", { x: 320, y: 150, "text-anchor": "middle" }, "no position fits"));
  }
  chart.replaceChildren(...parts);
  $("legend").replaceChildren(...lines.map((line) => {
    const item = document.createElement("li");
    const sample = svg("svg", { width: 34, height: 10, "aria-hidden": "true" });
    sample.append(svg("line", { x1: 0, x2: 34, y1: 5, y2: 5, "stroke-width": 2.5, "stroke-dasharray": line.dash, style: `stroke: ${line.colour}` }));
    item.append(sample, line.label);
    return item;
  }));
  drawCurveTable(title, slider.name, lines);
}

function drawCurveTable(title, name, lines) {
  const cell = (kind, text, scope) => Object.assign(document.createElement(kind), { textContent: text, ...(scope ? { scope } : {}) });
  const row = (cells) => {
    const element = document.createElement("tr");
    element.append(...cells);
    return element;
  };
  $("curve-caption").textContent = title;
  const table = $("curve-table");
  table.tHead.replaceChildren(row([name, ...lines.map((line) => line.label)].map((text) => cell("th", text, "col"))));
  table.tBodies[0].replaceChildren(...lines[0].points.map((point, place) =>
    row([cell("th", grouped(point.x), "row"), ...lines.map((line) => cell("td", line.points[place].y === null ? "–" : grouped(line.points[place].y)))])));
}

function show(moved) {
  const found = MODELS.map(showSection);
  drawCurve();
  if (moved === undefined) return;
  const macs = found.map((one) => (one.problems.length ? "the sizes do not fit" : `${grouped(one.measures.macs.value)} MACs`));
  put("said", `${moved.name} = ${grouped(settings[moved.key])}: ${macs.map((text, n) => (MODELS.length > 1 ? `${MODELS[n].name} ${text}` : text)).join("; ")}`);
}

function nearest(positions, value) {
  return positions.reduce((best, one, place) => (Math.abs(one - value) < Math.abs(positions[best] - value) ? place : best), 0);
}

function bind(slider, place) {
  const range = $(`slider-${place}`);
  const number = $(`number-${place}`);
  const set = (value) => {
    settings[slider.key] = BigInt(value);
    range.setAttribute("aria-valuetext", String(value));
    show(slider);
  };
  range.addEventListener("input", () => {
    const value = slider.positions[Number(range.value)];
    number.value = String(value);
    number.setCustomValidity("");
    set(value);
  });
  number.addEventListener("input", () => {
    const value = Number(number.value);
    const fits = Number.isInteger(value) && value >= 1 && value <= Number(LARGEST);
    number.setCustomValidity(fits ? "" : "a whole number from 1 to 16777216");
    if (!fits) {
      number.reportValidity();
      return;
    }
    range.value = String(nearest(slider.positions, value));
    set(value);
  });
}

// What is scrolled to, by a link or by the focus, stays clear of the sliders where these stick to the top.
function keepClear() {
  const panel = $("sizes");
  const sticks = getComputedStyle(panel).position === "sticky";
  document.documentElement.style.scrollPaddingTop = sticks ? `${panel.offsetHeight + 8}px` : "";
}

SLIDERS.forEach(bind);
window.addEventListener("resize", keepClear);
$("sizes").addEventListener("submit", (event) => event.preventDefault());
$("sizes").addEventListener("reset", () => {
  for (const slider of SLIDERS) settings[slider.key] = BigInt(slider.start);
  SLIDERS.forEach((slider, place) => {
    $(`slider-${place}`).setAttribute("aria-valuetext", String(slider.start));
    $(`number-${place}`).setCustomValidity("");
  });
  // The browser puts the values back after this event.
  setTimeout(() => show(), 0);
});
$("curve-measure").addEventListener("change", drawCurve);
$("curve-over").addEventListener("change", drawCurve);
$("curves").hidden = false;
show();
keepClear();
