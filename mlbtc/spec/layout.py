"""Checks of what an attention spec is made of: sizes, ranks of a head, blocks of tokens, windows and scores.

Each raises a `SpecError` whose key names the argument that is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from mlbtc.errors import SpecError, shown
from mlbtc.spec.language import MLBTC
from mlbtc.spec.sizes import as_size

MAX_RANKS = 64


def check_score(score: object, width: int) -> MLBTC:
    """Return the score spec of a head, a (width, width) matrix with numbers for sizes."""
    if not isinstance(score, MLBTC):
        raise SpecError(f"score is an MLBTC spec of shape (width, width), found {type(score).__name__}", "score")
    bound = score.bind_defaults()
    if bound.symbols:
        raise SpecError(f"a score has numbers for sizes, found the open symbols {', '.join(bound.symbols)}", "score")
    if bound.shape != (width, width):
        raise SpecError(f"a score has shape ({width}, {width}), found ({bound.shape[0]}, {bound.shape[1]})", "score")
    for number, level in enumerate(bound.levels):
        if level.at is not None:
            raise SpecError(
                f"a score has levels that are the whole matrix, but levels[{number}] is at {level.at}", "score"
            )
    return bound.named("score")


def window_ranks(ranks: Sequence[int] | None, head: int) -> tuple[int, ...]:
    """Return the pair of ranks (global, window) of a head; half and half by default."""
    if ranks is None:
        if head < 2:
            raise SpecError(f"a head of {head} feature has no ranks to split between all keys and a window", "heads")
        return (head - head // 2, head // 2)
    checked = check_ranks(ranks, head)
    if len(checked) != 2:
        raise SpecError(f"ranks is the pair [global, window], found {len(checked)} ranks", "ranks")
    return checked


def check_whole(value: object, what: str, key: str) -> None:
    """Check a positive integer; other specs take expressions here, an attention spec does not."""
    try:
        fits = not isinstance(value, str) and isinstance(as_size(value, what), int)
    except SpecError as error:
        raise SpecError(str(error), key) from None
    if not fits:
        raise SpecError(f"{what} must be an integer, found {shown(value)}", key)


def check_ranks(ranks: Sequence[int], head: int) -> tuple[int, ...]:
    """Return the ranks of a head, which sum to its dimension."""
    if isinstance(ranks, str) or not isinstance(ranks, Sequence) or len(ranks) > MAX_RANKS:
        raise SpecError(f"ranks is a list of at most {MAX_RANKS} integers, found {shown(ranks)}", "ranks")
    for rank in ranks:
        check_whole(rank, "a rank", "ranks")
    if sum(ranks) != head:
        found = f"the ranks {'|'.join(map(str, ranks))} sum to {sum(ranks)}, width / heads is {head}"
        raise SpecError(found, "ranks")
    return tuple(ranks)


def default_blocks(context: int, levels: int) -> tuple[int, ...]:
    """Return context / 2^(l-1) for every level."""
    if context % 2 ** (levels - 1):
        raise SpecError(
            f"{levels} levels halve the context {levels - 1} times, but 2^{levels - 1} does not divide {context}: "
            "give block_sizes",
            "ranks",
        )
    return tuple(context // 2**level for level in range(levels))


def check_blocks(blocks: Sequence[int]) -> tuple[int, ...]:
    """Return the block sizes, each a positive integer."""
    if isinstance(blocks, str) or not isinstance(blocks, Sequence):
        raise SpecError(f"block_sizes is a list of integers, found {shown(blocks)}", "block_sizes")
    for block in blocks:
        check_whole(block, "a block size", "block_sizes")
    return tuple(blocks)


def check_nested(blocks: tuple[int, ...], levels: int, context: int) -> None:
    """Check that there is a block size per level, the first is the context, and each divides the one before."""
    key = "block_sizes"
    if len(blocks) != levels:
        raise SpecError(f"there are {levels} ranks and {len(blocks)} block sizes; each level needs one of both", key)
    if blocks[0] != context:
        raise SpecError(f"the first block size covers the whole context {context}, found {blocks[0]}", key)
    for before, after in pairwise(blocks):
        if before % after:
            raise SpecError(f"each block size divides the one before, but {after} does not divide {before}", key)
