"""Experiment 2: a language model of characters, and what compute that depends on distance buys."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from mlbtc.spec import AttentionSpec
from mlbtc.training.compute import step_macs
from mlbtc.training.reproduce.claims import Claim, Comparison, compute_ratio, final_ratio
from mlbtc.training.reproduce.figures import draw_against_compute
from mlbtc.training.reproduce.grid import Experiment, Measure, Options, Setting, Variant, evaluation_interval
from mlbtc.training.tasks import language_model
from mlbtc.training.tasks.text import VOCABULARIES

HEAD = 64
RANKS = (32, 8, 6, 4, 4, 4, 4, 2)
EVALUATIONS = 20
# Layers 1 and 4 of the paper's 6.
GLOBAL_EVERY = 3
WINDOW = 1 / 8

SETTINGS = {
    scale: tuple(Setting(f"width{width}", (("width", width),)) for width in widths)
    for scale, widths in (("small", (64, 128)), ("paper", (256, 384, 512, 768)))
}
SIZES: dict[str, dict[str, Any]] = {
    "small": {"layers": 3, "context": 1024, "steps": 1000, "batch": 2, "lr": 2e-3, "warmup": 50, "eval_windows": 16},
    # The paper does not say how many steps; its rate is found by muP.
    "paper": {"layers": 6, "context": 1024, "steps": 100000, "batch": 4, "lr": 1e-3, "warmup": 2000},
}

MEASURE = Measure(
    quantity="validation loss (nats per character)",
    curve="validation loss (nats per character)",
    evaluates="eval_every",
    value=lambda row: row.get("validation_loss"),
    final=lambda results: float(results["validation_loss"]),
    macs=lambda config, row: step_macs(config.specs, sequences=config.batch, tokens=config.context),
)


def experiment(scale: str, steps: int | None) -> Experiment:
    """Return the grid: standard attention, a sliding window, a pattern of both, and MLR with 8 levels."""
    settings = SETTINGS[scale]
    return Experiment(
        name="lm",
        scale=scale,
        about="Does MLR attention, which spends less on tokens far apart, learn a text with less compute?",
        task=language_model,
        measure=MEASURE,
        variants=_VARIANTS,
        settings=settings,
        seeds=3,
        options=_options(scale, steps),
        probe=(),
        claims=tuple(claim for setting in settings for claim in _claims(setting.name, len(settings) > 1)),
        draw=draw_against_compute,
    )


def _options(scale: str, steps: int | None) -> Options:
    sizes = dict(SIZES[scale])
    planned = steps or sizes["steps"]
    every = evaluation_interval(planned, EVALUATIONS)
    more = {"steps": planned, "warmup": min(sizes["warmup"], planned), "eval_every": every, "checkpoint_every": every}
    return tuple((sizes | more).items())


def _layers(given: dict[str, Any], kind: str) -> dict[str, Any]:
    width, context, count = given["width"], given["context"], given["layers"]
    sizes = {"width": width, "heads": width // HEAD, "context": context, "qk_norm": True}
    full = AttentionSpec.standard(**sizes, name="standard")
    near = AttentionSpec.sliding_window(**sizes, window=max(1, round(context * WINDOW)), name="window")
    layers = {
        "standard": [full] * count,
        "window": [near] * count,
        "global+window": [near if layer % GLOBAL_EVERY else full for layer in range(count)],
        "mlr": [AttentionSpec.mlr(**sizes, ranks=RANKS, name="mlr")] * count,
    }[kind]
    return {"attention": tuple(layers), "width": None, "context": None}


_ABOUT = {
    "standard": "heads of 64 features",
    "window": "the last eighth of the context, in all layers",
    "global+window": "layers 1, 4, ... see all, the others the last eighth",
    "mlr": f"heads of {'|'.join(map(str, RANKS))} features in halving blocks",
}
_VARIANTS = tuple(Variant(name, about, partial(_layers, kind=name)) for name, about in _ABOUT.items())


def _claims(setting: str, several: bool) -> tuple[Claim, ...]:
    where = f"{setting}: " if several else ""
    chance = math.log(VOCABULARIES["characters"])

    def claim(text: str, ours: str, theirs: str, ratio: Any, what: str) -> Claim:
        judge = Comparison(ours, theirs, ratio, f"{what}, {ours} / {theirs}", setting=setting, chance=chance)
        return Claim(where + text, judge)

    equal = "loss after equal compute"
    return (
        claim(
            "MLR has less loss than standard attention after equal compute.",
            "mlr", "standard", compute_ratio, equal,
        ),
        claim("MLR has less loss than a sliding window after equal compute.", "mlr", "window", compute_ratio, equal),
        claim(
            "MLR has less loss than global and sliding-window layers after equal compute.",
            "mlr", "global+window", compute_ratio, equal,
        ),
        claim(
            "Global and sliding-window layers have less loss than standard attention after equal compute.",
            "global+window", "standard", compute_ratio, equal,
        ),
        claim("MLR has less loss than standard attention after equal steps.", "mlr", "standard", final_ratio, "loss"),
    )  # fmt: skip
