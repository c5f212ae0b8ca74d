"""What each level of a layer sees: the share of the attention mass, entropy and scores, head by head."""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlbtc.attention.explanation_figure import draw
from mlbtc.attention.heads import made_ranks
from mlbtc.attention.recording import distances, level_blocks, mixed_weights, record
from mlbtc.errors import SpecError
from mlbtc.spec.attention import AttentionSpec

MOST_PAIRS = 2**24
"""Pairs of tokens of all sequences: every pair of a head is in memory at once, several times, 8 bytes each."""

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True, slots=True)
class ScoreSummary:
    """Scores, as they enter a softmax, of the pairs whose deepest level one is.

    Attributes:
        pairs: how many, of all sequences; only pairs where the query sees the key.
        mean: of them.
        quantiles: those of `QUANTILES`.
    """

    pairs: int
    mean: float
    quantiles: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class LevelView:
    """What a head sees of the pairs whose deepest shared level this is.

    Attributes:
        name: which pairs share the level: "all tokens", "blocks of 16", "last 8 tokens".
        rank: features of the level.
        share: of the attention mass; those of a head add up to 1.
        even_share: what it would be if a query gave all keys that it sees the same weight.
        scores: None where there is no such pair.
    """

    name: str
    rank: int
    share: float
    even_share: float
    scores: ScoreSummary | None


@dataclass(frozen=True, slots=True)
class HeadView:
    """What one head sees.

    Attributes:
        number: of the head, from 0.
        variant: how it attends.
        levels: coarse to fine.
        entropy: of a query's weights in nats, the mean over queries.
        most_entropy: the mean of log(keys that a query sees), which is the entropy of equal weights.
    """

    number: int
    variant: str
    levels: tuple[LevelView, ...]
    entropy: float
    most_entropy: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """What the levels of an attention layer see of some sequences; `str` is a table.

    With global attention beside a window, weights are those of both softmaxes together, and the scores of each level
    are those of its own softmax.

    Attributes:
        spec: of the layer.
        sequences: how many.
        tokens: of each.
        heads: in order.
    """

    spec: AttentionSpec
    sequences: int
    tokens: int
    heads: tuple[HeadView, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the explanation as plain data for `json.dumps`."""
        sizes = {"name": self.spec.name, "variant": self.spec.variant, "sequences": self.sequences}
        return {**sizes, "tokens": self.tokens, "heads": [_head_dict(head) for head in self.heads]}

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw shares, scores by depth and entropies of every head.

        Args:
            path: the file, .png or .svg.

        Raises:
            AnalysisError: the name ends in neither, or the file cannot be written.
            BackendError: matplotlib is not installed.
        """
        rows = [_head_dict(head) for head in self.heads]
        draw(rows, f"{self.spec.name}, {self.sequences} x {self.tokens} tokens", os.fspath(path))

    def __str__(self) -> str:
        count = "1 sequence" if self.sequences == 1 else f"{self.sequences} sequences"
        lines = [
            str(self.spec),
            f"{count} of {self.tokens} tokens",
            "share of the attention mass by the deepest level that a pair shares, in brackets that of equal weights;",
            "entropy in nats, of the most that the visible keys allow; below, scores of these pairs: mean [5 %, 95 %]",
        ]
        for names, group in groupby(self.heads, lambda head: [f"{one.name}, rank {one.rank}" for one in head.levels]):
            heads = list(group)
            lines += ["", *_aligned([["head", *names, "entropy"], *map(_share_cells, heads)])]
            lines += ["", *_aligned([["head", *names], *map(_score_cells, heads)])]
        return "\n".join(lines)


def explain_layer(layer: Any, x: Tensor) -> Explanation:  # (B, T, width)
    """Return what the levels of a compiled attention layer see of whole sequences.

    Weights, gradients, random states and mode of the layer stay as they are. Scores are dense, in float64 (float32 on
    devices without it), one head at a time: memory grows with B T^2.

    Args:
        layer: of `compile_attention`.
        x: the sequences, as the layer takes them.

    Raises:
        SpecError: x has another shape or no token, or more than `MOST_PAIRS` pairs of them; or scores are not finite.
    """
    spec: AttentionSpec = layer.spec
    _check(spec, x)
    heads: list[HeadView] = []
    record(layer, x, lambda *shown: heads.append(_view(*shown)))
    return Explanation(spec, x.shape[0], x.shape[1], tuple(heads))


def _check(spec: AttentionSpec, x: Tensor) -> None:
    if x.dim() != 3 or x.shape[2] != spec.width:
        raise SpecError(f"the layer takes (batch, tokens, {spec.width}), found the shape {tuple(x.shape)}")
    if not x.numel():
        raise SpecError(f"explain needs at least one sequence with one token, found the shape {tuple(x.shape)}")
    if x.is_meta:
        raise SpecError("explain needs numbers, found a tensor on the meta device")
    pairs = x.shape[0] * x.shape[1] ** 2
    if pairs > MOST_PAIRS:
        raise SpecError(
            f"explain holds all pairs of tokens of a head: {x.shape[0]} x {x.shape[1]:,} tokens have {pairs:,} pairs, "
            f"more than {MOST_PAIRS:,}; give fewer sequences or shorter ones"
        )


def level_names(spec: AttentionSpec) -> tuple[str, ...]:
    """Return which pairs of tokens share each level of heads that attend alike."""
    if spec.variant == "sliding_window":
        return (f"last {spec.window} tokens",)
    if spec.variant == "global_sliding_window":
        return ("all tokens", f"last {spec.window} tokens")
    return ("all tokens", *(f"blocks of {block}" for block in spec.block_sizes[1:]))


def deepest_levels(spec: AttentionSpec, scores: Tensor) -> Tensor:  # (..., T, T)
    """Return the number, from 0, of the deepest level that each pair of tokens shares, `(T, T)`."""
    if spec.variant == "global_sliding_window":
        assert spec.window is not None
        # What comes after a query is on neither level, and has no weight.
        return (distances(scores) < spec.window).long()
    tokens = scores.shape[-1]
    positions = torch.arange(tokens, device=scores.device)
    ids = [positions // block for block in level_blocks(spec, tokens)]
    return torch.stack([own[:, None] == own for own in ids]).sum(0) - 1


def _view(number: int, spec: AttentionSpec, scores: tuple[Tensor, ...], weights: Tensor) -> HeadView:
    """Return what a head sees; scores and weights are `(B, T, T)`."""
    if not weights.isfinite().all():
        raise SpecError(f"head {number} has scores that are not finite: its weights, or the tokens, have diverged")
    # Rows of two softmaxes that are added sum to 2.
    weights = weights / weights.sum(-1, keepdim=True)
    seen = [one[0] > float("-inf") for one in scores]
    even = mixed_weights(spec, [torch.zeros_like(weights[0]).masked_fill(~one, float("-inf")) for one in seen])
    even = even / even.sum(-1, keepdim=True)
    deepest, mean = deepest_levels(spec, scores[0]), weights.mean(0)
    levels = []
    for level, (name, rank) in enumerate(zip(level_names(spec), made_ranks(spec), strict=True)):
        here, own = deepest == level, min(level, len(scores) - 1)
        summary = _summary(scores[own][:, here & seen[own]])
        levels.append(LevelView(name, rank, _row_mean(mean, here), _row_mean(even, here), summary))
    return HeadView(
        number,
        spec.variant,
        tuple(levels),
        entropy=float(torch.special.entr(weights).sum(-1).mean()),
        most_entropy=float(seen[0].sum(-1).to(weights.dtype).log().mean()),
    )


def _row_mean(weights: Tensor, chosen: Tensor) -> float:
    """Return the sum of the chosen weights of a query, `(T, T)`, the mean over queries."""
    return float((weights * chosen).sum()) / len(weights)


def _summary(scores: Tensor) -> ScoreSummary | None:
    if not scores.numel():
        return None
    values = scores.flatten().cpu().numpy()
    return ScoreSummary(values.size, float(values.mean()), tuple(np.quantile(values, QUANTILES).tolist()))


def _head_dict(head: HeadView) -> dict[str, Any]:
    levels = [
        {
            "level": number,
            "name": level.name,
            "rank": level.rank,
            "share": level.share,
            "even_share": level.even_share,
            "scores": None if level.scores is None else _scores_dict(level.scores),
        }
        for number, level in enumerate(head.levels, 1)
    ]
    sizes = {"entropy": head.entropy, "most_entropy": head.most_entropy}
    return {"head": head.number, "variant": head.variant, **sizes, "levels": levels}


def _scores_dict(scores: ScoreSummary) -> dict[str, Any]:
    quantiles = {str(order): value for order, value in zip(QUANTILES, scores.quantiles, strict=True)}
    return {"pairs": scores.pairs, "mean": scores.mean, "quantiles": quantiles}


def _share_cells(head: HeadView) -> list[str]:
    shares = [f"{one.share:.3f} ({one.even_share:.3f})" for one in head.levels]
    return [str(head.number), *shares, f"{head.entropy:.2f} of {head.most_entropy:.2f}"]


def _score_cells(head: HeadView) -> list[str]:
    cells = []
    for scores in (level.scores for level in head.levels):
        low_high = "" if scores is None else f" [{scores.quantiles[0]:.2f}, {scores.quantiles[-1]:.2f}]"
        cells.append("no pairs" if scores is None else f"{scores.mean:.2f}{low_high}")
    return [str(head.number), *cells]


def _aligned(rows: list[list[str]]) -> list[str]:
    """Return rows of cells as lines whose columns end below each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
