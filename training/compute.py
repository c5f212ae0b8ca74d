"""Multiply-adds of training a transformer, as the paper counts: no read-in, no read-out, all pairs of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from mlbtc.analysis import AttentionReport, analyze
from mlbtc.spec import AttentionSpec

PASSES = 3
"""A forward pass, and a backward pass that costs twice as much."""


@lru_cache(maxsize=4096)
def attention_macs(spec: AttentionSpec, tokens: int) -> int:
    """Return the MACs of an attention layer for one sequence, from its cost report."""
    report = analyze(spec, batch=tokens)
    assert isinstance(report, AttentionReport)
    return int(report.macs)


def forward_macs(specs: Sequence[AttentionSpec], tokens: int) -> int:
    """Return the MACs of the blocks for one sequence: attention, and two dense maps of D x 4 D."""
    return sum(attention_macs(spec, tokens) + 8 * spec.width**2 * tokens for spec in specs)


def step_macs(specs: Sequence[AttentionSpec], *, sequences: int, tokens: int) -> int:
    """Return the MACs of a training step."""
    return PASSES * sequences * forward_macs(specs, tokens)
