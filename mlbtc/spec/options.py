"""Options that attention layers of several variants take: the scale of scores, depth means, RMS caps and RoPE.

Each check raises a `SpecError` whose key names the option that is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, TypedDict

from mlbtc.errors import SpecError, nearest, shown

Scale = Literal["standard", "mup"]
SCALES: tuple[str, ...] = ("standard", "mup")
ROPE_BASE = 10_000.0

TAKERS: dict[str, tuple[str, ...]] = {
    "qk_norm": ("standard", "mlr", "bilinear", "mlbtc", "sliding_window", "global_sliding_window"),
    "scale": ("standard", "mlr", "bilinear", "mlbtc", "sliding_window", "global_sliding_window"),
    "divide_by_depth": ("mlr", "mlbtc"),
    "rms_cap": ("bilinear", "mlbtc"),
    "joint_norm": ("bilinear", "mlbtc"),
    "rope": ("standard", "mlr", "sliding_window", "global_sliding_window"),
}
"""The variants that take each option."""

DEFAULTS: dict[str, Any] = {
    "scale": "standard", "divide_by_depth": False, "rms_cap": False, "joint_norm": False, "rope": None,
}  # fmt: skip
"""The options that a file leaves out where they have these values."""


class Options(TypedDict, total=False):
    """Keyword arguments that all constructors of attention specs take; see `AttentionSpec`."""

    scale: str
    divide_by_depth: bool
    rms_cap: bool
    joint_norm: bool
    rope: bool | float | Mapping[str, float] | None


def check_options(variant: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a layer, checked and in the form in which a spec keeps them.

    Args:
        variant: the layer's.
        given: a value for each of `DEFAULTS`.
    """
    checked = dict(given)
    if given["scale"] not in SCALES:
        hint = nearest(str(given["scale"]), SCALES)
        raise SpecError(f"scale must be standard or mup, found {shown(given['scale'])}; {hint}", "scale")
    for key in ("divide_by_depth", "rms_cap", "joint_norm"):
        if not isinstance(given[key], bool):
            raise SpecError(f"{key} must be true or false, found {shown(given[key])}", key)
    checked["rope"] = check_rope(given["rope"])
    for key, value in checked.items():
        if value != DEFAULTS[key] and variant not in TAKERS[key]:
            raise SpecError(f"{_REFUSALS[key]}: {key} needs variant {', '.join(TAKERS[key])}; found {variant}", key)
    return checked


_REFUSALS = {
    "scale": "the groups of a mixed layer have scales of their own",
    "divide_by_depth": "only several levels of blocks give pairs of tokens a depth",
    "rms_cap": "only the factors of scores that are specs are capped",
    "joint_norm": "heads of projections have one norm anyway",
    "rope": "only features of query and key projections are rotated, as the features of a spec depend on how it is cut",
}


def check_rope(rope: object) -> float | None:
    """Return the base of the angles, None for no rotation."""
    if rope is None or rope is False:
        return None
    if isinstance(rope, Mapping):
        unknown = [key for key in rope if key != "base"]
        if unknown:
            raise SpecError(f"rope takes the key base, found {shown(unknown[0])}", "rope")
        rope = rope.get("base", ROPE_BASE)
    elif rope is True:
        rope = ROPE_BASE
    if isinstance(rope, bool) or not isinstance(rope, int | float) or not math.isfinite(rope) or rope < 1:
        raise SpecError(f"rope is true or {{base: a number of at least 1}}, found {shown(rope)}", "rope")
    return float(rope)
