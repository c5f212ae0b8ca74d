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

LAYERS = 2
HORIZONS = (96, 192, 336)
EVALUATIONS = 12
RANKS = {"mlr-2-levels": (48, 16), "mlr-4-levels": (40, 16, 4, 4)}
"""Of a head of 64 features, as in the paper."""

OWN_TOKEN = "own-token"
"""Not of the paper: where it does as well, no attention can be told from another."""

HEAD = {"small": 16, "paper": 64}
PROTOCOLS = ("positions", "channels")
"""The paper's encoder, whose look-back is the horizon; and the strong one, whose look-back is that of DLinear."""

LOOK_BACK = 96
WIDTHS = {"small": {"positions": 64, "channels": 32}, "paper": {"positions": 512, "channels": 128}}
SIZES: dict[str, dict[str, Any]] = {
    "small": {"steps": 300, "lr": 1e-3, "warmup": 20, "batch": 16},
    "paper": {"steps": 1000, "lr": 2e-4, "warmup": 20, "batch": 32},
}
WITHIN = 0.05
DAY = "repeat the last day"


def experiment(scale: str, steps: int | None) -> Experiment:
    """Return the grid: standard and MLR attention, none, and DLinear, at three horizons in two protocols."""
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
        variants=_variants(HEAD[scale], steps),
        settings=tuple(
            _setting(protocol, rows, WIDTHS[scale][protocol]) for protocol in PROTOCOLS for rows in HORIZONS
        ),
        seeds=5,
        options=_options(scale, steps),
        probe=(("patience", 0),),
        claims=_claims(),
        draw=draw_gain,
    )


def _setting(protocol: str, horizon: int, width: int) -> Setting:
    context = horizon if protocol == "positions" else LOOK_BACK
    options = {"protocol": protocol, "horizon": horizon, "context": context, "width": width}
    return Setting(_name(protocol, horizon), tuple(options.items()))


def _name(protocol: str, horizon: int) -> str:
    return f"{protocol}-horizon{horizon}"


def _options(scale: str, steps: int | None) -> Options:
    sizes = dict(SIZES[scale])
    planned = steps or sizes["steps"]
    every = evaluation_interval(planned, EVALUATIONS)
    more = {"steps": planned, "warmup": min(sizes["warmup"], planned), "validate_every": every}
    return tuple((sizes | more | {"checkpoint_every": every}).items())


def _macs(config: Any, row: dict[str, Any]) -> float:
    return step_macs(config.specs, sequences=config.batch, tokens=config.context)


def _extra(results: dict[str, Any]) -> dict[str, float]:
    found = {key: value for key, value in results["test"]["model"].items() if key != "ot_mae"}
    rivals = {
        f"{name}: {text}": values[key]
        for name, values in results["test"].items()
        if name != "model"
        for key, text in (("mse", "MSE"), ("ot_mae", "OT MAE"))
    }
    return found | rivals


def _attention(given: dict[str, Any], kind: str, head: int) -> dict[str, Any]:
    width, context = given["width"], given["context"]
    sizes = {"width": width, "heads": width // head, "context": context, "causal": False, "name": kind}
    if kind == OWN_TOKEN:
        spec = AttentionSpec.sliding_window(**{key: size for key, size in sizes.items() if key != "causal"}, window=1)
    elif kind == "standard":
        spec = AttentionSpec.standard(**sizes)
    else:
        spec = AttentionSpec.mlr(**sizes, ranks=tuple(rank * head // 64 for rank in RANKS[kind]))
    return {"attention": (spec,) * LAYERS, "width": None}


def _dlinear(given: dict[str, Any], steps: int | None) -> dict[str, Any]:
    # A recipe of its own; what is None is left to it.
    planned = steps or DLINEAR["steps"]
    every = evaluation_interval(planned, 10)
    of_transformers = dict.fromkeys(("width", "protocol", "lr", "warmup", "batch"))
    return of_transformers | {"model": "dlinear", "steps": planned, "validate_every": every, "checkpoint_every": every}


def _variants(head: int, steps: int | None) -> tuple[Variant, ...]:
    about = {
        "standard": "heads that see all of the look-back with all features",
        "mlr-2-levels": "3/4 of the features of a head for all pairs, 1/4 in halves (48|16 of 64)",
        "mlr-4-levels": "halving blocks with 40|16|4|4 of 64",
        OWN_TOKEN: "a token sees only itself: what is left without attention",
    }
    of_attention = (Variant(name, text, partial(_attention, kind=name, head=head)) for name, text in about.items())
    rival = "linear maps of trend and remainder; no blocks, so 0 MACs of them"
    return (*of_attention, Variant("dlinear", rival, partial(_dlinear, steps=steps)))


def _claims() -> tuple[Claim, ...]:
    return (*_claims_of_the_paper("positions", ""), *_claims_of_strength(), *_claims_of_the_paper("channels", STRONG))


STRONG = "With channel-independent tokens, normalised windows and a linear skip: "


def _claims_of_the_paper(protocol: str, where: str) -> tuple[Claim, ...]:
    def claim(text: str, ours: str, theirs: str, horizon: int) -> Claim:
        what = f"oil temperature MAE, {ours} / {theirs}"
        return Claim(where + text, Comparison(ours, theirs, final_ratio, what, setting=_name(protocol, horizon)))

    return (
        claim("Two levels improve on standard attention at horizon 96.", "mlr-2-levels", "standard", 96),
        claim("Two levels improve on standard attention at horizon 336.", "mlr-2-levels", "standard", 336),
        claim("Four levels fall behind standard attention at horizon 96.", "standard", "mlr-4-levels", 96),
        claim("Four levels improve on standard attention at horizon 336.", "mlr-4-levels", "standard", 336),
        *(
            claim(f"Without attention the error is greater at horizon {rows}.", "standard", OWN_TOKEN, rows)
            for rows in (96, 336)
        ),
    )


def _claims_of_strength() -> tuple[Claim, ...]:
    def daily(horizon: int) -> Claim:
        what = f"MSE, standard / {DAY}"
        judge = Comparison("standard", "standard", _over_daily, what, setting=_name("channels", horizon))
        return Claim(f"{STRONG}Standard attention has less error than the daily repeat at horizon {horizon}.", judge)

    what = f"(MSE of standard - {WITHIN}) / MSE of DLinear"
    near = Comparison("standard", "dlinear", _nearly, what, setting=_name("channels", LOOK_BACK))
    return (
        *(daily(horizon) for horizon in HORIZONS),
        Claim(f"{STRONG}Standard attention comes within {WITHIN} of DLinear's MSE at horizon 96.", near),
    )


def _over_daily(ours: Outcome, _: Outcome) -> float:
    return ours.extra["mse"] / ours.extra[f"{DAY}: MSE"]


def _nearly(ours: Outcome, theirs: Outcome) -> float:
    # Logarithms of ratios are compared: a model with next to no error is near enough.
    return max(ours.extra["mse"] - WITHIN, 1e-6) / theirs.extra["mse"]


def gains(outcomes: Sequence[Outcome], variant: str, setting: str) -> list[float]:
    """Return by how many percent a variant improves on standard attention, for each seed that both have."""
    runs = {(one.variant, one.seed): one.final for one in outcomes if one.setting == setting}
    seeds = sorted(seed for name, seed in runs if name == variant and ("standard", seed) in runs)
    return [100 * (1 - runs[variant, seed] / runs["standard", seed]) for seed in seeds]


def draw_gain(axes: Any, experiment: Experiment, outcomes: Sequence[Outcome]) -> None:
    """Draw the improvement on standard attention by horizon: the mean over seeds and their deviation."""
    by_protocol: dict[str, list[Setting]] = {}
    for setting in experiment.settings:
        by_protocol.setdefault(dict(setting.options).get("protocol", ""), []).append(setting)
    for (protocol, settings), line in zip(by_protocol.items(), ("-o", "--s"), strict=False):
        for number, variant in enumerate(experiment.variants):
            found = {
                dict(setting.options)["horizon"]: gains(outcomes, variant.name, setting.name) for setting in settings
            }
            means = {horizon: summarise(values) for horizon, values in found.items() if values}
            # DLinear in the paper's encoder's place is so far ahead that it would hide the others.
            if not means or variant.name in ("standard", "dlinear"):
                continue
            spread = [0.0 if mean.count < 2 else mean.spread for mean in means.values()]
            values = [mean.mean for mean in means.values()]
            label = f"{variant.name}, {protocol}"
            axes.errorbar(list(means), values, yerr=spread, fmt=line, capsize=3, color=f"C{number}", label=label)
    axes.axhline(0, color="0.6", linewidth=0.8)
    axes.set(xlabel="horizon (rows)", ylabel="improvement of OT MAE on standard (%)")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)
