"""Which features of a head come first: the levels of MLR attention take them in order, the first for the farthest."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


@torch.no_grad()
def rotated(weight: Tensor, bias: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """Return queries and keys with the same scores, whose first r features are the best r there can be.

    A head's scores are [x 1] A y^T with A = [Wq; bq] Wk^T, up to a term that is the same for all keys of a query, which
    a softmax does not see: that of the bias of keys, so it becomes 0. With A = U S V^T the new weights are U sqrt(S)
    and V sqrt(S), and the first r features are the best approximation of A of rank r.

    Args:
        weight: `(D, 3 D)`, queries, keys and values side by side, x @ weight.
        bias: `(3 D,)`.
        heads: H.

    Returns:
        The new weight and bias, in the dtype of the old ones.
    """
    width = weight.shape[0]
    size = width // heads
    exact = torch.cat((weight, bias[None])).double()  # (D + 1, 3 D)
    query, key, value = exact.split_with_sizes([width] * 3, dim=1)
    query, key = (part.view(width + 1, heads, size).movedim(1, 0) for part in (query.contiguous(), key.contiguous()))
    key = key[:, :-1]
    # The product is of rank D / H only: factors of it are cheaper to decompose.
    (left, upper), (right, lower) = torch.linalg.qr(query), torch.linalg.qr(key)
    u, s, v = torch.linalg.svd(upper @ lower.mT)
    root = s.sqrt()[:, None]  # (H, 1, D / H)
    new_query = (left @ u * root).movedim(0, 1).reshape(width + 1, width)
    new_key = (right @ v.mT * root).movedim(0, 1).reshape(width, width)
    new = torch.cat((new_query, nn.functional.pad(new_key, (0, 0, 0, 1)), value), dim=1)
    return new[:-1].to(weight.dtype), new[-1].to(bias.dtype)


@torch.no_grad()
def pairs_by_share(query: nn.Linear, key: nn.Linear, size: int, groups: int) -> Tensor:
    """Return the pairs of features d and d + D/2, those first whose scores are largest over all heads: `(D/2,)`.

    For inputs of unit covariance, and averaged over the angles by which RoPE turns a pair, the mean square of its score
    is half the product of the squared norms of its weights.

    Args:
        query: the projection `(H D, width)`.
        key: the projection `(Hkv D, width)`.
        size: D.
        groups: H / Hkv.
    """
    shares = _energies(query, size) * _energies(key, size).repeat_interleave(groups, dim=0)
    return shares.sum(0).argsort(descending=True, stable=True)


def _energies(layer: nn.Linear, size: int) -> Tensor:
    """Return the squared norm of the weights of each pair of features of each head, `(heads, D/2)`."""
    squares = layer.weight.double().square().sum(1)
    if layer.bias is not None:
        squares = squares + layer.bias.double().square()
    return squares.view(-1, 2, size // 2).sum(1)


def pair_order(pairs: Tensor, ranks: Sequence[int]) -> Tensor:
    """Return the order of features `(D,)` in which level l has both features of the next r_l / 2 pairs."""
    shares = pairs.split_with_sizes([rank // 2 for rank in ranks])
    return torch.cat([part + half for part in shares for half in (0, len(pairs))])
