"""Float64 references: slow, obvious, and without a line of what they check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import opt_einsum
import torch
from torch import Tensor

from mlbtc.spec import MLBTC, Level


def linear_results(spec: MLBTC, factors: Sequence[Tensor], x: Tensor, grad: Tensor) -> list[Tensor]:
    """Return y, dL/dx and every dL/dfactor of L = sum of grad * y, for x `(T, in)` and grad `(T, out)`.

    L is linear in the output gradient, in x and in each factor, so each result is the same sum of products with one
    operand left out. Levels with permutations or places are not supported.
    """
    out = int(spec.shape[0])
    arrays, x, grad = [t.detach().double().numpy() for t in factors], x.detach().double(), grad.detach().double()
    y, grad_x, grads = np.zeros((x.shape[0], out)), np.zeros(x.shape), []
    position = 0
    for level in spec.levels:
        assert (level.rows, level.columns, level.at) == (None, None, None)
        count = len(level.expression.factors)
        own = arrays[position : position + count]
        sums = _left_out(level, own, x.numpy(), grad.numpy())
        y += sums[0].reshape(y.shape)
        grad_x += sums[1].reshape(grad_x.shape)
        grads += sums[2:]
        position += count
    return [torch.from_numpy(np.ascontiguousarray(array)) for array in (y, grad_x, *grads)]


@dataclass(frozen=True, slots=True)
class MlpResults:
    """What two layers with a GELU between them give in float64.

    Attributes:
        common: y and dL/dx.
        factors: dL/dfactor for the factors of both layers.
        dense: dL/dW for the matrices of both layers.
    """

    common: list[Tensor]
    factors: list[Tensor]
    dense: list[Tensor]


def mlp_results(specs: Sequence[MLBTC], factors: Sequence[Sequence[Tensor]], x: Tensor, grad: Tensor) -> MlpResults:
    """Return the results of y = layer2(gelu(layer1(x))) for L = sum of grad * y, layer by layer."""
    x, grad = x.detach().double(), grad.detach().double()
    hidden = linear_results(specs[0], factors[0], x, torch.zeros(x.shape[0], int(specs[0].shape[0])))[0]
    # GELU: h F(h), with F the distribution of a normal variable and f its density.
    distribution = 0.5 * (1 + torch.erf(hidden / 2**0.5))
    density = torch.exp(-0.5 * hidden**2) / (2 * torch.pi) ** 0.5
    active = hidden * distribution
    y, grad_active, *second = linear_results(specs[1], factors[1], active, grad)
    grad_hidden = grad_active * (distribution + hidden * density)
    _, grad_x, *first = linear_results(specs[0], factors[0], x, grad_hidden)
    return MlpResults([y, grad_x], [*first, *second], [grad_hidden.T @ x, grad.T @ active])


def _left_out(level: Level, factors: Sequence[np.ndarray], x: np.ndarray, grad: np.ndarray) -> list[np.ndarray]:
    """Return the sums of products without the output gradient, without x, and without each factor."""
    number = {name: place for place, name in enumerate(level.expression.indices)}
    sizes = level.size_of
    tokens = len(number)
    names = [
        (tokens, *(number[i] for i in level.expression.output)),
        (tokens, *(number[i] for i in level.expression.input)),
        *(tuple(number[i] for i in factor) for factor in level.expression.factors),
    ]
    inner = [[int(sizes[i]) for i in axis] for axis in (level.expression.output, level.expression.input)]
    arrays = [grad.reshape(-1, *inner[0]), x.reshape(-1, *inner[1]), *factors]
    found = []
    for left_out in range(len(arrays)):
        kept = [place for place in range(len(arrays)) if place != left_out]
        operands = [part for place in kept for part in (arrays[place], names[place])]
        found.append(float(level.scale) * opt_einsum.contract(*operands, names[left_out]))
    return found


def attention_results(
    query: Tensor, key: Tensor, value: Tensor, grad: Tensor, ranks: Sequence[int], block_sizes: Sequence[int]
) -> list[Tensor]:
    """Return the output and dL/dquery, dL/dkey, dL/dvalue of causal MLR attention, L = sum of grad * output.

    Every block of every level adds its own matrix product to its own square of the scores.
    """
    q, k, v, g = (t.detach().double() for t in (query, key, value, grad))
    scale, tokens = sum(ranks) ** -0.5, q.shape[2]
    squares = []
    start = 0
    for rank, block in zip(ranks, block_sizes, strict=True):
        for first in range(0, tokens, block):
            squares.append((slice(first, min(first + block, tokens)), slice(start, start + rank)))
        start += rank
    scores = torch.zeros(*q.shape[:3], tokens, dtype=torch.float64)
    for rows, level in squares:
        scores[..., rows, rows] += scale * q[..., rows, level] @ k[..., rows, level].mT
    scores += torch.full((tokens, tokens), float("-inf"), dtype=torch.float64).triu(1)
    scores -= scores.amax(-1, keepdim=True)
    weights = scores.exp_()
    weights /= weights.sum(-1, keepdim=True)
    output = weights @ v
    grad_value = weights.mT @ g
    # d softmax: w * (dw - sum of w * dw), and the inner sum is grad . output.
    grad_scores = weights * (g @ v.mT - (g * output).sum(-1, keepdim=True))
    grad_query, grad_key = torch.zeros_like(q), torch.zeros_like(k)
    for rows, level in squares:
        square = scale * grad_scores[..., rows, rows]
        grad_query[..., rows, level] += square @ k[..., rows, level]
        grad_key[..., rows, level] += square.mT @ q[..., rows, level]
    return [output, grad_query, grad_key, grad_value]


def attention_results_by_rows(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    grad: Tensor,
    ranks: Sequence[int],
    block_sizes: Sequence[int],
    rows: int = 1024,
) -> list[Tensor]:
    """Return what `attention_results` returns, where the tensors are, and with the scores of `rows` queries at a time.

    A level adds its product to the pairs whose positions, divided by its block size, are equal.
    """
    found = [torch.zeros_like(x, dtype=torch.float64) for x in (value, query, key, value)]
    for b in range(query.shape[0]):
        for h in range(query.shape[1]):
            whole = [x[b, h].detach().double() for x in (query, key, value, grad)]
            for first in range(0, query.shape[2], rows):
                _add_rows(first, min(first + rows, query.shape[2]), whole, [x[b, h] for x in found], ranks, block_sizes)
    return found


def _add_rows(
    first: int, stop: int, whole: Sequence[Tensor], found: Sequence[Tensor], ranks: Sequence[int],
    block_sizes: Sequence[int],
) -> None:  # fmt: skip
    """Add what the queries first, ..., stop - 1 of one head contribute to its output and gradients."""
    q, k, v, g = (x[:stop] for x in whole)
    q, g = q[first:], g[first:]
    places = torch.arange(stop, device=q.device)
    mine, scale = places[first:, None], sum(ranks) ** -0.5
    levels, start = [], 0
    for rank, block in zip(ranks, block_sizes, strict=True):
        levels.append((slice(start, start + rank), mine // block == places // block))
        start += rank
    scores = torch.zeros(stop - first, stop, dtype=torch.float64, device=q.device)
    for level, same in levels:
        scores += torch.where(same, scale * q[:, level] @ k[:, level].mT, 0.0)
    weights = torch.softmax(scores.masked_fill(places > mine, float("-inf")), dim=-1)
    output = weights @ v
    grad_scores = weights * (g @ v.mT - (g * output).sum(-1, keepdim=True))
    found[0][first:stop] = output
    for level, same in levels:
        shared = torch.where(same, scale * grad_scores, 0.0)
        found[1][first:stop, level] = shared @ k[:, level]
        found[2][:stop, level] += shared.mT @ q[:, level]
    found[3][:stop] += weights.mT @ g


def decode_result(
    query: Tensor, key: Tensor, value: Tensor, ranks: Sequence[int], block_sizes: Sequence[int]
) -> Tensor:
    """Return what the last token attends to, for its query `(B, H, 1, R)` and the keys and values of all tokens."""
    q, k, v = (t.detach().double() for t in (query, key, value))
    last = k.shape[2] - 1
    scores = torch.zeros(*k.shape[:3], dtype=torch.float64, device=k.device)
    start = 0
    for rank, block in zip(ranks, block_sizes, strict=True):
        first, level = last - last % block, slice(start, start + rank)
        scores[..., first:] += torch.einsum("bhor,bhjr->bhj", q[..., level], k[..., first:, level])
        start += rank
    weights = torch.softmax(scores * start**-0.5, dim=-1)
    return torch.einsum("bhj,bhjd->bhd", weights, v).unsqueeze(2)
