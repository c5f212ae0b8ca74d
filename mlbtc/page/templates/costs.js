"use strict";
// Whole numbers only, as BigInt: what the forms of the page are written with.

class NotWhole extends Error {}

function div(above, below) {
  if (below === 0n || above % below !== 0n) throw new NotWhole(`${above} / ${below}`);
  return above / below;
}

function ceil(above, below) {
  const quotient = above / below;
  return quotient * below < above ? quotient + 1n : quotient;
}

// The root by Newton's method from above: the first value that no longer falls is the floor of it.
function root(degree, value) {
  if (value < 0n) throw new NotWhole(`root of ${value}`);
  if (value < 2n) return value;
  let found = 1n << (BigInt(value.toString(2).length) / degree + 1n);
  for (;;) {
    const power = found ** (degree - 1n);
    const next = ((degree - 1n) * found + value / power) / degree;
    if (next >= found) break;
    found = next;
  }
  if (found ** degree !== value) throw new NotWhole(`root of ${value}`);
  return found;
}

const min = (...values) => values.reduce((a, b) => (b < a ? b : a));
const max = (...values) => values.reduce((a, b) => (b > a ? b : a));

const LARGEST = 1n << 24n;

function attempt(compute) {
  try {
    return compute();
  } catch (error) {
    if (error instanceof NotWhole) return null;
    throw error;
  }
}

// Which of a model's conditions fail at the settings, as texts.
function problemsOf(model, values) {
  const number = (form) => attempt(() => model.forms[form][1](values));
  const fits = {
    divides: ([size, divisor]) => size !== null && divisor !== null && divisor !== 0n && size % divisor === 0n && size / divisor >= 1n,
    atLeast: ([size, least]) => size === null || least === null || size >= least,
    size: ([size]) => size !== null && size >= 1n && size <= LARGEST,
  };
  const failed = model.checks.filter((check) => !fits[check.kind](check.forms.map(number)));
  // A size that is not whole follows from a condition that fails, where one does.
  const causes = failed.filter((check) => check.kind !== "size");
  return [...new Set((causes.length ? causes : failed).map((check) => check.text))];
}

function rankOf(model, values, number) {
  const rank = model.rank;
  const symbolic = { value: number(rank.form), certainty: rank.certainty, reason: rank.reason };
  if (rank.table === null) return symbolic;
  const known = rank.table[rank.names.map((name) => values[name]).join(",")];
  if (known) return { value: BigInt(known[0]), certainty: known[1], reason: known[2] };
  return { ...symbolic, reason: `${rank.reason}; between the positions of the sliders only this bound is known` };
}

// All numbers of a model. `settings` has a BigInt for each slider.
function evaluate(model, settings) {
  const values = {};
  for (const [name, slider] of Object.entries(model.names)) values[name] = settings[slider];
  const problems = problemsOf(model, values);
  if (problems.length) return { problems };
  const cache = new Map();
  const number = (form) => {
    if (form === null) return null;
    if (!cache.has(form)) cache.set(form, model.forms[form][1](values));
    return cache.get(form);
  };
  // The order of the factors with the fewest MACs; the first one where they tie.
  const plan = model.plans.reduce((best, one) => (number(one.macs) < number(best.macs) ? one : best));
  const rank = rankOf(model, values, number);
  const measures = {};
  model.measures.forEach((measure, place) => {
    const [form, dense] = plan.measures[place];
    measures[measure.key] = { value: measure.key === "rank" ? rank.value : number(form), dense: number(dense), form, denseForm: dense };
  });
  const all = (row) => Object.fromEntries(Object.entries(row).map(([key, form]) => [key, number(form)]));
  return { problems, plan, rank, measures, levels: plan.levels.map(all), steps: plan.steps.map((step) => all(step.forms)), sizes: model.sizes.map(number) };
}
