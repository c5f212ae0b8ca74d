"""What a layer attends with, caught on the way: dense scores in the place of its kernels, one head after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mlbtc.attention.heads import attended_ranks
from mlbtc.attention.kernels.reference import reference_scores
from mlbtc.spec.attention import AttentionSpec

See = Callable[[int, AttentionSpec, tuple[Tensor, ...], Tensor], None]
"""Is shown each head: its number, its spec, the scores of its softmaxes and its weights, `(B, T, T)` each."""


@torch.no_grad()
def record(layer: Any, x: Tensor, see: See) -> Tensor:  # (B, T, width)
    """Run a compiled attention layer on its own weights, show every head to `see`, and return the layer's output.

    The layer stays as it is: what would attend is replaced in a copy that shares the weights, or by a stand-in for a
    cache. Norms, rotations and scales are the layer's own. Scores are those of `dense_scores`, held for one head at a
    time. Hooks of the layer itself don't run.

    Args:
        layer: of `compile_attention`.
        x: whole sequences.
        see: is shown the heads in order.
    """
    spec: AttentionSpec = layer.spec
    recorders, first = [], 0
    for part in spec.parts:
        recorders.append(Recorder(part, first, x.shape[0], see))
        first += part.heads
    if spec.causal:
        return layer.forward(x, cache=_Cache(recorders) if spec.groups else recorders[0])
    # Not by copy.copy, which parametrised modules refuse.
    own = object.__new__(type(layer))
    own.__dict__.update(layer.__dict__)
    following = iter(recorders)
    own.attend = lambda query, key, value, *_: next(following).attend(query, key, value, scale=1.0)
    own.attend_features = lambda query, key, value, *_: next(following).attend(query, key, value)
    with _InPlaceOfSdpa(following):
        return own.forward(x)


class Recorder:
    """Heads that attend alike, with the part of a cache's interface that layers use.

    Args:
        spec: how they attend.
        first: the number of the first of them.
        batch: the number of sequences.
        see: is shown each head.
    """

    def __init__(self, spec: AttentionSpec, first: int, batch: int, see: See) -> None:
        self.spec, self.first, self.see = spec, first, see
        self.lengths = [0] * batch

    def attend(
        self,
        query: Tensor,  # (B, H, T, R)
        key: Tensor,  # (B, H, T, R)
        value: Tensor,  # (B, H, T, Dv)
        lengths: Sequence[int] | None = None,
        scale: float | None = None,
    ) -> Tensor:
        """Show the heads and return what they read, `(B, H, T, Dv)`."""
        wide = torch.float32 if query.device.type == "mps" else torch.float64
        read = []
        for head in range(query.shape[1]):
            own_query, own_key, own_value = (x[:, head].to(wide) for x in (query, key, value))
            scores = dense_scores(self.spec, own_query, own_key, scale)
            weights = mixed_weights(self.spec, scores)
            self.see(self.first + head, self.spec, scores, weights)
            read.append(weights @ own_value)
        return torch.stack(read, 1).to(value.dtype)


class _Cache:
    """What a mixed layer takes for its cache."""

    def __init__(self, groups: Sequence[Recorder]) -> None:
        self.groups = groups
        self.lengths = groups[0].lengths


class _InPlaceOfSdpa(TorchFunctionMode):
    """Hands calls of `scaled_dot_product_attention` to the next of some recorders."""

    def __init__(self, following: Iterator[Recorder]) -> None:
        super().__init__()
        self.following = following

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is nn.functional.scaled_dot_product_attention:
            return next(self.following).attend(*args[:3])
        return func(*args, **(kwargs or {}))


def dense_scores(
    spec: AttentionSpec,
    query: Tensor,  # (..., T, R)
    key: Tensor,  # (..., T, R)
    scale: float | None = None,
) -> tuple[Tensor, ...]:
    """Return the scores of each softmax of a head, `(..., T, T)`; minus infinity where a query does not see a key.

    There is one softmax, or with global attention beside a window two: over all earlier keys and over the window.

    Args:
        spec: how the head attends; not mixed.
        query: as it attends.
        key: likewise.
        scale: of the scores; None for 1 / sqrt(features) of each softmax.
    """
    tokens = query.shape[-2]
    if spec.variant == "global_sliding_window":
        parts = zip(query.split(spec.ranks, -1), key.split(spec.ranks, -1), (None, spec.window), strict=True)
        return tuple(_scores(q, k, (q.shape[-1],), (tokens,), True, window, scale) for q, k, window in parts)
    blocks = level_blocks(spec, tokens)
    return (_scores(query, key, attended_ranks(spec), blocks, spec.causal, spec.window, scale),)


def _scores(
    query: Tensor,
    key: Tensor,
    ranks: Sequence[int],
    block_sizes: Sequence[int],
    causal: bool,
    window: int | None,
    scale: float | None,
) -> Tensor:
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    scores = reference_scores(query * factor, key, ranks, block_sizes, causal)
    return scores if window is None else scores.masked_fill(distances(query) >= window, float("-inf"))


def mixed_weights(spec: AttentionSpec, scores: Sequence[Tensor]) -> Tensor:
    """Return the weights that a head's values have; two softmaxes are averaged, or added where the spec says so."""
    weights = torch.stack([torch.softmax(one, dim=-1) for one in scores]).sum(0)
    return weights if spec.published else weights / len(scores)


def level_blocks(spec: AttentionSpec, tokens: int) -> tuple[int, ...]:
    """Return the tokens of a block of each level; the first level is the whole sequence, however long."""
    return (max(tokens, spec.block_sizes[0]), *spec.block_sizes[1:])


def distances(x: Tensor) -> Tensor:  # (..., T, R)
    """Return how far each key lies behind each query, `(T, T)`."""
    positions = torch.arange(x.shape[-2], device=x.device)
    return positions[:, None] - positions
