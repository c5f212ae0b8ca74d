"""Inputs for the tests of attention kernels: named layouts, drawn tensors, tolerances."""

from typing import NamedTuple

import torch
from torch import Tensor

TOLERANCES = {torch.float64: 1e-10, torch.float32: 2e-5, torch.float16: 1e-2, torch.bfloat16: 3e-2}
KERNELS = ("cpp", "strips", "expanded", "reference")


class Layout(NamedTuple):
    """Sizes of one call."""

    tokens: int
    ranks: list[int]
    blocks: list[int | None]
    value: int = 3
    batch: int = 1
    heads: int = 2
    key_heads: int = 2


LAYOUTS = {
    "one-token": Layout(1, [2, 1], [None, 4]),
    "one-level": Layout(7, [4], [None]),
    "one-level-block-below-sequence": Layout(11, [3], [4]),
    "one-level-block-above-sequence": Layout(5, [3], [64]),
    "prime-tokens": Layout(13, [3, 2], [None, 4]),
    "blocks-of-three-and-six": Layout(20, [2, 1, 3], [None, 6, 3]),
    "blocks-of-one": Layout(6, [2, 2, 1], [None, 3, 1]),
    "all-blocks-of-one": Layout(5, [2], [1]),
    "equal-blocks": Layout(9, [1, 2, 1], [4, 4, 4]),
    "first-block-below-sequence": Layout(17, [2, 2, 2], [12, 6, 3]),
    "first-block-far-above-sequence": Layout(10, [1, 1, 1], [1000, 10, 5]),
    "none-twice": Layout(9, [1, 2, 2], [None, None, 3]),
    "five-levels-of-odd-sizes": Layout(17, [1, 2, 1, 3, 1], [60, 30, 10, 5, 1]),
    "wide-values": Layout(8, [2, 1], [None, 5], value=9),
    "single-value": Layout(8, [3, 1], [None, 5], value=1),
    "grouped-heads": Layout(9, [2, 2], [None, 4], heads=6, key_heads=2, batch=2),
    "one-key-head": Layout(9, [2, 2], [None, 4], heads=4, key_heads=1),
}

# Longer than a strip of 128 rows, so that coarse levels, fine levels and partial strips all occur.
LONG = {
    "strip-plus-one": Layout(129, [2, 2], [None, 43], heads=1, key_heads=1),
    "coarse-below-sequence": Layout(300, [2, 1, 2], [260, 130, 65], heads=1, key_heads=1),
    "fine-blocks-of-48": Layout(331, [2, 2, 1, 1], [None, 144, 48, 3], heads=1, key_heads=1),
    "coarse-only": Layout(389, [2, 2], [None, 150], heads=1, key_heads=1),
    "block-of-a-strip": Layout(257, [2, 2], [256, 128], heads=1, key_heads=1),
    "fine-only": Layout(270, [2, 2], [35, 7], heads=1, key_heads=1),
    "block-of-127": Layout(381, [1, 2], [254, 127], heads=1, key_heads=1),
}


def draw(layout: Layout, dtype: torch.dtype = torch.float64, queries: int | None = None, seed: int = 0) -> list[Tensor]:
    """Return query, key and value that require gradients."""
    generator = torch.Generator().manual_seed(seed)
    width = sum(layout.ranks)
    shapes = (
        (layout.batch, layout.heads, layout.tokens if queries is None else queries, width),
        (layout.batch, layout.key_heads, layout.tokens, width),
        (layout.batch, layout.key_heads, layout.tokens, layout.value),
    )
    drawn = [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]
    return [x.requires_grad_() for x in drawn]


def gradients(output: Tensor, inputs: list[Tensor], seed: int = 1) -> list[Tensor]:
    """Return the gradients of a random linear function of the output."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(output.shape, generator=generator, dtype=torch.float64)
    return list(torch.autograd.grad((output.double() * weights).sum(), inputs))


def dense(query: Tensor, key: Tensor, ranks: list[int], blocks: list[int | None], causal: bool) -> Tensor:
    """Return the weights of a long sequence in float64, level masks as T x T matrices; see `oracle` for short ones."""
    positions = torch.arange(query.shape[2])
    scores, start = torch.zeros(*query.shape[:3], key.shape[2], dtype=torch.float64), 0
    for rank, block in zip(ranks, blocks, strict=True):
        products = torch.einsum("bhir,bhjr->bhij", query[..., start : start + rank], key[..., start : start + rank])
        if block is not None:
            products = products.masked_fill(positions[:, None] // block != positions[None, :] // block, 0.0)
        scores = scores + products
        start += rank
    scores = scores * sum(ranks) ** -0.5
    if causal:
        scores = scores.masked_fill(positions[:, None] < positions[None, :], float("-inf"))
    return scores.softmax(-1)
