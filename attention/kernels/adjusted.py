"""The PyTorch implementations of MLR attention with options: a bias, hidden keys, dropped weights."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mlbtc.attention.kernels.dropout import kept, row_keys
from mlbtc.attention.kernels.expanded import expand
from mlbtc.attention.kernels.options import Options
from mlbtc.attention.kernels.reference import block_scores, reference_scores
from mlbtc.attention.kernels.strips import Strip, StripAttention, StripProblem, Strips, full_precision


@dataclass(frozen=True, slots=True, eq=False)
class Adjustment:
    """What is done to scores and weights of N sequences, each of one head.

    Attributes:
        first: the position of the first query.
        visible: `(N, Tk)` or None.
        slopes: `(N,)` or None.
        dropout: the probability with which a weight is dropped.
        keys: `(N, Tq)` twice, of the hash that says which ones, or None.
        ids: `(N, L, Tk)`, of the blocks of tokens, or None.
    """

    first: int
    visible: Tensor | None
    slopes: Tensor | None
    dropout: float
    keys: tuple[Tensor, Tensor] | None
    ids: Tensor | None

    @classmethod
    def of(cls, options: Options, query: Tensor, key: Tensor) -> Adjustment:
        """Return the options of `(B, H, Tq, R)` queries for `B H` sequences."""
        batch, heads, queries, _ = query.shape
        visible, first = options.visible_keys(key.shape[2]), key.shape[2] - queries
        return cls(
            first,
            None if visible is None else visible.repeat_interleave(heads, dim=0),
            None if options.slopes is None else options.slopes.to(query.dtype).repeat(batch),
            options.dropout,
            None if options.seed is None else _flat_keys(row_keys(options.seed, batch, heads, first, queries)),
            None if options.ids is None else options.ids.repeat_interleave(heads, dim=0),
        )

    def __getitem__(self, sequences: slice) -> Adjustment:
        """Return what belongs to some of the sequences."""
        return replace(
            self,
            visible=None if self.visible is None else self.visible[sequences],
            slopes=None if self.slopes is None else self.slopes[sequences],
            keys=None if self.keys is None else (self.keys[0][sequences], self.keys[1][sequences]),
            ids=None if self.ids is None else self.ids[sequences],
        )

    def adjust(self, scores: Tensor, start: int) -> Tensor:
        """Return the scores `(N, rows, keys)` of the queries from `start` on with bias and hidden keys.

        Hidden keys have the least number, not minus infinity: a row that sees no key stays free of NaN.
        """
        rows, keys = scores.shape[1:]
        if self.slopes is not None:
            positions = torch.arange(keys, device=scores.device)
            own = torch.arange(self.first + start, self.first + start + rows, device=scores.device)
            distance = (own[:, None] - positions).abs().to(scores.dtype)
            scores = scores - self.slopes[:, None, None] * distance
        if self.visible is not None:
            scores = scores.masked_fill(~self.visible[:, None, :keys], torch.finfo(scores.dtype).min)
        return scores

    def drop(self, weights: Tensor, start: int) -> Tensor:
        """Return the weights `(N, rows, keys)` with some dropped and the others divided by their probability."""
        if self.keys is None:
            return weights
        first, second = (key[:, start : start + weights.shape[1]] for key in self.keys)
        stay = kept(first, second, weights.shape[2], self.dropout)
        return torch.where(stay, weights / (1 - self.dropout), 0)


def _flat_keys(keys: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return keys[0].flatten(0, 1), keys[1].flatten(0, 1)


def adjusted_attention(
    backend: str,
    query: Tensor,  # (B, H, Tq, R)
    key: Tensor,  # (B, H, Tk, R)
    value: Tensor,  # (B, H, Tk, Dv)
    ranks: tuple[int, ...],
    block_sizes: tuple[int, ...],
    causal: bool,
    options: Options,
) -> Tensor:
    """Return what the PyTorch backend of that name computes with options; half precision is computed in float32."""
    problem = AdjustedProblem(ranks, block_sizes, causal, Adjustment.of(options, query, key))
    wide = torch.promote_types(query.dtype, torch.float32)
    shown = options.without_the_unseen(query, key, value, causal)
    flat = [x.to(wide).flatten(0, 1) for x in shown]
    with full_precision(query):
        match backend if query.numel() and value.numel() else "reference":
            case "strips":
                output = StripAttention.apply(*flat, problem)
            case "expanded":
                output = problem.expanded(*flat)
            case _:
                output = problem.dense(*flat)
    output = output.unflatten(0, query.shape[:2]).to(value.dtype)
    rows = options.seeing_rows(query.shape[2], key.shape[2], causal)
    return output if rows is None else output.masked_fill(~rows[:, None, :, None], 0)


class AdjustedProblem(StripProblem):
    """Levels and an adjustment."""

    def __init__(
        self, ranks: tuple[int, ...], block_sizes: tuple[int, ...], causal: bool, adjustment: Adjustment
    ) -> None:
        super().__init__(ranks, block_sizes, causal)
        self.adjustment = adjustment

    def strips(self, query: Tensor, key: Tensor, group: slice) -> Strips:
        """Return the strips of a group of sequences."""
        return AdjustedStrips(query[group], key[group], self, self.adjustment[group])

    def dense(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Return what the definition gives, which can be differentiated twice."""
        ids = self.adjustment.ids
        if ids is None:
            scores = reference_scores(query, key, self.ranks, self.block_sizes, self.causal)
        else:
            scores = block_scores(query, key, self.ranks, ids.unbind(1), self.causal)
        weights = torch.softmax(self.adjustment.adjust(scores, 0), dim=-1)
        return self.adjustment.drop(weights, 0) @ value

    def expanded(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Return what one scaled_dot_product_attention with a mask gives; it cannot drop weights by the hash."""
        tokens, width = query.shape[1], value.shape[2]
        bias = query.new_zeros(query.shape[0], tokens, tokens)
        if self.causal:
            bias = bias.masked_fill(torch.ones_like(bias, dtype=torch.bool).triu(1), float("-inf"))
        bias = self.adjustment.adjust(bias, 0)
        wide = expand(query, key, value, self.ranks, self.block_sizes)
        return torch.nn.functional.scaled_dot_product_attention(*wide, attn_mask=bias, scale=1.0)[..., :width]


class AdjustedStrips(Strips):
    """Strips whose scores and weights are adjusted."""

    def __init__(self, query: Tensor, key: Tensor, problem: StripProblem, adjustment: Adjustment) -> None:
        super().__init__(query, key, problem)
        self.adjustment = adjustment

    def scores(self, strip: Strip) -> Tensor:
        """Return the adjusted scores of a strip."""
        return self.adjustment.adjust(super().scores(strip), strip[0])

    def mixing(self, strip: Strip, weights: Tensor) -> Tensor:
        """Return the weights that are not dropped."""
        return self.adjustment.drop(weights, strip[0])
