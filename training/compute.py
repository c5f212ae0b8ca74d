"""Multiply-adds of training a transformer, as the paper counts: no read-in, no read-out, all pairs of tokens."""

from __future__ import annotations

from collections.abc import Sequence

from mlbtc.attention.equal import block_macs
from mlbtc.spec import AttentionSpec

PASSES = 3
"""A forward pass, and a backward pass that costs twice as much."""


def forward_macs(specs: Sequence[AttentionSpec], tokens: int) -> int:
    """Return the MACs of the blocks for one sequence: attention, and two dense maps of D x 4 D."""
    return sum(block_macs(spec, tokens) for spec in specs)


def step_macs(specs: Sequence[AttentionSpec], *, sequences: int, tokens: int) -> int:
    """Return the MACs of a training step."""
    return PASSES * sequences * forward_macs(specs, tokens)
