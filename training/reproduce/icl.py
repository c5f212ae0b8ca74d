"""Experiment 1: in-context regression, and the rank that eight small heads lack."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from mlbtc.spec import AttentionSpec, families
from mlbtc.training.compute import step_macs
from mlbtc.training.reproduce.claims import Claim, Comparison, compute_ratio, final_ratio, time_ratio
from mlbtc.training.reproduce.figures import draw_ends
from mlbtc.training.reproduce.grid import Experiment, Measure, Options, Setting, Variant, evaluation_interval
from mlbtc.training.tasks import in_context_regression

CURRICULUM = 0.06
EVALUATIONS = 100
HEADS = 8

SIDE_STEPS = 2000
"""Of the larger setting at small scale, which is there for the trend: one seed, and no claim."""

SIDE_VARIANTS = ("standard", "bilinear-btt")

MOST_SEEDS = {"standard-1-head": 2, "bilinear-mlr": 2, "bilinear-mlr-joint": 2}
"""By default, so that the grid ends within 75 minutes on two cores; `--seeds` asks for more of every variant."""

SIZES: dict[str, dict[str, Any]] = {
    # At a constant rate the last steps decide how a run ends: bilinear scores soon reach the noise of gradients.
    "small": {"layers": 3, "steps": 14000, "lr": 2e-3, "warmup": 100, "batch": 64, "schedule": "cosine"},
    # No clipping in the paper's code.
    "paper": {"layers": 6, "steps": 500000, "lr": 1e-4, "warmup": 1000, "batch": 64, "clip": 0.0},
}


def experiment(scale: str, steps: int | None) -> Experiment:
    """Return the grid: standard attention with 8 heads and with 1, bilinear BTT and bilinear MLR."""
    settings = _settings(scale, steps)
    claimed = [setting for setting in settings if setting.seeds is None]
    return Experiment(
        name="icl",
        scale=scale,
        about="Do heads of rank D / H fail at regression in context where scores of higher rank succeed?",
        task=in_context_regression,
        measure=Measure(
            quantity="error at the last point",
            curve="error at the last point",
            evaluates="eval_every",
            value=lambda row: row.get("last_error"),
            final=lambda results: float(results["errors"]["model"]["last"]),
            macs=_macs,
            extra=lambda results: {"mean_error": float(results["errors"]["model"]["mean"])},
        ),
        variants=_VARIANTS,
        settings=settings,
        seeds=3,
        options=_options(scale, steps),
        # Prompts of full length.
        probe=(("curriculum", 0),),
        claims=tuple(claim for setting in claimed for claim in _claims(setting.name, len(claimed) > 1)),
        draw=draw_ends,
    )


def _settings(scale: str, steps: int | None) -> tuple[Setting, ...]:
    def setting(dims: int, width: int) -> Setting:
        return Setting(f"d{dims}-width{width}", (("dims", dims), ("width", width)))

    if scale == "small":
        side = setting(16, 64)
        more = _steps(scale, steps or SIDE_STEPS)
        return setting(8, 32), replace(side, options=(*side.options, *more), seeds=1, variants=SIDE_VARIANTS)
    return tuple(setting(dims, width) for dims, width in ((64, 256), (128, 256), (128, 512)))


def _options(scale: str, steps: int | None) -> Options:
    options = SIZES[scale] | dict(_steps(scale, steps or SIZES[scale]["steps"])) | {"evaluation_prompts": 512}
    return tuple(options.items())


def _steps(scale: str, planned: int) -> Options:
    """Return the options that follow from the number of steps."""
    every = evaluation_interval(planned, EVALUATIONS)
    decay: Options = (("decay_steps", planned),) if "schedule" in SIZES[scale] else ()
    return (
        *decay,
        ("steps", planned),
        ("warmup", min(SIZES[scale]["warmup"], planned // 2)),
        ("curriculum", round(planned * CURRICULUM)),
        ("eval_every", every),
        ("checkpoint_every", 10 * every),
    )


def _macs(config: Any, row: dict[str, Any]) -> float:
    return step_macs(config.specs, sequences=config.batch, tokens=2 * row["points"])


def _spec(given: dict[str, Any], kind: str) -> dict[str, Any]:
    width, context = given["width"], 4 * given["dims"]
    shape = (width, width)
    if kind == "bilinear-btt":
        spec = AttentionSpec.bilinear(width, HEADS, context, families.btt(shape, 1), True, True, "bilinear-btt")
    elif kind.startswith("bilinear-mlr"):
        score, joint = families.mlr(shape, score_ranks(width // HEADS)), kind == "bilinear-mlr-joint"
        spec = AttentionSpec.bilinear(width, HEADS, context, score, True, True, kind, joint_norm=joint)
    else:
        heads = 1 if kind == "standard-1-head" else HEADS
        spec = AttentionSpec.standard(width, heads, context, True, True, kind)
    return {"attention": spec, "width": None}


def score_ranks(head: int) -> tuple[int, ...]:
    """Return the ranks of a bilinear MLR score whose sum is that of a head: a half, a quarter and two eighths."""
    if head >= 8:
        return head - head // 4 - 2 * (head // 8), head // 4, head // 8, head // 8
    return (head - head // 2, head // 2) if head > 1 else (1,)


_ABOUT = {
    "standard": "8 heads of rank D / 8",
    "standard-1-head": "1 head of rank D",
    "bilinear-btt": "8 heads, scores x^T M x with M a block tensor train of rank 1: full rank",
    "bilinear-mlr": "8 heads, M multi-level low rank; of its ranks, with the sum D / 8, half are for whole rows",
    "bilinear-mlr-joint": "as bilinear-mlr with one norm for all features of a head, not one for each level",
}
_VARIANTS = tuple(
    Variant(name, about, partial(_spec, kind=name), seeds=MOST_SEEDS.get(name)) for name, about in _ABOUT.items()
)


def _claims(setting: str, several: bool) -> tuple[Claim, ...]:
    where = f"{setting}: " if several else ""

    def claim(text: str, ours: str, ratio: Any, what: str, bound: float = 1.0, theirs: str = "standard") -> Claim:
        # Predicting zero has an error of 1.
        return Claim(where + text, Comparison(ours, theirs, ratio, what, bound, setting, chance=1.0))

    return (
        claim(
            "Bilinear BTT attention ends below half of the error of standard attention with 8 heads.",
            "bilinear-btt", final_ratio, "final error, bilinear BTT / standard", 0.5,
        ),
        claim(
            "Bilinear BTT attention passes the final error of standard attention within 0.7 of its wall-clock time.",
            "bilinear-btt", time_ratio, "time to the final error of standard / time of standard", 0.7,
        ),
        claim(
            "Bilinear BTT attention has less error than standard attention after equal compute.",
            "bilinear-btt", compute_ratio, "error after equal compute, bilinear BTT / standard",
        ),
        claim(
            "Bilinear MLR attention has less error than standard attention after equal compute.",
            "bilinear-mlr", compute_ratio, "error after equal compute, bilinear MLR / standard",
        ),
        claim(
            "Bilinear MLR attention with one norm a head has less error than standard attention after equal compute.",
            "bilinear-mlr-joint", compute_ratio, "error after equal compute, bilinear MLR (joint norm) / standard",
        ),
        claim(
            "One norm a head ends with less error than one a level, which leaves 2 features a sign: the norm decides.",
            "bilinear-mlr-joint", final_ratio, "final error, one norm / one a level", theirs="bilinear-mlr",
        ),
        claim(
            "One head of full rank ends below 8 heads of an eighth: the rank is what is missing.",
            "standard-1-head", final_ratio, "final error, 1 head / 8 heads",
        ),
    )  # fmt: skip
