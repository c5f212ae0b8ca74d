"""The paper's muP figure: the learning rate found for a narrow language model is the best one for a wide model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from mlbtc.spec import AttentionSpec
from mlbtc.training.reproduce.claims import UNDECIDED, Claim, Verdict
from mlbtc.training.reproduce.grid import Experiment, Options, Setting, Variant, evaluation_interval
from mlbtc.training.reproduce.language import MEASURE
from mlbtc.training.reproduce.language import RANKS as LANGUAGE_RANKS
from mlbtc.training.reproduce.outcome import Outcome
from mlbtc.training.reproduce.statistics import summarise
from mlbtc.training.tasks import language_model

Rates = tuple[tuple[str, float], ...]
"""Names of variants, and the learning rate of each; ascending, each twice the one before."""

HEADS = {"small": 32, "paper": 64}
RANKS = {"small": (16, 8, 4, 4), "paper": LANGUAGE_RANKS}
"""Of a head's features in halving blocks."""

WIDTHS = {"small": (64, 128, 256), "paper": (512, 768, 1024)}
LEAST_RATE = {"small": 1e-3, "paper": 1.25e-4}
RATES = {"small": 5, "paper": 7}
SIZES: dict[str, dict[str, Any]] = {
    # The rate decays, so that final losses of different rates are not compared by the noise that each leaves behind.
    "small": {
        "layers": 2,
        "context": 64,
        "steps": 600,
        "batch": 8,
        "warmup": 60,
        "schedule": "cosine",
        "eval_windows": 128,
    },
    "paper": {"layers": 6, "context": 256, "steps": 10000, "batch": 16, "warmup": 500},
}


@dataclass(frozen=True, slots=True)
class Recipe:
    """A way to train at every rate and width.

    Attributes:
        name: in front of the rate in the names of variants.
        label: for figures.
        mlr: whether attention is multi-level low rank.
        mup: whether rates and scales follow the width.
        line: of figures, as matplotlib writes it.
    """

    name: str
    label: str
    mlr: bool
    mup: bool
    line: str

    def variants(self, rates: Sequence[float]) -> Rates:
        """Return the names of its variants and their rates."""
        return tuple((f"{self.name}-{rate:g}", rate) for rate in rates)

    def about(self, rate: float) -> str:
        """Return what one of its variants is."""
        kind = "MLR" if self.mlr else "standard attention"
        return f"{kind}, rate {rate:g} at {'the least width, by fan-in above' if self.mup else 'every width'}"


RECIPES = (
    Recipe("mup", "standard, muP", False, True, "-o"),
    Recipe("mup-mlr", "MLR, muP", True, True, "-.s"),
    Recipe("plain", "standard, one rate", False, False, ":"),
)


def experiment(scale: str, steps: int | None) -> Experiment:
    """Return the grid: learning rates and widths, with muP for standard and MLR attention, and one rate for all."""
    rates = [LEAST_RATE[scale] * 2**power for power in range(RATES[scale])]
    widths = tuple(Setting(f"width{width}", (("width", width),)) for width in WIDTHS[scale])
    named = {recipe: recipe.variants(rates) for recipe in RECIPES}
    make = partial(_options_of, base_width=WIDTHS[scale][0], head=HEADS[scale], ranks=RANKS[scale])
    places = tuple(setting.name for setting in widths)
    claims = {
        "mup": "Under muP the best learning rate of standard attention is the same at every width.",
        "mup-mlr": "Under muP the best learning rate of MLR attention is the same at every width.",
        "plain": "So it is without muP, with one rate for all parameters.",
    }
    return Experiment(
        name="mup",
        scale=scale,
        about="Does the best learning rate of a narrow model carry over to wide ones?",
        task=language_model,
        measure=MEASURE,
        variants=tuple(
            Variant(name, recipe.about(rate), partial(make, recipe=recipe, rate=rate), like=pairs[0][0])
            for recipe, pairs in named.items()
            for name, rate in pairs
        ),
        settings=widths,
        seeds=2,
        options=_options(scale, steps),
        probe=(),
        claims=tuple(Claim(claims[recipe.name], Transfer(pairs, places)) for recipe, pairs in named.items()),
        draw=partial(draw_rates, rates=named),
    )


def _options(scale: str, steps: int | None) -> Options:
    sizes = dict(SIZES[scale])
    planned = steps or sizes["steps"]
    every = evaluation_interval(planned, 5)
    more = {
        "steps": planned,
        "warmup": min(sizes["warmup"], planned // 2),
        "eval_every": every,
        "checkpoint_every": planned,
    }
    decay = {"decay_steps": planned} if "schedule" in sizes else {}
    return tuple((sizes | more | decay).items())


def _options_of(
    given: dict[str, Any], base_width: int, head: int, ranks: tuple[int, ...], recipe: Recipe, rate: float
) -> dict[str, Any]:
    width = given["width"]
    sizes = {"width": width, "heads": width // head, "context": given["context"], "qk_norm": True}
    scale = "mup" if recipe.mup else "standard"
    if recipe.mlr:
        spec = AttentionSpec.mlr(**sizes, ranks=ranks, name="mlr", scale=scale)
    else:
        spec = AttentionSpec.standard(**sizes, name="standard", scale=scale)
    attention = {"attention": (spec,) * given["layers"], "width": None, "context": None, "lr": rate}
    return attention | ({"mup": True, "base_width": base_width} if recipe.mup else {})


@dataclass(frozen=True, slots=True)
class Transfer:
    """Judges whether the best learning rates of several widths are one.

    It holds where for every seed they are at most one rate of the grid apart, and does not where for every seed they
    are further apart; a best rate at the edge of the grid may lie beyond it, so it decides nothing.

    Attributes:
        rates: variants and their learning rates.
        widths: names of settings, ascending.
    """

    rates: Rates
    widths: tuple[str, ...]

    def __call__(self, outcomes: Sequence[Outcome]) -> Verdict:
        """Return the verdict of all outcomes of an experiment."""
        finals = {(one.setting, one.variant, one.seed): one.final for one in outcomes}
        seeds = sorted({one.seed for one in outcomes})
        names = [name for name, _ in self.rates]
        if not all((width, name, seed) in finals for width in self.widths for name in names for seed in seeds):
            return Verdict(UNDECIDED, "not every rate was run at every width")
        best = [
            [min(range(len(names)), key=lambda i: finals[width, names[i], seed]) for width in self.widths]
            for seed in seeds
        ]
        return self._judge(best)

    def _judge(self, best: list[list[int]]) -> Verdict:
        """Judge by the place of the best rate in the grid, for each seed and width."""
        edges = {0, len(self.rates) - 1}
        apart = [max(places) - min(places) for places in best]
        shown = "; ".join(", ".join(f"{self.rates[place][1]:g}" for place in places) for places in best)
        reason = f"best rates at {', '.join(self.widths)}, seed by seed: {shown}"
        if len(best) < 2:
            return Verdict(UNDECIDED, f"{reason}; one seed")
        if any(place in edges for places in best for place in places):
            return Verdict(UNDECIDED, f"{reason}; one is at the edge of the grid")
        if all(steps <= 1 for steps in apart):
            return Verdict("holds", reason)
        return Verdict("does not hold" if all(steps > 1 for steps in apart) else UNDECIDED, reason)


def draw_rates(axes: Any, experiment: Experiment, outcomes: Sequence[Outcome], rates: Mapping[Recipe, Rates]) -> None:
    """Draw the final loss against the learning rate: a colour per width, a line style per recipe."""
    for number, setting in enumerate(experiment.settings):
        for recipe, pairs in rates.items():
            found = {
                rate: [one.final for one in outcomes if (one.setting, one.variant) == (setting.name, name)]
                for name, rate in pairs
            }
            means = {rate: summarise(values).mean for rate, values in found.items() if values}
            label = f"{setting.name}, {recipe.label}"
            axes.plot(list(means), list(means.values()), recipe.line, color=f"C{number}", markersize=4, label=label)
    axes.set(xlabel="learning rate at the least width", ylabel=experiment.measure.quantity, xscale="log")
    # Nine curves leave no room for a legend among them.
    axes.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0))
