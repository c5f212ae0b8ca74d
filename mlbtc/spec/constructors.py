"""The constructors of `AttentionSpec`, one for each variant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self, Unpack

from mlbtc.spec.language import MLBTC
from mlbtc.spec.options import Options


class Constructors:
    """Base of `AttentionSpec`: each variant by name, with the keys of its files as arguments."""

    __slots__ = ()

    if TYPE_CHECKING:

        def __init__(self, variant: str, width: int, heads: int, context: int, *own: Any, **named: Any) -> None: ...

    @classmethod
    def standard(
        cls,
        width: int,
        heads: int,
        context: int,
        causal: bool = True,
        qk_norm: bool = False,
        name: str = "attention",
        **options: Unpack[Options],
    ) -> Self:
        """Return standard multi-head attention: one level of rank width / heads that every pair shares."""
        return cls("standard", width, heads, context, causal=causal, qk_norm=qk_norm, name=name, **options)

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
        **options: Unpack[Options],
    ) -> Self:
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
            options: those of `AttentionSpec` that the variant takes, all off by default.

        Raises:
            SpecError: ranks or block sizes do not fit.
        """
        return cls("mlr", width, heads, context, ranks, block_sizes, causal, qk_norm, name, **options)

    @classmethod
    def bilinear(
        cls,
        width: int,
        heads: int,
        context: int,
        score: MLBTC,
        causal: bool = True,
        qk_norm: bool = False,
        name: str = "attention",
        **options: Unpack[Options],
    ) -> Self:
        """Return bilinear attention (paper, section 3): scores x_i^T M x_j / sqrt(features), one M per head.

        How M is cut into a map of queries and a map of keys, and so how many features a pair multiplies, is derived:
        see `mlbtc.analyze`.

        Args:
            width: the model width D.
            heads: the number of heads.
            context: the number of tokens for which the cut is best.
            score: any (width, width) spec; every head has factors of its own.
            causal: whether token i sees tokens 0 .. i only.
            qk_norm: whether features that factors made are normalised, each set of them by itself.
            name: a label for reports and generated code.
            options: those of `AttentionSpec` that the variant takes, all off by default.

        Raises:
            SpecError: the score is no matrix of that shape.
        """
        return cls("bilinear", width, heads, context, causal=causal, qk_norm=qk_norm, name=name, score=score, **options)

    @classmethod
    def mlbtc(
        cls,
        width: int,
        heads: int,
        context: int,
        levels: Sequence[tuple[int, MLBTC]],
        causal: bool = True,
        qk_norm: bool = False,
        name: str = "attention",
        **options: Unpack[Options],
    ) -> Self:
        """Return MLBTC attention: nested blocks of tokens, level l adds x_i^T M_l x_j to the scores inside its blocks.

        All scores are divided by sqrt(features), where features counts those of all levels. With one level it is
        bilinear attention, with low-rank levels MLR attention.

        Args:
            width: the model width D.
            heads: the number of heads.
            context: the number of tokens that the first level covers.
            levels: pairs of a block size and any (width, width) spec; every head has factors of its own.
            causal: whether token i sees tokens 0 .. i only.
            qk_norm: whether features that factors made are normalised, each set of them by itself.
            name: a label for reports and generated code.
            options: those of `AttentionSpec` that the variant takes, all off by default.

        Raises:
            SpecError: block sizes are not nested, or a score is no matrix of that shape.
        """
        return cls("mlbtc", width, heads, context, causal=causal, qk_norm=qk_norm, name=name, levels=levels, **options)

    @classmethod
    def sliding_window(
        cls,
        width: int,
        heads: int,
        context: int,
        window: int,
        causal: bool = True,
        qk_norm: bool = False,
        name: str = "attention",
        **options: Unpack[Options],
    ) -> Self:
        """Return attention over the last `window` keys: token i sees tokens i - window + 1 .. i."""
        return cls("sliding_window", width, heads, context, None, None, causal, qk_norm, name, window=window, **options)

    @classmethod
    def global_sliding_window(
        cls,
        width: int,
        heads: int,
        context: int,
        window: int,
        ranks: Sequence[int] | None = None,
        published: bool = False,
        causal: bool = True,
        qk_norm: bool = False,
        name: str = "attention",
        **options: Unpack[Options],
    ) -> Self:
        """Return the mean of attention over all keys and over a window, each with a part of the features of a head.

        Args:
            width: the model width D.
            heads: the number of heads.
            context: the number of tokens that cost reports refer to.
            window: token i sees tokens i - window + 1 .. i with the second part of its features.
            ranks: the pair (global, window) with sum D / heads; None for half and half.
            published: add the two softmaxes, as the paper's code does, instead of their mean: rows then sum to 2.
            causal: must be true.
            qk_norm: whether each query and key head is normalised before its features are split.
            name: a label for reports and generated code.
            options: those of `AttentionSpec` that the variant takes, all off by default.
        """
        return cls(
            "global_sliding_window", width, heads, context, ranks, None, causal, qk_norm, name,
            window=window, published=published, **options,
        )  # fmt: skip

    @classmethod
    def mixed(
        cls,
        width: int,
        heads: int,
        context: int,
        groups: Sequence[Self],
        causal: bool = True,
        name: str = "attention",
    ) -> Self:
        """Return a layer whose heads attend in groups, each in its own way, behind one projection for all of them.

        Args:
            width: the model width D.
            heads: the number of heads, the sum of those of the groups.
            context: the number of tokens that blocks and cost reports refer to.
            groups: a layer for each group, of width heads times D / H, with the same context and `causal`: standard,
                MLR or windowed attention, with options of its own.
            causal: whether token i sees tokens 0 .. i only.
            name: a label for reports and generated code.

        Raises:
            SpecError: the groups do not fit together, or one has no query and key projections.
        """
        return cls("mixed", width, heads, context, causal=causal, name=name, groups=groups)
