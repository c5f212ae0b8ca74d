"""Whether an instance of a plan is small enough to evaluate; without NumPy, whose import takes longer than most."""

from __future__ import annotations

import math

from mlbtc.plan.build import Plan
from mlbtc.plan.step import TOKENS

MAX_TERMS = 2048
"""Products of two residues that a 64-bit sum holds, see `mlbtc.analysis.field.PRIME`."""

_MAX_WORK = 1 << 24


def affordable(plan: Plan) -> bool:
    """Return whether an instance of a bound plan can be evaluated in a fraction of a second."""
    out, in_ = plan.shape
    if not (isinstance(out, int) and isinstance(in_, int)) or out * in_ * min(out, in_) > _MAX_WORK:
        return False
    for level in plan.levels:
        sizes = dict(level.sizes)
        if not all(isinstance(size, int) for size in sizes.values()):
            return False  # the bound is a number though a summed index is a symbol
        if any(math.prod(int(sizes[i]) for i in factor.indices) > _MAX_WORK for factor in level.factors):
            return False
        for step in level.steps:
            joint = {i for o in (step.left, step.right) if o for i in o.indices} - {TOKENS}
            if math.prod(int(sizes[i]) for i in joint) * in_ > _MAX_WORK:
                return False
            if math.prod(int(sizes[i]) for i in joint if i not in step.result.indices) > MAX_TERMS:
                return False
    return True
