"""The cost report of an attention layer, counted as the paper counts: all heads, all T^2 pairs of tokens."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import sympy as sp

from mlbtc.analysis.quantity import Quantity
from mlbtc.spec.attention import AttentionSpec
from mlbtc.spec.sizes import Size, as_size, largest, smallest


@dataclass(frozen=True, slots=True)
class AttentionReport:
    """What an attention layer costs for one sequence of T tokens.

    Attributes:
        scores: MACs of the scores of all heads.
        query_key: MACs of the query and key projections.
        value_output: MACs of the value and output projections.
        values: MACs of the weighted sums of values.
        macs: all of the above.
        key_cache: elements that decoding keeps for the keys after T tokens.
        value_cache: elements that decoding keeps for the values.
        rank: rank of the score map x_i^T M x_j of one head where all levels are active.
        dense: parameters and MACs of standard attention of the same width.
    """

    name: str
    tokens: Size
    parameters: Quantity
    macs: Quantity
    flops: Quantity
    rank: Quantity
    peak_elements: Quantity
    scores: Quantity
    query_key: Quantity
    value_output: Quantity
    values: Quantity
    key_cache: Quantity
    value_cache: Quantity
    dense: tuple[tuple[str, Quantity], ...]
    levels: tuple[tuple[int, int, Quantity, Quantity], ...]
    spec: AttentionSpec

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the spec probably does not intend."""
        return ()

    def bind(self, **values: int | str) -> AttentionReport:
        """Return the report for a number of tokens: `report.bind(T=2048)`.

        Raises:
            SpecError: a name other than T, or not a size.
        """
        from mlbtc.errors import SpecError

        unknown = [name for name in values if name != str(self.tokens)]
        if unknown:
            raise SpecError(f"{unknown[0]!r} is not a symbol of {self.name!r}; its symbols: {self.tokens}")
        return analyze_attention(self.spec, as_size(values[str(self.tokens)], "T")) if values else self

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain data for `json.dumps`."""
        spec = self.spec
        levels = [
            {"rank": rank, "block_size": block, "scores": scores.to_json(), "key_cache": cache.to_json()}
            for rank, block, scores, cache in self.levels
        ]
        plain = ("parameters", "macs", "flops", "peak_elements", "scores", "values", "key_cache", "value_cache")
        costs = {key: getattr(self, key).to_json() for key in plain}
        return {
            "name": self.name,
            "variant": spec.variant,
            "shape": [spec.width, spec.width],
            **costs,
            "rank": {**self.rank.to_json(), "certainty": "exact", "reason": "low rank"},
            "projections": {"query_key": self.query_key.to_json(), "value_output": self.value_output.to_json()},
            "dense": {key: quantity.to_json() for key, quantity in self.dense},
            "levels": levels,
            "steps": [],
            "conditions": [],
            "warnings": [],
        }

    def to_markdown(self) -> str:
        """Return the report as Markdown tables."""
        from mlbtc.analysis.render import attention_markdown

        return attention_markdown(self)

    def __str__(self) -> str:
        return json.dumps(self.to_json(), indent=2)


def analyze_attention(spec: AttentionSpec, tokens: Size) -> AttentionReport:
    """Return the costs of `spec` for one sequence of `tokens` tokens.

    Level l shares r_l features inside blocks of b_l tokens: T b_l r_l MACs per head and at most b_l cached keys. Blocks
    that are context / p_l by default count as T / p_l, the paper's closed form T^2 sum r_l / p_l, rounded up to whole
    tokens.
    """
    width, heads = spec.width, spec.heads
    levels = []
    for number, (rank, block) in enumerate(zip(spec.ranks, spec.block_sizes, strict=True)):
        length = _block_length(spec, number, block, tokens)
        scores = Quantity.of(_expand(tokens * length * rank * heads), {})
        levels.append((rank, block, scores, Quantity.of(_expand(length * rank * heads), {})))
    scores_total = _expand(sum(level[2].symbolic for level in levels))
    key_cache = _expand(sum(level[3].symbolic for level in levels))
    projection = 2 * tokens * width**2
    values = tokens**2 * width
    standard = 2 * projection + 2 * tokens**2 * width
    macs = _expand(2 * projection + values + scores_total)
    parameters = 4 * width**2 + (2 * spec.head_dimension if spec.qk_norm else 0)

    def quantity(size: Size) -> Quantity:
        return Quantity.of(size, {})

    return AttentionReport(
        name=spec.name, tokens=tokens, parameters=quantity(parameters), macs=quantity(macs), flops=quantity(2 * macs),
        rank=quantity(min(width, sum(spec.ranks))),
        peak_elements=quantity(largest([heads * tokens**2, tokens * width])), scores=quantity(scores_total),
        query_key=quantity(projection), value_output=quantity(projection), values=quantity(values),
        key_cache=quantity(key_cache), value_cache=quantity(tokens * width),
        dense=(("parameters", quantity(4 * width**2)), ("macs", quantity(_expand(standard))),
               ("flops", quantity(_expand(2 * standard)))),
        levels=tuple(levels), spec=spec,
    )  # fmt: skip


def _block_length(spec: AttentionSpec, level: int, block: int, tokens: Size) -> Size:
    """Return how many tokens a block of a level holds in a sequence of `tokens`."""
    if level == 0:
        return tokens
    if spec.default_blocks:
        return -(-tokens // 2**level) if isinstance(tokens, int) else tokens / 2**level
    return smallest([block, tokens])


def _expand(size: Size) -> Size:
    if isinstance(size, int):
        return size
    expanded = sp.expand(size)
    return int(expanded) if expanded.is_Integer else expanded
