"""Multiply-adds of training a transformer, as the paper counts: no read-in, no read-out, all pairs of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from mlbtc.analysis import AttentionReport, Report, analyze
from mlbtc.spec import MLBTC, AttentionSpec
from mlbtc.training.mlp import EXPANSION, Mlp

PASSES = 3
"""A forward pass, and a backward pass that costs twice as much."""


@lru_cache(maxsize=4096)
def attention_macs(spec: AttentionSpec, tokens: int) -> int:
    """Return the MACs of an attention layer for one sequence, from its cost report."""
    report = analyze(spec, batch=tokens)
    assert isinstance(report, AttentionReport)
    return int(report.macs)


def mlp_macs(mlp: Mlp | None, width: int, tokens: int) -> int:
    """Return the MACs of the two maps of an MLP for one sequence; None for dense ones."""
    if mlp is None:
        return 2 * EXPANSION * width**2 * tokens
    return sum(matrix_macs(spec, tokens) for spec in (mlp.up, mlp.down))


@lru_cache(maxsize=4096)
def matrix_macs(spec: MLBTC, tokens: int) -> int:
    """Return the MACs of a structured matrix for one sequence, from its cost report."""
    report = analyze(spec, batch=tokens)
    assert isinstance(report, Report)
    return int(report.macs)


def forward_macs(specs: Sequence[AttentionSpec], tokens: int, mlps: Sequence[Mlp | None] | None = None) -> int:
    """Return the MACs of the blocks for one sequence: attention, and the two maps of each MLP, dense by default."""
    each = zip(specs, mlps or [None] * len(specs), strict=True)
    return sum(attention_macs(spec, tokens) + mlp_macs(mlp, spec.width, tokens) for spec, mlp in each)


def step_macs(
    specs: Sequence[AttentionSpec], *, sequences: int, tokens: int, mlps: Sequence[Mlp | None] | None = None
) -> int:
    """Return the MACs of a training step."""
    return PASSES * sequences * forward_macs(specs, tokens, mlps)
