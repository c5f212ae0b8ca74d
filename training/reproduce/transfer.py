"""The paper's muP figure: the learning rate found for a narrow language model is the best one for a wide model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from mlbtc.spec import AttentionSpec
from mlbtc.training.reproduce.claims import UNDECIDED, Claim, Verdict
from mlbtc.training.reproduce.grid import Experiment, Options, Setting, Variant, evaluation_interval
from mlbtc.training.reproduce.language import MEASURE
from mlbtc.training.reproduce.outcome import Outcome
from mlbtc.training.reproduce.statistics import summarise
from mlbtc.training.tasks import language_model

Rates = tuple[tuple[str, float], ...]
"""Names of variants, and the learning rate of each; ascending, each twice the one before."""

HEADS = {"small": 32, "paper": 64}
WIDTHS = {"small": (64, 128, 256), "paper": (512, 768, 1024)}
LEAST_RATE = {"small": 5e-4, "paper": 1.25e-4}
RATES = 7
SIZES: dict[str, dict[str, Any]] = {
    "small": {"layers": 2, "context": 64, "steps": 400, "batch": 8, "warmup": 40, "eval_windows": 128},
    "paper": {"layers": 6, "context": 256, "steps": 10000, "batch": 16, "warmup": 500},
}


def experiment(scale: str, steps: int | None) -> Experiment:
    """Return the grid: learning rates and widths, with muP and with one rate for all parameters."""
    rates = [LEAST_RATE[scale] * 2**power for power in range(RATES)]
    widths = tuple(Setting(f"width{width}", (("width", width),)) for width in WIDTHS[scale])
    named = {mup: tuple((f"{'mup' if mup else 'plain'}-{rate:g}", rate) for rate in rates) for mup in (True, False)}
    make = partial(_options_of, base_width=WIDTHS[scale][0], head=HEADS[scale])
    return Experiment(
        name="mup",
        scale=scale,
        about="Does the best learning rate of a narrow model carry over to wide ones?",
        task=language_model,
        measure=MEASURE,
        variants=tuple(
            Variant(name, _about(mup, rate), partial(make, mup=mup, rate=rate), like=named[mup][0][0])
            for mup, pairs in named.items()
            for name, rate in pairs
        ),
        settings=widths,
        seeds=2,
        options=_options(scale, steps),
        probe=(),
        claims=(
            Claim(
                "Under muP the best learning rate is the same at every width.",
                Transfer(named[True], tuple(setting.name for setting in widths)),
            ),
            Claim(
                "So it is without muP, with one rate for all parameters.",
                Transfer(named[False], tuple(setting.name for setting in widths)),
            ),
        ),
        draw=partial(draw_rates, rates=named),
    )


def _options(scale: str, steps: int | None) -> Options:
    sizes = dict(SIZES[scale])
    planned = steps or sizes["steps"]
    every = evaluation_interval(planned, 5)
    more = {"steps": planned, "warmup": min(sizes["warmup"], planned), "eval_every": every, "checkpoint_every": planned}
    return tuple((sizes | more).items())


def _options_of(given: dict[str, Any], base_width: int, head: int, mup: bool, rate: float) -> dict[str, Any]:
    width, scale = given["width"], "mup" if mup else "standard"
    spec = AttentionSpec.standard(width, width // head, given["context"], qk_norm=True, name="standard", scale=scale)
    attention = {"attention": (spec,) * given["layers"], "width": None, "context": None, "lr": rate}
    return attention | ({"mup": True, "base_width": base_width} if mup else {})


def _about(mup: bool, rate: float) -> str:
    return f"rate {rate:g} at the least width, by fan-in above" if mup else f"rate {rate:g} at every width"


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


def draw_rates(axes: Any, experiment: Experiment, outcomes: Sequence[Outcome], rates: dict[bool, Rates]) -> None:
    """Draw the final loss against the learning rate: a colour per width, solid with muP and dashed without."""
    for number, setting in enumerate(experiment.settings):
        for mup, pairs in rates.items():
            found = {
                rate: [one.final for one in outcomes if (one.setting, one.variant) == (setting.name, name)]
                for name, rate in pairs
            }
            means = {rate: summarise(values).mean for rate, values in found.items() if values}
            label = f"{setting.name}, {'muP' if mup else 'one rate'}"
            axes.plot(list(means), list(means.values()), "-o" if mup else "--", color=f"C{number}", label=label)
    axes.set(xlabel="learning rate at the least width", ylabel=experiment.measure.quantity, xscale="log")
    axes.legend(frameon=False)
