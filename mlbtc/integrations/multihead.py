"""`MultiheadAttention`: MLR attention with the arguments, the parameters and the calls of `nn.MultiheadAttention`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlbtc.attention import BACKENDS
from mlbtc.attention.kernels.reference import block_scores
from mlbtc.errors import BackendError, SpecError
from mlbtc.integrations.levels import Levels, attend, check_heads
from mlbtc.integrations.masks import OTHER, boolean, positions, split_mask


class MultiheadAttention(nn.MultiheadAttention):
    """Multi-head attention whose heads share their features among nested blocks of tokens.

    Parameters and `state_dict` are those of `nn.MultiheadAttention`; with one level so are the results.

    Args:
        embed_dim: the model width.
        num_heads: H, divides embed_dim.
        dropout: the probability with which a weight is dropped in training.
        bias: whether projections have a bias.
        add_bias_kv: must be False, a key that belongs to no token is in no block.
        add_zero_attn: must be False, for the same reason.
        kdim: features of keys, embed_dim by default.
        vdim: features of values, embed_dim by default.
        batch_first: whether inputs are (batch, tokens, features) and not (tokens, batch, features).
        device: where parameters are made.
        dtype: of the parameters.
        ranks: r_1, ..., r_L with sum embed_dim / num_heads; None is one level of all.
        block_sizes: b_1, ..., b_L in tokens, each a multiple of the next; the first must be None, the whole sequence.
        backend: of `mlbtc.attention.mlr_attention`.

    Raises:
        SpecError: ranks and block_sizes do not fit, or keys without a token are asked for.
        BackendError: the backend is unknown.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        ranks: Sequence[int] | None = None,
        block_sizes: Sequence[int | None] | None = None,
        backend: str = "auto",
    ) -> None:
        if add_bias_kv or add_zero_attn:
            raise SpecError("add_bias_kv and add_zero_attn add keys that belong to no token: they must be False")
        if backend not in BACKENDS:
            raise BackendError(f"unknown backend {backend!r}; available in this version: {', '.join(BACKENDS)}")
        super().__init__(
            embed_dim, num_heads, dropout, bias, kdim=kdim, vdim=vdim, batch_first=batch_first, device=device,
            dtype=dtype,
        )  # fmt: skip
        self.levels, self.backend = _levels(ranks, block_sizes, self.head_dim), backend

    def _reset_parameters(self) -> None:
        # Layers of torch that find this attribute true predict from the parameters, without a call of `forward`.
        self._qkv_same_embed_dim = self.in_proj_weight is not None
        super()._reset_parameters()
        self._qkv_same_embed_dim = False

    def forward(
        self,
        query: Tensor,  # (T, B, D), (B, T, D) where batch_first, or (T, D)
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,  # (B, S) or (S,)
        need_weights: bool = True,
        attn_mask: Tensor | None = None,  # (T, S) or (B H, T, S)
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend as `nn.MultiheadAttention` does, by levels.

        With several levels a token's block follows from the number of keys before it that are not padding, so that
        padding on either side does not move it. A query that sees no key gets 0 from attention.

        Args:
            query: unbatched inputs have no batch axis.
            key: with several levels as many tokens as query.
            value: as many tokens as key.
            key_padding_mask: True, or minus infinity, for keys that are padding.
            need_weights: whether weights are returned, too; they are dense, and False is faster by far.
            attn_mask: True, or minus infinity, for pairs that may not see each other: a causal mask, which may hide
                keys from all queries. Other masks are refused.
            average_attn_weights: whether weights are the mean over heads.
            is_causal: whether attention is causal; attn_mask may be left out then.

        Returns:
            The output, in the layout of query, and the weights `(B, T, S)` or `(B, H, T, S)`, or None.

        Raises:
            SpecError: the inputs or masks do not fit, or a mask is not causal.
        """
        if query.is_nested or key.is_nested or value.is_nested:
            raise SpecError(
                "nested tensors are not supported: make nn.TransformerEncoder with enable_nested_tensor=False"
            )
        single = query.dim() == 2
        if not query.dim() == key.dim() == value.dim() or query.dim() not in (2, 3):
            found = ", ".join(str(tuple(x.shape)) for x in (query, key, value))
            raise SpecError(f"query, key and value are (tokens, features), or with a batch; found {found}")
        turned = not single and not self.batch_first
        batched = [x[None] if single else x.transpose(0, 1) if turned else x for x in (query, key, value)]
        heads = self._projected(*batched)
        if key_padding_mask is not None and single:
            key_padding_mask = key_padding_mask[None]
        causal, visible = self._masks(heads, key_padding_mask, attn_mask, is_causal)
        y, weights = (self._weighed if need_weights else self._attended)(*heads, causal, visible)
        y = self.out_proj(y.transpose(1, 2).flatten(2))
        y = y[0] if single else y.transpose(0, 1) if turned else y
        if weights is None:
            return y, None
        weights = weights.mean(1) if average_attn_weights else weights
        return y, weights[0] if single else weights

    def _projected(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the heads `(B, H, T, D / H)` of the inputs `(B, T, D)`."""
        own: tuple[Tensor, ...] = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        weights = own if self.in_proj_weight is None else self.in_proj_weight.chunk(3)
        biases = (None, None, None) if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        projected = (F.linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True))
        query, key, value = (x.view(*x.shape[:2], self.num_heads, self.head_dim).transpose(1, 2) for x in projected)
        return query, key, value

    def _masks(
        self, heads: tuple[Tensor, ...], padding: Tensor | None, mask: Tensor | None, causal: bool
    ) -> tuple[bool, Tensor | None]:
        """Return whether attention is causal, and which keys may be seen `(B, S)`, None for all."""
        batch, queries, keys = heads[0].shape[0], heads[0].shape[2], heads[1].shape[2]
        if queries != keys and not self.levels.one:
            raise SpecError(f"blocks are of tokens that are query and key, found {queries} queries and {keys} keys")
        visible: Tensor | None = None
        if mask is not None:
            shape = tuple(mask.shape)
            if shape not in ((queries, keys), (batch * self.num_heads, queries, keys)):
                raise SpecError(f"attn_mask is (T, S) or (B H, T, S) for T {queries} and S {keys}, found {shape}")
            shown = _shown(mask).view(-1, self.num_heads if mask.dim() == 3 else 1, queries, keys)
            if not torch.equal(shown, shown[:, :1].expand_as(shown)):
                raise SpecError(OTHER)
            causal, visible = split_mask(shown[:, 0])
        elif causal and queries > keys:
            raise SpecError(f"causal queries are the last of the keys, found {queries} queries and {keys} keys")
        if padding is not None:
            if padding.shape != (batch, keys):
                raise SpecError(f"key_padding_mask is {(batch, keys)}, (batch, keys); found {tuple(padding.shape)}")
            visible = _shown(padding) if visible is None else visible & _shown(padding)
        if visible is None or bool(visible.all()):
            return causal, None
        return causal, visible.expand(batch, keys)

    def _attended(
        self, query: Tensor, key: Tensor, value: Tensor, causal: bool, visible: Tensor | None
    ) -> tuple[Tensor, None]:
        dropout = self.dropout if self.training else 0.0
        if query.shape[2] > key.shape[2] and self.backend == "auto":
            # More queries than keys: there is one level, and attention is not causal.
            mask = None if visible is None else visible[:, None, None]
            return F.scaled_dot_product_attention(query, key, value, mask, dropout), None
        common: dict[str, Any] = {"causal": causal, "visible": visible, "dropout": dropout, "backend": self.backend}
        return attend(query, key, value, self.levels, **common), None

    def _weighed(
        self, query: Tensor, key: Tensor, value: Tensor, causal: bool, visible: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        query = query * self.head_dim**-0.5
        if query.shape[2] > key.shape[2]:
            scores = query @ key.mT
        else:
            places = torch.arange(key.shape[2], device=key.device)
            own = places if visible is None else positions(visible)[:, None]
            blocks = [own * 0 if block is None else own // block for block in self.levels.block_sizes]
            scores = block_scores(query, key, self.levels.ranks, blocks, causal)
        if visible is not None:
            scores = scores.masked_fill(~visible[:, None, None], float("-inf"))
        # The row of a query that sees no key is all minus infinity.
        weights = torch.softmax(scores, dim=-1).masked_fill(scores == float("-inf"), 0)
        weights = F.dropout(weights, self.dropout, self.training)
        return weights @ value, weights


def _shown(mask: Tensor) -> Tensor:
    """Return which keys a mask of torch shows: one that is bool says what is hidden."""
    return ~mask if mask.dtype == torch.bool else boolean(mask)


def _levels(ranks: Sequence[int] | None, block_sizes: Sequence[int | None] | None, head_size: int) -> Levels:
    if ranks is None:
        if block_sizes is not None:
            raise SpecError("block_sizes need ranks, one for each")
        return Levels((head_size,), (None,))
    sizes = [None] if block_sizes is None else list(block_sizes)
    if len(sizes) != len(ranks) or not sizes or sizes[0] is not None or None in sizes[1:]:
        raise SpecError(
            f"each rank needs a block size, the first of which is None, the whole sequence; found {list(ranks)} and "
            f"{block_sizes}"
        )
    levels = Levels(tuple(ranks), tuple(sizes))
    check_heads(levels, head_size, "the layer")
    return levels
