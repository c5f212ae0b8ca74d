"""Attention layers as specs: which pairs of tokens share which features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mlbtc.errors import SpecError, nearest, shown
from mlbtc.spec import layout
from mlbtc.spec.language import MLBTC
from mlbtc.spec.naming import check_name
from mlbtc.spec.origin import Origin

OWN_KEYS = {
    "standard": (),
    "mlr": ("ranks", "block_sizes"),
    "bilinear": ("score",),
    "sliding_window": ("window",),
    "global_sliding_window": ("window", "ranks", "published"),
}
"""The keys that each variant takes beside those of all variants."""

VARIANTS = tuple(OWN_KEYS)
_NEEDS = {
    "mlr": ("ranks", "ranks, a list whose sum is width / heads"),
    "bilinear": ("score", "score, a (width, width) spec such as {family: btt, rank: 1}"),
    "sliding_window": ("window", "window, the number of keys that a token sees, itself included"),
    "global_sliding_window": ("window", "window, the number of keys that a token sees, itself included"),
}


@dataclass(frozen=True, slots=True, init=False)
class AttentionSpec:
    """A multi-head self-attention layer, (B, T, width) to (B, T, width).

    Make one with the constructor of its variant, such as `AttentionSpec.mlr`.

    Attributes:
        variant: "standard", "mlr", "bilinear", "sliding_window" or "global_sliding_window".
        width: the model width D.
        heads: the number of heads H; the head dimension is D / H.
        context: the number of tokens T that blocks and cost reports refer to; a layer takes any T.
        ranks: r_1, ..., r_L; their sum is the head dimension. One rank for standard attention and a sliding window;
            the pair (global, window) for both together; none for bilinear attention.
        block_sizes: b_1 >= ... >= b_L, each divides the one before; b_1 = context stands for the whole sequence.
        causal: whether token i sees tokens 0 .. i only.
        qk_norm: whether each query and key head is normalised (LayerNorm with weight, no bias) before the scores.
        window: w where token i sees tokens i-w+1 .. i, else None.
        published: whether the two softmaxes of global and sliding window are added, as in the paper's code, and not
            averaged.
        score: the matrix M of a head's scores x_i^T M x_j of bilinear attention, else None.
    """

    variant: str
    width: int
    heads: int
    context: int
    ranks: tuple[int, ...]
    block_sizes: tuple[int, ...]
    causal: bool
    qk_norm: bool
    window: int | None
    published: bool
    score: MLBTC | None
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
        *,
        window: int | None = None,
        published: bool = False,
        score: MLBTC | None = None,
    ) -> None:
        own = {"ranks": ranks, "block_sizes": block_sizes, "window": window, "published": published, "score": score}
        _check_variant(variant, own)
        for what, value in (("width", width), ("heads", heads), ("context", context)):
            layout.check_whole(value, what, what)
        if width % heads:
            raise SpecError(f"heads must divide width, found width {width} and {heads} heads", "heads")
        checked, blocks = _levels(variant, ranks, block_sizes, width // heads, context)
        for what, flag in (("causal", causal), ("qk_norm", qk_norm), ("published", published)):
            if not isinstance(flag, bool):
                raise SpecError(f"{what} must be true or false, found {flag!r}", what)
        if window is not None:
            layout.check_whole(window, "window", "window")
            if not causal:
                raise SpecError("a sliding window holds a token and those before it: causal must be true", "causal")
        matrix = None if score is None else layout.check_score(score, width)
        values = (variant, width, heads, context, checked, blocks, causal, qk_norm, window, published, matrix)
        for key, attribute in zip(self.__dataclass_fields__, (*values, check_name(name), origin), strict=True):
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
    ) -> AttentionSpec:
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

        Raises:
            SpecError: the score is no matrix of that shape.
        """
        return cls("bilinear", width, heads, context, causal=causal, qk_norm=qk_norm, name=name, score=score)

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
    ) -> AttentionSpec:
        """Return attention over the last `window` keys: token i sees tokens i - window + 1 .. i."""
        return cls("sliding_window", width, heads, context, None, None, causal, qk_norm, name, window=window)

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
    ) -> AttentionSpec:
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
        """
        return cls(
            "global_sliding_window", width, heads, context, ranks, None, causal, qk_norm, name,
            window=window, published=published,
        )  # fmt: skip

    @property
    def head_dimension(self) -> int:
        """Features per head, D / H."""
        return self.width // self.heads

    @property
    def default_blocks(self) -> bool:
        """Whether the blocks are context / 2^(l-1), those of the paper."""
        return all(b * 2**level == self.context for level, b in enumerate(self.block_sizes))

    def own_values(self) -> dict[str, Any]:
        """Return the arguments that only this variant takes."""
        return {key: getattr(self, key) for key in OWN_KEYS[self.variant]}

    def to_yaml(self, width: int = 10**6) -> str:
        """Return the spec as YAML that `mlbtc.loads` reads back to an equal spec, in lines of about `width`."""
        from mlbtc.spec.dump import attention_to_yaml

        return attention_to_yaml(self, width)

    def __str__(self) -> str:
        causal = "causal" if self.causal else "bidirectional"
        parts = [f"{self.name}: {self.variant} attention, width {self.width}, {self.heads} heads"]
        if self.ranks:
            parts.append(f"ranks {'|'.join(map(str, self.ranks))}")
        if self.score is not None:
            parts.append(f"score {' + '.join(map(str, self.score.levels))}")
        if self.window is not None:
            parts.append(f"window {self.window}{', softmaxes added' if self.published else ''}")
        elif self.block_sizes:
            parts.append(f"blocks {'|'.join(map(str, self.block_sizes))}")
        return ", ".join([*parts, causal])


def _levels(
    variant: str, ranks: Sequence[int] | None, block_sizes: Sequence[int] | None, head: int, context: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the ranks of a head and the blocks of tokens."""
    if variant == "bilinear":
        return (), ()
    if variant == "global_sliding_window":
        return layout.window_ranks(ranks, head), (context,)
    checked = (head,) if ranks is None else layout.check_ranks(ranks, head)
    blocks = layout.default_blocks(context, len(checked)) if block_sizes is None else layout.check_blocks(block_sizes)
    layout.check_nested(blocks, len(checked), context)
    return checked, blocks


def _check_variant(variant: str, own: dict[str, Any]) -> None:
    """Check the name of a variant, that it has what it needs, and nothing of another one."""
    if not isinstance(variant, str) or variant not in VARIANTS:
        hint = nearest(str(variant), VARIANTS)
        raise SpecError(f"variant must be one of {', '.join(VARIANTS)}, found {shown(variant)}; {hint}", "variant")
    for key, value in own.items():
        if key not in OWN_KEYS[variant] and value is not None and value is not False:
            takers = " or ".join(f"variant {name}" for name, keys in OWN_KEYS.items() if key in keys)
            what = "one level of rank width / heads" if variant == "standard" else "none of its own"
            raise SpecError(f"{variant} attention has {what}: {key} needs {takers}", key)
    key, needed = _NEEDS.get(variant, ("", ""))
    value = own.get(key)
    if key and (value is None or value == () or value == []):
        raise SpecError(f"{variant} attention needs {needed}", "variant" if value is None else key)
