"""The functions by which models of transformers attend: one for attention, one for masks, under one name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mlbtc.attention import BACKENDS
from mlbtc.errors import BackendError, SpecError
from mlbtc.integrations.levels import LEVELS, ORDER, Levels, attend
from mlbtc.integrations.library import part
from mlbtc.integrations.masks import OTHER, boolean, split_mask

_MEANING_MORE = {
    "cu_seq_lens_q": "packed sequences and continuous batching",
    "cu_seq_lens_k": "packed sequences and continuous batching",
    "softcap": "a cap of scores",
    "s_aux": "attention sinks",
    "position_bias": "a bias of positions",
    "head_mask": "a mask of heads",
    "output_attentions": "weights as an output",
}
"""Arguments of attention functions that would change the result or add to it, and what they stand for."""


def register(name: str = "mlbtc", *, backend: str = "auto") -> str:
    """Make MLR attention known to transformers, for `attn_implementation=name`.

    Layers that `convert_attention` gave levels attend by them; others compute what the library's "sdpa" computes, with
    mlbtc's kernels. Caches are the library's, dynamic and static ones.

    Args:
        name: under which the functions for attention and masks are registered; a second call replaces them.
        backend: of `mlbtc.attention.mlr_attention`.

    Returns:
        The name.

    Raises:
        BackendError: transformers is not installed or too old, or the backend is unknown.
        SpecError: the name means something else to the library.
    """
    # The library looks for these words in names, and takes one with a slash for a kernel to download.
    if not name.isidentifier() or any(word in name for word in ("flash", "flex", "sdpa", "eager")):
        raise SpecError(f"the name must be a word without flash, flex, sdpa or eager in it, found {name!r}")
    if backend not in BACKENDS:
        raise BackendError(f"unknown backend {backend!r}; available in this version: {', '.join(BACKENDS)}")
    functions, masks = part("modeling_utils"), part("masking_utils")
    functions.AttentionInterface.register(name, partial(attention, backend=backend))
    masks.AttentionMaskInterface.register(name, partial(attention_mask, library=masks))
    return name


def attention(
    module: nn.Module,
    query: Tensor,  # (B, H, Tq, D)
    key: Tensor,  # (B, Hkv, Tk, D)
    value: Tensor,  # (B, Hkv, Tk, Dv)
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    backend: str = "auto",
    **more: Any,
) -> tuple[Tensor, None]:
    """Attend as transformers asks a function of its `AttentionInterface` to.

    Args:
        module: the attention layer; what `convert_attention` gave it says how features are divided.
        query: after positions were added.
        key: those of the cache, too; a static cache is cut to the tokens that it has.
        value: as many tokens as keys.
        attention_mask: None, no padding; `(B, tokens)`, causal with padding, as `attention_mask` makes it; or a mask
            `(B, 1, Tq, Tk)` that is causal or bidirectional, with padding.
        dropout: the probability with which a weight is dropped.
        scaling: of the scores, None for 1 / sqrt(D).
        is_causal: whether attention without a mask is causal; None asks the module.
        backend: of `mlr_attention`.
        more: what other functions take; refused where it would change the result.

    Returns:
        `(B, Tq, H, Dv)`, and None in the place of weights.

    Raises:
        SpecError: the mask or an argument asks for something that levels of blocks do not do.
    """
    for name, what in _MEANING_MORE.items():
        if more.get(name) is not None and more[name] is not False:
            raise SpecError(f"MLR attention does not do {what} ({name}); use another attn_implementation")
    levels = getattr(module, LEVELS, None) or Levels((query.shape[3],), (None,))
    causal = bool(getattr(module, "is_causal", True) if is_causal is None else is_causal)
    causal, visible, tokens = _read(attention_mask, causal, levels, query, key)
    key, value = key[:, :, :tokens], value[:, :, :tokens]
    queries = query.shape[2]
    if queries > tokens or (queries < tokens and not causal and not levels.one):
        raise SpecError(
            f"queries and keys must be the same tokens, or the last of them where attention is causal; found {queries} "
            f"queries and {tokens} keys, as in cross-attention; use another attn_implementation"
        )
    query, key, value = _of_one_dtype(query, key, value)
    order = getattr(module, ORDER, None)
    if order is not None:
        query, key = query.index_select(3, order), key.index_select(3, order)
    y = attend(
        query, key, value, levels, causal=causal, visible=visible, scale=scaling, dropout=dropout, backend=backend,
        # What stands behind a sequence is padding as query, too.
        skip_padding=causal,
    )  # fmt: skip
    return y.transpose(1, 2).contiguous(), None


def attention_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int | Tensor = 0,
    kv_offset: int | Tensor = 0,
    mask_function: Callable[..., Tensor] | None = None,
    attention_mask: Tensor | None = None,  # (B, tokens) bool
    device: torch.device | str = "cpu",
    *,
    library: Any,
    **options: Any,
) -> Tensor | None:
    """Return what `attention` needs to know of a mask, as transformers asks a function of `AttentionMaskInterface` to.

    Args:
        batch_size: B.
        q_length: the number of queries.
        kv_length: the number of keys; in a static cache more than there are tokens.
        q_offset: the position of the first query.
        kv_offset: the position of the first key.
        mask_function: which pairs may see each other; None is causal.
        attention_mask: True for tokens that are not padding.
        device: where the mask is made.
        library: the module `transformers.masking_utils`.
        options: of the library's own function of this kind.

    Returns:
        None for causal attention without padding; for causal attention `(B, tokens)` bool, where the number of tokens
        says how much of a static cache is in use; and for bidirectional attention `(B, 1, Tq, Tk)` bool.

    Raises:
        SpecError: the mask is neither causal nor bidirectional with padding, or belongs to a cache whose positions are
            not known.
    """
    # A static cache has its length in a tensor: reading it breaks the graph of a compiled model, and what follows runs.
    first, tokens = int(kv_offset), int(q_offset) + q_length
    if first:
        raise SpecError(f"MLR attention needs all keys, this cache dropped the first {first}, as sliding windows do")
    shown = None if attention_mask is None else _padded(attention_mask, kv_length)
    if mask_function is None or mask_function is library.causal_mask_function:
        return _causal_mask(shown, batch_size, tokens, kv_length, device)
    if mask_function is not library.bidirectional_mask_function:
        dense = library.sdpa_mask(
            batch_size=batch_size, q_length=q_length, kv_length=kv_length, q_offset=q_offset,
            mask_function=mask_function, attention_mask=attention_mask, device=device,
            **options | {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False},
        )  # fmt: skip
        if bool(dense[..., tokens:].any()):
            raise SpecError(OTHER)
        causal, shown = split_mask(dense[:, 0, :, :tokens])
        if causal or q_length == 1:
            return _causal_mask(shown, batch_size, tokens, kv_length, device)
    if shown is None:
        shown = torch.ones(batch_size, kv_length, dtype=torch.bool, device=device)
    return shown[:, None, None].expand(batch_size, 1, q_length, kv_length)


def _causal_mask(
    padding: Tensor | None, batch: int, tokens: int, keys: int, device: torch.device | str
) -> Tensor | None:
    """Return the visible keys `(B, tokens)`, None if these are all."""
    if padding is None:
        return None if tokens == keys else torch.ones(batch, tokens, dtype=torch.bool, device=device)
    padding = padding[:, :tokens]
    # A tracer does not know the values, and must not be asked for them.
    whole = tokens == keys and not torch.compiler.is_compiling() and bool(padding.all())
    return None if whole else padding


def _padded(mask: Tensor, keys: int) -> Tensor:
    """Return `(B, keys)` bool; what a mask does not reach is hidden, as in the library's own functions."""
    return nn.functional.pad(mask.bool(), (0, max(0, keys - mask.shape[1])))[:, :keys]


def _read(
    mask: Tensor | None, causal: bool, levels: Levels, query: Tensor, key: Tensor
) -> tuple[bool, Tensor | None, int]:
    """Return whether attention is causal, the visible keys or None for all, and how many keys there are."""
    batch, queries, keys = query.shape[0], query.shape[2], key.shape[2]
    if mask is None:
        return causal, None, keys
    if mask.dtype == torch.bool and mask.dim() == 2 and mask.shape[0] == batch and queries <= mask.shape[1] <= keys:
        return True, mask, mask.shape[1]
    if mask.dim() != 4 or mask.shape[0] not in (1, batch) or mask.shape[2:] != (queries, keys):
        raise SpecError(
            f"a mask is (batch, keys) of bool or (batch, 1, queries, keys) with batch {batch}, {queries} queries and "
            f"{keys} keys; found {tuple(mask.shape)} of {mask.dtype}"
        )
    if queries != keys and not levels.one:
        raise SpecError(
            "a mask (batch, 1, queries, keys) does not say where in the sequence its queries are, which several levels "
            "need to know: give the mask of padding (batch, keys) with a cache"
        )
    shown = boolean(mask).expand(batch, -1, queries, keys)
    if shown.shape[1] != 1 and not torch.equal(shown, shown[:, :1].expand_as(shown)):
        raise SpecError(OTHER)
    # Every query has the same row in memory: made so for bidirectional attention.
    causal, seen = (False, shown[:, 0, 0]) if mask.stride(2) == 0 else split_mask(shown[:, 0])
    whole = not torch.compiler.is_compiling() and bool(seen.all())
    return causal, None if whole else seen, keys


def _of_one_dtype(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the tensors in the dtype of autocast, else in that of the values: rotation can leave float32 behind."""
    kind = query.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else value.dtype
    return query.to(dtype), key.to(dtype), value.to(dtype)
