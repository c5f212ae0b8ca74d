"""Attention layers as specs: which pairs of tokens share which features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Unpack

from mlbtc.errors import SpecError, shown
from mlbtc.spec import layout
from mlbtc.spec.constructors import Constructors
from mlbtc.spec.language import MLBTC
from mlbtc.spec.naming import check_name
from mlbtc.spec.options import DEFAULTS, Options, check_options
from mlbtc.spec.origin import Origin
from mlbtc.spec.variants import GROUPED, OWN_KEYS, check_variant


@dataclass(frozen=True, slots=True, init=False)
class AttentionSpec(Constructors):
    """A multi-head self-attention layer, (B, T, width) to (B, T, width).

    Make one with the constructor of its variant, such as `AttentionSpec.mlr`.

    Attributes:
        variant: "standard", "mlr", "bilinear", "mlbtc", "sliding_window", "global_sliding_window" or "mixed".
        width: the model width D.
        heads: the number of heads H; the head dimension is D / H.
        context: the number of tokens T that blocks and cost reports refer to; a layer takes any T.
        ranks: r_1, ..., r_L; their sum is the head dimension. One rank for standard attention and a sliding window;
            the pair (global, window) for both together; none where scores are specs or heads are mixed.
        block_sizes: b_1 >= ... >= b_L, each divides the one before; b_1 = context stands for the whole sequence.
        causal: whether token i sees tokens 0 .. i only.
        qk_norm: whether each query and key head is normalised (LayerNorm with weight, no bias) before the scores.
        window: w where token i sees tokens i-w+1 .. i, else None.
        published: whether the two softmaxes of global and sliding window are added, as in the paper's code, and not
            averaged.
        score: the matrix M of a head's scores x_i^T M x_j of bilinear attention, else None.
        levels: of MLBTC attention the pairs of a block size and the matrix M_l that pairs of tokens inside such a block
            add to their scores, else ().
        groups: of a mixed layer the layers that its heads are, in order, each as wide as its heads; else ().
        scale: "standard" divides scores by the square root of the number of features, "mup" the scores of every set of
            features by their number, those of standard attention and windows times 8 (paper, muP).
        divide_by_depth: whether the score of a pair is divided by the number of levels whose blocks hold both tokens.
        rms_cap: whether factors of scores are divided by max(1, RMS / s), s^2 = min(fan in, fan out) / fan in^2.
        joint_norm: whether `qk_norm` takes all features that the factors of a head made as one vector, and not each
            set of them by itself.
        rope: the base of the angles by which pairs of features inside a level are rotated, None for no rotation.
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
    levels: tuple[tuple[int, MLBTC], ...]
    groups: tuple[AttentionSpec, ...]
    scale: str
    divide_by_depth: bool
    rms_cap: bool
    joint_norm: bool
    rope: float | None
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
        levels: Sequence[tuple[int, MLBTC]] | None = None,
        groups: Sequence[AttentionSpec] | None = None,
        **options: Unpack[Options],
    ) -> None:
        own = {
            "ranks": ranks, "block_sizes": block_sizes, "window": window, "published": published, "score": score,
            "levels": levels, "groups": groups,
        }  # fmt: skip
        check_variant(variant, own)
        for what, value in (("width", width), ("heads", heads), ("context", context)):
            layout.check_whole(value, what, what)
        if width % heads:
            raise SpecError(f"heads must divide width, found width {width} and {heads} heads", "heads")
        scores = () if levels is None else layout.check_levels(levels, width)
        blocks_given = block_sizes if levels is None else [block for block, _ in scores]
        checked, blocks = _levels(variant, ranks, blocks_given, width // heads, context)
        for what, flag in (("causal", causal), ("qk_norm", qk_norm), ("published", published)):
            if not isinstance(flag, bool):
                raise SpecError(f"{what} must be true or false, found {flag!r}", what)
        if window is not None:
            layout.check_whole(window, "window", "window")
            if not causal:
                raise SpecError("a sliding window holds a token and those before it: causal must be true", "causal")
        if options.get("joint_norm") is True and not qk_norm:
            raise SpecError("joint_norm says how qk_norm works: it needs qk_norm true", "joint_norm")
        matrix = None if score is None else layout.check_score(score, width)
        parts = () if groups is None else _check_groups(groups, width, heads, context, causal, qk_norm)
        values = (variant, width, heads, context, checked, blocks, causal, qk_norm, window, published, matrix)
        more = (scores, parts, *check_options(variant, {**DEFAULTS, **options}).values(), check_name(name), origin)
        for key, attribute in zip(self.__dataclass_fields__, (*values, *more), strict=True):
            object.__setattr__(self, key, attribute)

    @property
    def parts(self) -> tuple[AttentionSpec, ...]:
        """The groups of a mixed layer, else the layer itself."""
        return self.groups or (self,)

    @property
    def head_dimension(self) -> int:
        """Features per head, D / H."""
        return self.width // self.heads

    @property
    def default_blocks(self) -> bool:
        """Whether the blocks are context / 2^(l-1), those of the paper."""
        return all(b * 2**level == self.context for level, b in enumerate(self.block_sizes))

    @property
    def scores(self) -> tuple[MLBTC, ...]:
        """The matrix M_l of each level of blocks where scores are specs, else ()."""
        return tuple(score for _, score in self.levels) if self.score is None else (self.score,)

    @property
    def matrix(self) -> MLBTC | None:
        """M_1 + ... + M_L, what pairs that share all blocks multiply; None where scores are not specs."""
        terms = [level for score in self.scores for level in score.levels]
        return MLBTC((self.width, self.width), terms, "score") if terms else None

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
        for score, block in zip(self.scores, self.block_sizes, strict=True) if self.scores else ():
            inside = f" in blocks of {block}" if self.levels else ""
            parts.append(f"score{inside} {' + '.join(map(str, score.levels))}")
        if self.window is not None:
            parts.append(f"window {self.window}{', softmaxes added' if self.published else ''}")
        elif self.groups:
            parts.append(" + ".join(f"{group.heads} {group.variant}" for group in self.groups))
        elif not self.scores:
            parts.append(f"blocks {'|'.join(map(str, self.block_sizes))}")
        return ", ".join([*parts, causal, *self._options_text()])

    def options(self) -> dict[str, Any]:
        """Return the options that are not at their defaults."""
        found = {key: getattr(self, key) for key in DEFAULTS}
        return {key: value for key, value in found.items() if value != DEFAULTS[key]}

    def _options_text(self) -> list[str]:
        texts = {
            "scale": "muP scale",
            "divide_by_depth": "scores divided by depth",
            "rms_cap": "factors capped",
            "joint_norm": "one norm for a head",
            "rope": f"RoPE of base {self.rope or 0:g}",
        }
        return [texts[key] for key in self.options()]


def _levels(
    variant: str, ranks: Sequence[int] | None, block_sizes: Sequence[int] | None, head: int, context: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the ranks of a head and the blocks of tokens."""
    if variant in ("bilinear", "mixed"):
        return (), (context,)
    if variant == "mlbtc":
        assert block_sizes is not None
        layout.check_nested(tuple(block_sizes), len(block_sizes), context, "levels")
        return (), tuple(block_sizes)
    if variant == "global_sliding_window":
        return layout.window_ranks(ranks, head), (context,)
    checked = (head,) if ranks is None else layout.check_ranks(ranks, head)
    blocks = layout.default_blocks(context, len(checked)) if block_sizes is None else layout.check_blocks(block_sizes)
    layout.check_nested(blocks, len(checked), context)
    return checked, blocks


def _check_groups(
    groups: Sequence[AttentionSpec], width: int, heads: int, context: int, causal: bool, qk_norm: bool
) -> tuple[AttentionSpec, ...]:
    """Return the groups of a mixed layer; they are layers of its head dimension and share its heads among them."""
    if isinstance(groups, str) or not isinstance(groups, Sequence):
        raise SpecError(f"groups is a list of attention specs, found {shown(groups)}", "groups")
    if qk_norm:
        raise SpecError("the groups of a mixed layer have norms of their own: give qk_norm to groups", "qk_norm")
    shared = {"context": context, "causal": causal, "head_dimension": width // heads}
    for number, group in enumerate(groups):
        if not isinstance(group, AttentionSpec):
            raise SpecError(f"groups[{number}] is an attention spec, found {type(group).__name__}", "groups")
        if group.variant not in GROUPED:
            known = ", ".join(GROUPED)
            raise SpecError(f"groups[{number}] must be one of {known}, found {group.variant}", "groups")
        for key, value in shared.items():
            found = getattr(group, key)
            if found != value:
                what = "width / heads" if key == "head_dimension" else key
                raise SpecError(f"groups[{number}] has {what} {found}, the layer has {value}", "groups")
    total = sum(group.heads for group in groups)
    if total != heads:
        raise SpecError(f"the groups have {total} heads, the layer has {heads}", "heads")
    return tuple(groups)
