"""Attention layers as specs: which pairs of tokens share which features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from mlbtc.errors import SpecError, nearest
from mlbtc.spec.naming import check_name
from mlbtc.spec.origin import Origin
from mlbtc.spec.sizes import as_size

VARIANTS = ("standard", "mlr")
"""Variants that this version can build; the grammar of design.md knows more."""

MAX_RANKS = 64


@dataclass(frozen=True, slots=True, init=False)
class AttentionSpec:
    """A multi-head self-attention layer, (B, T, width) to (B, T, width).

    Make one with `AttentionSpec.standard` or `AttentionSpec.mlr`.

    Attributes:
        variant: "standard" or "mlr".
        width: the model width D.
        heads: the number of heads H; the head dimension is D / H.
        context: the number of tokens T that blocks and cost reports refer to; a layer takes any T.
        ranks: r_1, ..., r_L; their sum is the head dimension. One rank for standard attention.
        block_sizes: b_1 >= ... >= b_L, each divides the one before; b_1 = context stands for the whole sequence.
        causal: whether token i sees tokens 0 .. i only.
        qk_norm: whether each query and key head is normalised (LayerNorm with weight, no bias) before the scores.
    """

    variant: str
    width: int
    heads: int
    context: int
    ranks: tuple[int, ...]
    block_sizes: tuple[int, ...]
    causal: bool
    qk_norm: bool
    name: str = field(compare=False)
    origin: Origin | None = field(compare=False, repr=False)

    def __init__(
        self,
        variant: str,
        width: int,
        heads: int,
        context: int,
        ranks: Sequence[int] | None = None,
        block_sizes: Sequence[int] | None = None,
        causal: bool = True,
        qk_norm: bool = False,
        name: str = "attention",
        origin: Origin | None = None,
    ) -> None:
        _check_variant(variant, ranks, block_sizes)
        for what, value in (("width", width), ("heads", heads), ("context", context)):
            _check_whole(value, what, what)
        if width % heads:
            raise SpecError(f"heads must divide width, found width {width} and {heads} heads", "heads")
        head = width // heads
        checked = (head,) if ranks is None else _check_ranks(ranks, head)
        blocks = _default_blocks(context, len(checked)) if block_sizes is None else _check_blocks(block_sizes)
        _check_nested(blocks, len(checked), context)
        for what, flag in (("causal", causal), ("qk_norm", qk_norm)):
            if not isinstance(flag, bool):
                raise SpecError(f"{what} must be true or false, found {flag!r}", what)
        values = (variant, width, heads, context, checked, blocks, causal, qk_norm, check_name(name), origin)
        for key, attribute in zip(self.__dataclass_fields__, values, strict=True):
            object.__setattr__(self, key, attribute)

    @classmethod
    def standard(
        cls, width: int, heads: int, context: int, causal: bool = True, qk_norm: bool = False, name: str = "attention"
    ) -> AttentionSpec:
        """Return standard multi-head attention: one level of rank width / heads that every pair shares."""
        return cls("standard", width, heads, context, causal=causal, qk_norm=qk_norm, name=name)

    @classmethod
    def mlr(
        cls,
        width: int,
        heads: int,
        ranks: Sequence[int],
        context: int,
        block_sizes: Sequence[int] | None = None,
        causal: bool = True,
        qk_norm: bool = False,
        name: str = "attention",
    ) -> AttentionSpec:
        """Return MLR attention (paper, section 4): nested blocks of tokens, level l adds r_l features inside.

        Args:
            width: the model width D.
            heads: the number of heads.
            ranks: r_1, ..., r_L with sum D / heads.
            context: the number of tokens that the first level covers.
            block_sizes: b_1, ..., b_L; None for context / 2^(l-1).
            causal: whether token i sees tokens 0 .. i only.
            qk_norm: whether each query and key head is normalised before its features are split into levels.
            name: a label for reports and generated code.

        Raises:
            SpecError: ranks or block sizes do not fit.
        """
        return cls("mlr", width, heads, context, ranks, block_sizes, causal, qk_norm, name)

    @property
    def head_dimension(self) -> int:
        """Features per head, D / H."""
        return self.width // self.heads

    @property
    def default_blocks(self) -> bool:
        """Whether the blocks are context / 2^(l-1), those of the paper."""
        return all(b * 2**level == self.context for level, b in enumerate(self.block_sizes))

    def to_yaml(self, width: int = 10**6) -> str:
        """Return the spec as YAML that `mlbtc.loads` reads back to an equal spec, in lines of about `width`."""
        from mlbtc.spec.dump import attention_to_yaml

        return attention_to_yaml(self, width)

    def __str__(self) -> str:
        ranks = "|".join(map(str, self.ranks))
        blocks = "|".join(map(str, self.block_sizes))
        causal = "causal" if self.causal else "bidirectional"
        return (
            f"{self.name}: {self.variant} attention, width {self.width}, {self.heads} heads, ranks {ranks}, "
            f"blocks {blocks}, {causal}"
        )


def _check_variant(variant: str, ranks: Sequence[int] | None, block_sizes: Sequence[int] | None) -> None:
    if variant not in VARIANTS:
        hint = nearest(str(variant), VARIANTS)
        raise SpecError(f"variant must be one of {', '.join(VARIANTS)}, found {variant!r}; {hint}", "variant")
    if variant == "standard" and (ranks is not None or block_sizes is not None):
        raise SpecError(
            "standard attention has one level of rank width / heads; ranks and block_sizes need variant mlr",
            "block_sizes" if ranks is None else "ranks",
        )
    if variant == "mlr" and (ranks is None or ranks == () or ranks == []):
        key = "variant" if ranks is None else "ranks"
        raise SpecError("mlr attention needs ranks, a list whose sum is width / heads", key)


def _check_whole(value: object, what: str, key: str) -> None:
    """Check a positive integer; other specs take expressions here, an attention spec does not."""
    try:
        fits = not isinstance(value, str) and isinstance(as_size(value, what), int)
    except SpecError as error:
        raise SpecError(str(error), key) from None
    if not fits:
        raise SpecError(f"{what} must be an integer, found {value!r}", key)


def _check_ranks(ranks: Sequence[int], head: int) -> tuple[int, ...]:
    if isinstance(ranks, str) or not isinstance(ranks, Sequence) or len(ranks) > MAX_RANKS:
        raise SpecError(f"ranks is a list of at most {MAX_RANKS} integers, found {str(ranks)[:60]!r}", "ranks")
    for rank in ranks:
        _check_whole(rank, "a rank", "ranks")
    if sum(ranks) != head:
        found = f"the ranks {'|'.join(map(str, ranks))} sum to {sum(ranks)}, width / heads is {head}"
        raise SpecError(found, "ranks")
    return tuple(ranks)


def _default_blocks(context: int, levels: int) -> tuple[int, ...]:
    if context % 2 ** (levels - 1):
        raise SpecError(
            f"{levels} levels halve the context {levels - 1} times, but 2^{levels - 1} does not divide {context}: "
            "give block_sizes",
            "ranks",
        )
    return tuple(context // 2**level for level in range(levels))


def _check_blocks(blocks: Sequence[int]) -> tuple[int, ...]:
    if isinstance(blocks, str) or not isinstance(blocks, Sequence):
        raise SpecError(f"block_sizes is a list of integers, found {str(blocks)[:60]!r}", "block_sizes")
    for block in blocks:
        _check_whole(block, "a block size", "block_sizes")
    return tuple(blocks)


def _check_nested(blocks: tuple[int, ...], levels: int, context: int) -> None:
    key = "block_sizes"
    if len(blocks) != levels:
        raise SpecError(f"there are {levels} ranks and {len(blocks)} block sizes; each level needs one of both", key)
    if blocks[0] != context:
        raise SpecError(f"the first block size covers the whole context {context}, found {blocks[0]}", key)
    for before, after in pairwise(blocks):
        if before % after:
            raise SpecError(f"each block size divides the one before, but {after} does not divide {before}", key)
