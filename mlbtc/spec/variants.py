"""The variants of attention: which keys each of them takes and cannot do without."""

from __future__ import annotations

from typing import Any

from mlbtc.errors import SpecError, nearest, shown

OWN_KEYS: dict[str, tuple[str, ...]] = {
    "standard": (),
    "mlr": ("ranks", "block_sizes"),
    "bilinear": ("score",),
    "mlbtc": ("levels",),
    "sliding_window": ("window",),
    "global_sliding_window": ("window", "ranks", "published"),
    "mixed": ("groups",),
}
"""The keys that each variant takes beside those of all variants."""

VARIANTS = tuple(OWN_KEYS)
GROUPED = ("standard", "mlr", "sliding_window", "global_sliding_window")
"""The variants of a group of heads: those whose queries and keys are projections, which all heads share."""

_NEEDS = {
    "mlr": ("ranks", "ranks, a list whose sum is width / heads"),
    "bilinear": ("score", "score, a (width, width) spec such as {family: btt, rank: 1}"),
    "mlbtc": ("levels", "levels, a list such as [{block_size: 1024, score: {family: btt, rank: 1}}]"),
    "mixed": ("groups", "groups, a list such as [{heads: 4, variant: mlr, ranks: [48, 16]}, ...]"),
    "sliding_window": ("window", "window, the number of keys that a token sees, itself included"),
    "global_sliding_window": ("window", "window, the number of keys that a token sees, itself included"),
}


def check_variant(variant: str, own: dict[str, Any]) -> None:
    """Check the name of a variant, that it has what it needs, and nothing of another one."""
    if not isinstance(variant, str) or variant not in VARIANTS:
        hint = nearest(str(variant), VARIANTS)
        raise SpecError(f"variant must be one of {', '.join(VARIANTS)}, found {shown(variant)}; {hint}", "variant")
    for key, value in own.items():
        if key not in OWN_KEYS[variant] and value is not None and value is not False:
            takers = " or ".join(f"variant {name}" for name, keys in OWN_KEYS.items() if key in keys)
            what = "one level of rank width / heads" if variant == "standard" else "none of its own"
            raise SpecError(f"{variant} attention has {what}: {key} needs {takers}", key)
    key, needed = _NEEDS.get(variant, ("", ""))
    value = own.get(key)
    if key and (value is None or value == () or value == []):
        raise SpecError(f"{variant} attention needs {needed}", "variant" if value is None else key)
