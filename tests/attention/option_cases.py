"""Options for the tests of attention kernels: drawn, passed on, and defined by dense matrices."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlbtc.attention import mlr_attention
from mlbtc.attention.kernels import draw_seed
from tests.attention.cases import TOLERANCES, Layout, draw, gradients
from tests.attention.oracle import Options, weight_hash

EVERY = ("lengths", "mask", "slopes", "dropout")


def draw_options(layout: Layout, kind: tuple[str, ...], seed: int = 0) -> Options:
    """Return options of the kinds; some sequences are empty, some see no key at their start."""
    random = np.random.default_rng(seed)
    left = random.integers(0, layout.tokens + 1, layout.batch)
    mask = (random.random((layout.batch, layout.tokens)) < 0.7) & (np.arange(layout.tokens) >= left[:, None] // 2)
    torch.manual_seed(seed)
    return Options(
        random.integers(0, layout.tokens + 1, layout.batch).tolist() if "lengths" in kind else None,
        mask.tolist() if "mask" in kind else None,
        random.random(layout.heads).tolist() if "slopes" in kind else None,
        0.3 if "dropout" in kind else 0.0,
        int(draw_seed("cpu")),
    )


def call(inputs: list[Tensor], layout: Layout, options: Options, seed: int = 0, **arguments: Any) -> Tensor:
    """Call `mlr_attention` so that it draws the seed of `draw_options`; `block_ids` take the place of the sizes."""
    torch.manual_seed(seed)
    blocks = None if "block_ids" in arguments else layout.blocks
    return mlr_attention(
        *inputs,
        layout.ranks,
        blocks,
        key_lengths=options.lengths,
        key_mask=None
        if options.mask is None
        else torch.tensor(options.mask, dtype=torch.bool).reshape(layout.batch, layout.tokens),
        alibi=None if options.slopes is None else torch.tensor(options.slopes, dtype=torch.float64),
        dropout=options.dropout,
        **arguments,
    )


def dense(inputs: list[Tensor], layout: Layout, causal: bool, options: Options, ids: list[Any] | None = None) -> Tensor:
    """Return the output in float64 from T x T matrices, for long sequences; see `oracle` for short ones.

    With `ids`, a level holds a pair if both tokens have the same number there.
    """
    groups = layout.heads // layout.key_heads
    query, key, value = inputs[0], *(x.repeat_interleave(groups, 1) for x in inputs[1:])
    keys = torch.arange(layout.tokens)
    rows = keys[layout.tokens - query.shape[2] :]
    scores, start = torch.zeros(*query.shape[:3], layout.tokens, dtype=torch.float64), 0
    for rank, block in zip(layout.ranks, ids or layout.blocks, strict=True):
        if isinstance(block, Tensor):
            own = block.expand(layout.batch, -1)[:, None]
            together = own[:, :, rows, None] == own[:, :, None, :]
        else:
            together = rows[:, None] // (block or layout.tokens) == keys // (block or layout.tokens)
        own = slice(start, start + rank)
        scores = scores + torch.where(together, torch.einsum("bhir,bhjr->bhij", query[..., own], key[..., own]), 0.0)
        start += rank
    scores = scores * start**-0.5
    if options.slopes is not None:
        scores = (
            scores - torch.tensor(options.slopes, dtype=torch.float64)[:, None, None] * (rows[:, None] - keys).abs()
        )
    seen = torch.ones(layout.batch, 1, len(rows), layout.tokens, dtype=torch.bool)
    if causal:
        seen = seen & (rows[:, None] >= keys)
    if options.lengths is not None:
        lengths = torch.tensor(options.lengths)[:, None, None, None]
        seen = seen & (rows[:, None] < lengths) & (keys < lengths)
    if options.mask is not None:
        seen = seen & torch.tensor(options.mask)[:, None, None, :]
    weights = scores.masked_fill(~seen, -1e300).softmax(-1) * seen.any(-1, keepdim=True)
    if options.dropout:
        places = rows.numpy().astype(np.uint64)[:, None], keys.numpy().astype(np.uint64)
        pairs = [(b, h) for b in range(layout.batch) for h in range(layout.heads)]
        hashes = np.stack([weight_hash(options.seed, b, h, *places) for b, h in pairs])
        stay = torch.from_numpy(hashes >= round(options.dropout * 2**32)).reshape(scores.shape)
        weights = weights * stay / (1 - options.dropout)
    return weights @ value


def compare(
    layout: Layout, options: Options, expected: Any, dtype: torch.dtype = torch.float64, queries: int | None = None,
    seed: int = 0, **arguments: Any,
) -> None:  # fmt: skip
    """Compare output and gradients with those of `expected(inputs in float64)`."""
    inputs = draw(layout, dtype, queries)
    twins = [x.detach().double().requires_grad_() for x in inputs]
    found, wanted = call(inputs, layout, options, seed, **arguments), expected(twins)
    assert found.dtype == dtype
    pairs = zip((found, *gradients(found, inputs)), (wanted, *gradients(wanted, twins)), strict=True)
    for result, want in pairs:
        assert result.dtype == dtype
        tolerance = TOLERANCES[dtype] * max(1.0, float(want.detach().abs().max()))
        torch.testing.assert_close(result.double(), want, rtol=0, atol=tolerance)
