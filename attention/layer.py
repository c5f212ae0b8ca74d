"""What `mlbtc.compile` adds to an emitted attention layer: the fastest kernels, a cache, and what it runs."""

from __future__ import annotations

import types
from collections.abc import Callable
from functools import cache
from typing import Any, overload

import torch
from torch import Tensor, nn

from mlbtc.attention.block_ids import Blocks
from mlbtc.attention.cache import AttentionCache
from mlbtc.attention.choice import Choice, choose_backend
from mlbtc.attention.explanation import Explanation, explain_layer
from mlbtc.attention.functional import mlr_attention
from mlbtc.attention.grouped import GroupedCache
from mlbtc.attention.heads import attended_ranks
from mlbtc.attention.kernels import feature_attention
from mlbtc.attention.sequences import SequenceCache
from mlbtc.attention.window_cache import GlobalWindowCache
from mlbtc.codegen.loading import load_source
from mlbtc.errors import SpecError
from mlbtc.spec.attention import AttentionSpec

_SDPA = {
    "standard": "standard attention is scaled_dot_product_attention",
    "sliding_window": "blocks of queries with the keys of their windows, one scaled_dot_product_attention",
    "global_sliding_window": "one scaled_dot_product_attention over all keys, one over the keys of windows",
}


def attend(
    query: Tensor,  # (B, H, T, R), scales are part of it
    key: Tensor,  # (B, H, T, R)
    value: Tensor,  # (B, H, T, Dv)
    ranks: tuple[int, ...],
    block_sizes: tuple[int, ...],
    causal: bool,
    block_ids: Blocks | None = None,
    backend: str = "auto",
) -> Tensor:
    """Attend with the fastest backend, in the place of the kernels of the emitted file."""
    # The layer's first level is the whole sequence, whose length need not be a multiple of the next block.
    blocks = None if block_ids is not None else (None, *block_sizes[1:])
    return mlr_attention(
        query, key, value, ranks, blocks, block_ids=block_ids, causal=causal, scale=1.0, backend=backend
    )


def attend_features(query: Tensor, key: Tensor, value: Tensor, causal: bool) -> Tensor:
    """Attend over all features of a pair with the fastest backend, in the place of `feature_attention`."""
    tokens, features = query.shape[2:]
    choice = choose_backend(tokens, tokens, (features,), (tokens,), device=query.device, dtype=query.dtype)
    if choice.backend != "cpp" or not query.numel():
        return feature_attention(query, key, value, causal)
    return mlr_attention(query, key, value, (features,), (None,), causal=causal, backend="cpp")


class CompiledAttention(nn.Module):
    """An emitted layer with the kernels of `mlbtc.attention` in the place of its own.

    Attributes:
        spec: what the layer was made from.
        source: the emitted file.
        backend: of `mlr_attention`, "auto" or the one that was compiled for.
    """

    backend: str = "auto"
    spec: AttentionSpec
    source: str
    attend: Callable[..., Tensor] = staticmethod(attend)
    attend_features: Callable[..., Tensor] = staticmethod(attend_features)

    def choice(self, tokens: int | None = None) -> Choice:
        """Return the backend for sequences of `tokens` tokens (the context by default), and why it is taken."""
        if self.spec.groups:
            chosen = [f"{part.heads} x {part.variant}, {self._choice(part, tokens)}" for part in self.spec.groups]
            return Choice("groups", "; ".join(chosen))
        return self._choice(self.spec, tokens)

    def _choice(self, spec: AttentionSpec, tokens: int | None) -> Choice:
        weight = next(self.parameters())
        if self.backend != "auto" and spec.window is None:
            return Choice(self.backend, "asked for")
        if spec.variant in _SDPA:
            return Choice("sdpa", _SDPA[spec.variant])
        tokens, ranks = spec.context if tokens is None else tokens, attended_ranks(spec)
        blocks = (max(tokens, spec.block_sizes[0]), *spec.block_sizes[1:])
        found = choose_backend(tokens, tokens, ranks, blocks, device=weight.device, dtype=weight.dtype)
        if spec.scores and len(ranks) == 1 and found.backend != "cpp":
            return Choice("sdpa", f"one call over {ranks[0]} features")
        return found

    @overload
    def explain(self, tokens: int | None = None) -> str: ...

    @overload
    def explain(self, tokens: Tensor) -> Explanation: ...

    def explain(self, tokens: int | Tensor | None = None) -> str | Explanation:
        """Return what the layer is and what it runs, or what each of its levels sees of some tokens.

        Args:
            tokens: how many there are, the context by default; or the sequences themselves, `(B, T, width)`.

        Returns:
            A text; with sequences an `Explanation`: the share of the attention mass, entropy and scores of each head
            and level. It takes memory for B T^2 pairs, and leaves the layer as it is.

        Raises:
            SpecError: tokens are neither, have another shape, or too many pairs; or scores are not finite.
        """
        if isinstance(tokens, Tensor):
            return explain_layer(self, tokens)
        if tokens is not None and not isinstance(tokens, int):
            raise SpecError(f"explain takes a number of tokens or a tensor of them, found {type(tokens).__name__}")
        return f"{self.spec}\nbackend for {tokens or self.spec.context} tokens: {self.choice(tokens)}"

    def new_cache(
        self, batch_size: int, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> SequenceCache | GroupedCache:
        """Return an empty cache for `layer(x, cache=cache)`, where x holds the next tokens of every sequence.

        Args:
            batch_size: the number of sequences.
            dtype: of keys and values; that of the parameters by default.
            device: of keys and values; that of the parameters by default.

        Raises:
            SpecError: the layer is not causal.
        """
        spec, weight = self.spec, next(self.parameters())
        if not spec.causal:
            raise SpecError("a cache needs causal attention: the tokens of this layer also see later ones")
        kind: dict[str, Any] = {"dtype": dtype or weight.dtype, "device": device or weight.device}
        caches = [_cache_of(part, batch_size, kind) for part in spec.parts]
        return GroupedCache(caches) if spec.groups else caches[0]

    def __reduce__(self) -> tuple[Any, ...]:
        # The class is made at run time: unpickling makes it again from the source.
        return _blank, (self.source, type(self).__name__), self.__dict__


def _cache_of(spec: AttentionSpec, batch: int, kind: dict[str, Any]) -> SequenceCache:
    """Return an empty cache for heads that attend alike."""
    ranks, width, window = attended_ranks(spec), spec.head_dimension, spec.window
    if spec.variant == "global_sliding_window":
        assert window is not None
        return GlobalWindowCache(batch, spec.heads, ranks, window, width, published=spec.published, **kind)
    return AttentionCache(batch, spec.heads, ranks, (None, *spec.block_sizes[1:]), width, window=window, **kind)


@cache
def layer_class(source: str, name: str) -> type[CompiledAttention]:
    """Return the class `name` of an emitted file with `CompiledAttention` in front of it."""
    emitted = getattr(load_source(source), name)
    return types.new_class(
        name,
        (CompiledAttention, emitted),
        exec_body=lambda body: body.update(__doc__=emitted.__doc__, __module__=emitted.__module__),
    )


def _blank(source: str, name: str) -> CompiledAttention:
    made = layer_class(source, name)
    return made.__new__(made)
