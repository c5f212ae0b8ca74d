"""Experiment 3: forecasting ETTh1, and the oil temperature in it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from mlbtc.spec import AttentionSpec
from mlbtc.training.compute import step_macs
from mlbtc.training.reproduce.claims import Claim, Comparison, final_ratio
from mlbtc.training.reproduce.grid import Experiment, Measure, Options, Setting, Variant, evaluation_interval
from mlbtc.training.reproduce.outcome import Outcome
from mlbtc.training.reproduce.statistics import summarise
from mlbtc.training.tasks import forecasting
from mlbtc.training.tasks.forecast_config import DLINEAR

HEADS, LAYERS = 8, 2
HORIZONS = (96, 192, 336)
EVALUATIONS = 12
# Of a head of 64 features, as in the paper.
RANKS = {"mlr-2-levels": (48, 16), "mlr-4-levels": (40, 16, 4, 4)}
SIZES: dict[str, dict[str, Any]] = {
    "small": {"width": 128, "steps": 300, "lr": 1e-3, "warmup": 20, "batch": 32},
    "paper": {"width": 512, "steps": 1000, "lr": 2e-4, "warmup": 20, "batch": 32},
}


def experiment(scale: str, steps: int | None) -> Experiment:
    """Return the grid: standard and MLR attention in the paper's encoder, and DLinear, at three horizons."""
    return Experiment(
        name="forecast",
        scale=scale,
        about="Does MLR attention forecast the oil temperature better than standard attention, far ahead above all?",
        task=forecasting,
        measure=Measure(
            quantity="oil temperature MAE (scaled)",
            curve="validation MSE (scaled)",
            evaluates="validate_every",
            value=lambda row: row.get("validation_mse"),
            final=lambda results: float(results["test"]["model"]["ot_mae"]),
            macs=_macs,
            extra=_extra,
        ),
        variants=_variants(steps),
        settings=tuple(Setting(f"horizon{rows}", (("horizon", rows), ("context", rows))) for rows in HORIZONS),
        seeds=5,
        options=_options(scale, steps),
        probe=(("patience", 0),),
        claims=_claims(),
        draw=draw_gain,
    )


def _options(scale: str, steps: int | None) -> Options:
    sizes = dict(SIZES[scale])
    planned = steps or sizes["steps"]
    every = evaluation_interval(planned, EVALUATIONS)
    more = {"steps": planned, "warmup": min(sizes["warmup"], planned), "validate_every": every}
    return tuple((sizes | more | {"checkpoint_every": every, "protocol": "positions"}).items())


def _macs(config: Any, row: dict[str, Any]) -> float:
    return step_macs(config.specs, sequences=config.batch, tokens=config.context)


def _extra(results: dict[str, Any]) -> dict[str, float]:
    found = {key: value for key, value in results["test"]["model"].items() if key != "ot_mae"}
    rivals = {f"{name}: OT MAE": values["ot_mae"] for name, values in results["test"].items() if name != "model"}
    return found | rivals


def _attention(given: dict[str, Any], kind: str) -> dict[str, Any]:
    width, context = given["width"], given["context"]
    sizes = {"width": width, "heads": HEADS, "context": context, "causal": False, "name": kind}
    if kind == "standard":
        spec = AttentionSpec.standard(**sizes)
    else:
        head = width // HEADS
        spec = AttentionSpec.mlr(**sizes, ranks=tuple(rank * head // 64 for rank in RANKS[kind]))
    return {"attention": (spec,) * LAYERS, "width": None}


def _dlinear(given: dict[str, Any], steps: int | None) -> dict[str, Any]:
    # A recipe of its own; what is None is left to it.
    planned = steps or DLINEAR["steps"]
    every = evaluation_interval(planned, 10)
    of_transformers = dict.fromkeys(("width", "protocol", "lr", "warmup"))
    return of_transformers | {"model": "dlinear", "steps": planned, "validate_every": every, "checkpoint_every": every}


def _variants(steps: int | None) -> tuple[Variant, ...]:
    about = {
        "standard": "the paper's encoder",
        "mlr-2-levels": "3/4 of the features of a head for all pairs, 1/4 in halves (48|16 of 64)",
        "mlr-4-levels": "halving blocks with 40|16|4|4 of 64",
    }
    of_attention = (Variant(name, text, partial(_attention, kind=name)) for name, text in about.items())
    linear = Variant("dlinear", "linear maps of trend and remainder; no blocks, so 0 MACs of them", _linear(steps))
    return (*of_attention, linear)


def _linear(steps: int | None) -> Any:
    return partial(_dlinear, steps=steps)


def _claims() -> tuple[Claim, ...]:
    def claim(text: str, ours: str, theirs: str, horizon: int) -> Claim:
        what = f"oil temperature MAE, {ours} / {theirs}"
        return Claim(text, Comparison(ours, theirs, final_ratio, what, setting=f"horizon{horizon}"))

    return (
        claim("Two levels improve on standard attention at horizon 96.", "mlr-2-levels", "standard", 96),
        claim("Two levels improve on standard attention at horizon 336.", "mlr-2-levels", "standard", 336),
        claim("Four levels fall behind standard attention at horizon 96.", "standard", "mlr-4-levels", 96),
        claim("Four levels improve on standard attention at horizon 336.", "mlr-4-levels", "standard", 336),
    )


def gains(outcomes: Sequence[Outcome], variant: str, setting: str) -> list[float]:
    """Return by how many percent a variant improves on standard attention, for each seed that both have."""
    runs = {(one.variant, one.seed): one.final for one in outcomes if one.setting == setting}
    seeds = sorted(seed for name, seed in runs if name == variant and ("standard", seed) in runs)
    return [100 * (1 - runs[variant, seed] / runs["standard", seed]) for seed in seeds]


def draw_gain(axes: Any, experiment: Experiment, outcomes: Sequence[Outcome]) -> None:
    """Draw the improvement on standard attention by horizon: the mean over seeds and their deviation."""
    for number, variant in enumerate(experiment.variants):
        found = {
            dict(setting.options)["horizon"]: gains(outcomes, variant.name, setting.name)
            for setting in experiment.settings
        }
        means = {horizon: summarise(values) for horizon, values in found.items() if values}
        if not means or variant.name == "standard":
            continue
        spread = [0.0 if mean.count < 2 else mean.spread for mean in means.values()]
        values = [mean.mean for mean in means.values()]
        axes.errorbar(list(means), values, yerr=spread, fmt="-o", capsize=3, color=f"C{number}", label=variant.name)
    axes.axhline(0, color="0.6", linewidth=0.8)
    axes.set(xlabel="horizon (rows)", ylabel="improvement of OT MAE on standard (%)")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)
