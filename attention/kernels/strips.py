"""MLR attention in row strips: exact, T x T is never stored, each score costs only its active ranks.

Depth is nested, so the features that a pair of tokens shares are a prefix of the feature axis. A strip of C rows inside
one block of every coarse level sees keys in contiguous segments of growing prefix width: one matmul per segment into
one score buffer, one softmax, one matmul with the values. Levels with blocks finer than a strip are batched over the
whole sequence and added on the diagonal. The backward pass recomputes the strips (design: "Row strips").
"""

from __future__ import annotations

import contextlib
from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from mlbtc.attention.kernels.reference import reference_attention

# Everything below is inlined into emitted layers: it may use torch and the language, nothing else.

STRIP_ROWS = 128
BUFFER_ELEMENTS = 1 << 20

Segment = tuple[int, int, int]
Strip = tuple[int, int, tuple[Segment, ...]]


@lru_cache(maxsize=256)
def plan_strips(
    tokens: int, ranks: tuple[int, ...], block_sizes: tuple[int, ...], causal: bool, rows: int = STRIP_ROWS
) -> tuple[tuple[Strip, ...], int]:
    """Cut a sequence into strips.

    Returns:
        Strips `(start, stop, segments)` with segments `(first key, last key + 1, active features)`, and the number of
        coarse levels. Levels behind them have blocks of fewer than `rows` tokens.
    """
    coarse = sum(block >= min(rows, tokens) for block in block_sizes)
    widths = [sum(ranks[: level + 1]) for level in range(coarse)]
    inner = block_sizes[coarse - 1] if coarse else tokens
    # Strips are whole blocks of the finest level that is not part of the segments.
    unit = block_sizes[coarse] if coarse < len(block_sizes) else 1
    step = max(unit, rows // unit * unit)
    strips = []
    for block_start in range(0, tokens, inner):
        block_stop = min(block_start + inner, tokens)
        for start in range(block_start, block_stop, step):
            stop = min(start + step, block_stop)
            strips.append((start, stop, _segments(start, stop, tokens, block_sizes[:coarse], widths, causal)))
    return tuple(strips), coarse


def _segments(
    start: int, stop: int, tokens: int, blocks: tuple[int, ...], widths: list[int], causal: bool
) -> tuple[Segment, ...]:
    """Return the keys that a strip sees, in order, each with the features it shares with the strip."""
    end = stop if causal else tokens
    left = [start // block * block for block in blocks]
    right = [min(first + block, end) for first, block in zip(left, blocks, strict=True)]
    bounds = [0, *left, *reversed(right), end]
    active = [0, *widths, *reversed(widths[:-1]), 0] if blocks else [0]
    bounds = bounds if blocks else [0, end]
    return tuple((a, b, width) for (a, b), width in zip(pairwise(bounds), active, strict=True) if a < b)


def fine_scores(query: Tensor, key: Tensor, levels: list[tuple[int, int, int]]) -> Tensor:
    """Return (N, units, u, u): the scores of `(first feature, last + 1, block)` levels in units of the first block."""
    unit = levels[0][2]
    total = query.new_zeros(query.shape[0], -(-query.shape[1] // unit), unit, unit)
    for first, last, block in levels:
        left, right = (_blocks(x[..., first:last], unit, block) for x in (query, key))
        _diagonal(total, block).add_(_unblock(torch.bmm(left, right.mT), total, block))
    return total


def _blocks(x: Tensor, unit: int, block: int) -> Tensor:
    """(N, T, r) to (N * blocks, block, r), padded with zeros to whole units."""
    padding = -x.shape[1] % unit
    x = torch.nn.functional.pad(x, (0, 0, 0, padding)) if padding else x
    return x.reshape(-1, block, x.shape[2])


def _diagonal(units: Tensor, block: int) -> Tensor:
    """View the diagonal blocks of (N, units, u, u) as (N, units, block, block, u / block)."""
    count = units.shape[-1] // block
    return units.unflatten(-1, (count, block)).unflatten(-3, (count, block)).diagonal(0, -4, -2)


def _unblock(blocks: Tensor, units: Tensor, block: int) -> Tensor:
    """(N * blocks, block, block) to the shape of `_diagonal(units, block)`."""
    return blocks.view(units.shape[0], units.shape[1], -1, block, block).permute(0, 1, 3, 4, 2)


class StripAttention(torch.autograd.Function):
    """Row strips over (N, T, R) queries and keys and (N, T, Dv) values; N is batch times heads."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, problem: StripProblem) -> Tensor:  # noqa: D102
        ctx.save_for_backward(query, key, value)
        ctx.problem = problem
        output = torch.empty_like(value)
        with full_precision(query):
            for group in _groups(query):
                work = problem.strips(query, key, group)
                for strip in work.strips:
                    weights = work.mixing(strip, work.weights(strip))
                    keys = value[group][:, : weights.shape[2]]
                    output[group, strip[0] : strip[1]] = torch.bmm(weights, keys)
        return output

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: D102
        query, key, value = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph: gradients that can be differentiated again
            return *_dense_gradients(query, key, value, grad, ctx.problem), None
        grads = torch.zeros_like(query), torch.zeros_like(key), torch.zeros_like(value)
        with full_precision(query):
            for group in _groups(query):
                work = ctx.problem.strips(query, key, group)
                work.backward(value[group], grad[group], *(g[group] for g in grads))
        return *grads, None


def full_precision(x: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Return a context without autocast; the meta device has none."""
    return contextlib.nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)


def _dense_gradients(
    query: Tensor, key: Tensor, value: Tensor, grad: Tensor, problem: StripProblem
) -> tuple[Tensor | None, ...]:
    """Return gradients through the dense definition, with a graph of their own."""
    inputs = (query, key, value)
    wanted = [x for x in inputs if x.requires_grad]
    with full_precision(query):
        output = problem.dense(query, key, value)
        found = iter(torch.autograd.grad(output, wanted, grad, create_graph=True))
    return tuple(next(found) if x.requires_grad else None for x in inputs)


def _groups(query: Tensor) -> list[slice]:
    """Cut the N sequences into groups whose score buffer stays near the caches."""
    rows = min(STRIP_ROWS, query.shape[1])
    size = max(1, BUFFER_ELEMENTS // max(1, rows * query.shape[1]))
    return [slice(start, start + size) for start in range(0, query.shape[0], size)]


class StripProblem:
    """Levels, and how N sequences of them are computed: in strips, or densely."""

    def __init__(self, ranks: tuple[int, ...], block_sizes: tuple[int, ...], causal: bool) -> None:
        self.ranks, self.block_sizes, self.causal = ranks, block_sizes, causal

    def strips(self, query: Tensor, key: Tensor, group: slice) -> Strips:
        """Return the strips of a group of sequences."""
        return Strips(query[group], key[group], self)

    def dense(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Return what the definition gives, which can be differentiated twice."""
        return reference_attention(query, key, value, self.ranks, self.block_sizes, self.causal)


class Strips:
    """The strips of a group of sequences: softmax weights one strip at a time, and their gradients."""

    def __init__(self, query: Tensor, key: Tensor, problem: StripProblem) -> None:
        self.query, self.key = query, key
        ranks, block_sizes, causal = problem.ranks, problem.block_sizes, problem.causal
        tokens = query.shape[1]
        self.strips, coarse = plan_strips(tokens, ranks, block_sizes, causal)
        starts = [sum(ranks[:level]) for level in range(len(ranks) + 1)]
        self.fine = [(starts[level], starts[level + 1], block_sizes[level]) for level in range(coarse, len(ranks))]
        self.units = fine_scores(query, key, self.fine) if self.fine else None
        rows = max((stop - start for start, stop, _ in self.strips), default=0)
        self.buffer = query.new_empty(query.shape[0] * rows * tokens)
        self.mask = query.new_full((rows, rows), float("-inf")).triu_(1) if causal else None

    def weights(self, strip: Strip) -> Tensor:
        """Return the softmax weights of a strip, (N, rows, keys), in a buffer that the next strip reuses."""
        scores = self.scores(strip)
        return torch.softmax(scores, dim=-1, out=scores)

    def mixing(self, strip: Strip, weights: Tensor) -> Tensor:
        """Return what values are multiplied by: the weights; a subclass may drop some."""
        return weights

    def scores(self, strip: Strip) -> Tensor:
        """Return the scores of a strip, in a buffer that the next strip reuses."""
        start, stop, segments = strip
        count, rows, keys = self.query.shape[0], stop - start, segments[-1][1]
        scores = self.buffer[: count * rows * keys].view(count, rows, keys)
        query = self.query[:, start:stop]
        for first, last, width in segments:
            if width:
                torch.bmm(query[..., :width], self.key[:, first:last, :width].mT, out=scores[..., first:last])
            else:
                scores[..., first:last] = 0
        square = scores[..., start:stop]
        if self.units is not None:
            for part, units in self.pieces(square, self.units, start):
                part.add_(units)
        if self.mask is not None:
            square.add_(self.mask[:rows, :rows])
        return scores

    def pieces(self, square: Tensor, units: Tensor, start: int) -> list[tuple[Tensor, Tensor]]:
        """Pair the diagonal blocks of a strip's square with their units, the partial last one apart."""
        unit, rows = units.shape[-1], square.shape[1]
        first, whole = start // unit, rows // unit
        found = []
        if whole:
            inside = square[:, : whole * unit, : whole * unit]
            blocks = inside.unflatten(2, (whole, unit)).unflatten(1, (whole, unit)).diagonal(0, 1, 3)
            found.append((blocks, units[:, first : first + whole].permute(0, 2, 3, 1)))
        rest = rows - whole * unit
        if rest:
            found.append((square[:, -rest:, -rest:], units[:, first + whole, :rest, :rest]))
        return found

    def backward(self, value: Tensor, grad: Tensor, grad_query: Tensor, grad_key: Tensor, grad_value: Tensor) -> None:
        """Add the gradients of a group; `grad` is that of the output."""
        grad_units = None if self.units is None else torch.zeros_like(self.units)
        buffer = torch.empty_like(self.buffer)
        for strip in self.strips:
            start, stop, segments = strip
            weights = self.weights(strip)
            grad_rows, keys = grad[:, start:stop], weights.shape[2]
            grad_value[:, :keys].baddbmm_(self.mixing(strip, weights).mT, grad_rows)
            grad_scores = buffer[: weights.numel()].view_as(weights)
            torch.bmm(grad_rows, value[:, :keys].mT, out=grad_scores)
            grad_scores = self.mixing(strip, grad_scores)
            torch.ops.aten._softmax_backward_data.out(grad_scores, weights, -1, weights.dtype, grad_input=grad_scores)
            for first, last, width in segments:
                part = grad_scores[..., first:last]
                grad_query[:, start:stop, :width].baddbmm_(part, self.key[:, first:last, :width])
                grad_key[:, first:last, :width].baddbmm_(part.mT, self.query[:, start:stop, :width])
            if grad_units is not None:
                for part, units in self.pieces(grad_scores[..., start:stop], grad_units, start):
                    units.copy_(part)
        if grad_units is not None:
            self.fine_backward(grad_units, grad_query, grad_key)

    def fine_backward(self, grad_units: Tensor, grad_query: Tensor, grad_key: Tensor) -> None:
        """Add the gradients of the levels that were batched."""
        count, tokens, _ = self.query.shape
        for first, last, block in self.fine:
            blocks = _diagonal(grad_units, block).permute(0, 1, 4, 2, 3).reshape(-1, block, block)
            left, right = (_blocks(x[..., first:last], grad_units.shape[-1], block) for x in (self.query, self.key))
            for target, product in ((grad_query, torch.bmm(blocks, right)), (grad_key, torch.bmm(blocks.mT, left))):
                target[..., first:last] += product.view(count, -1, last - first)[:, :tokens]


def strip_attention(
    query: Tensor,  # (B, H, T, R)
    key: Tensor,  # (B, H, T, R)
    value: Tensor,  # (B, H, T, Dv)
    ranks: tuple[int, ...],
    block_sizes: tuple[int, ...],
    causal: bool,
) -> Tensor:
    """Return what `reference_attention` returns, in row strips; half precision is computed in float32."""
    batch, heads, tokens, _ = query.shape
    if query.numel() == 0 or value.numel() == 0:
        # The sums keep all three inputs in the graph.
        return value.new_zeros(batch, heads, tokens, value.shape[-1]) + 0 * (query.sum() + key.sum() + value.sum())
    wide = torch.promote_types(query.dtype, torch.float32)
    flat = [x.reshape(batch * heads, tokens, x.shape[-1]).to(wide) for x in (query, key, value)]
    output = StripAttention.apply(*flat, StripProblem(ranks, block_sizes, causal))
    return output.view(batch, heads, tokens, -1).to(value.dtype)
