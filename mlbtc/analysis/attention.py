"""The cost report of an attention layer, counted as the paper counts: all heads, all T^2 pairs of tokens."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import sympy as sp

from mlbtc.analysis.family import Family, name_of, recognise
from mlbtc.analysis.layers import layer_costs
from mlbtc.analysis.quantity import Quantity
from mlbtc.analysis.score import score_json
from mlbtc.plan.score import LayerPlan
from mlbtc.spec.attention import AttentionSpec
from mlbtc.spec.sizes import Size, as_size, largest


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
        rank: rank of the score map x_i^T M x_j of one head where all levels are active; `certainty` says whether it is
            exact, `reason` why.
        dense: parameters and MACs of standard attention of the same width.
        score: how scores that are specs are cut into a query side and a key side, else None.
    """

    name: str
    tokens: Size
    parameters: Quantity
    macs: Quantity
    flops: Quantity
    rank: Quantity
    certainty: str
    reason: str
    peak_elements: Quantity
    scores: Quantity
    query_key: Quantity
    value_output: Quantity
    values: Quantity
    key_cache: Quantity
    value_cache: Quantity
    dense: tuple[tuple[str, Quantity], ...]
    levels: tuple[tuple[int, int, Quantity, Quantity], ...]
    score: LayerPlan | None
    spec: AttentionSpec

    @property
    def family(self) -> Family | None:
        """The family of M, the matrix of bilinear attention."""
        return None if self.spec.score is None else recognise(self.spec.score)

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
            "family": name_of(self.family),
            **costs,
            "rank": {**self.rank.to_json(), "certainty": self.certainty, "reason": self.reason},
            "projections": {"query_key": self.query_key.to_json(), "value_output": self.value_output.to_json()},
            "dense": {key: quantity.to_json() for key, quantity in self.dense},
            "levels": levels,
            **({} if self.score is None else {"score": score_json(self.score, spec)}),
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


def analyze_attention(spec: AttentionSpec, tokens: Size, whole: bool = False) -> AttentionReport:
    """Return the costs of `spec` for one sequence of `tokens` tokens.

    Level l shares r_l features inside blocks of b_l tokens: T b_l r_l MACs per head and at most b_l cached keys. Blocks
    that are context / p_l by default count as T / p_l, the paper's closed form T^2 sum r_l / p_l, rounded up to whole
    tokens. A window is a block of w keys that moves with the query; the features of bilinear attention meet all keys.
    With `whole` the symbolic forms round up too, and give at every T what a number gives.
    """
    width = spec.width
    costs = layer_costs(spec, tokens, whole)
    scores = [_expand(tokens * part.length * part.rank * part.heads) for part in costs.parts]
    caches = [_expand(part.length * part.rank * part.heads) for part in costs.parts]
    projection = 2 * tokens * width**2
    standard = 2 * projection + 2 * tokens**2 * width
    macs = _expand(costs.query_key + projection + costs.values + sum(scores))

    def quantity(size: Size) -> Quantity:
        return Quantity.of(_expand(size), {})

    levels = zip(costs.parts, scores, caches, strict=True)
    return AttentionReport(
        name=spec.name, tokens=tokens, parameters=quantity(costs.parameters + 2 * width**2), macs=quantity(macs),
        flops=quantity(2 * macs), rank=quantity(costs.rank.size), certainty=costs.rank.certainty,
        reason=costs.rank.reason, peak_elements=quantity(largest([*costs.peak, tokens * width])),
        scores=quantity(sum(scores)), query_key=quantity(costs.query_key), value_output=quantity(projection),
        values=quantity(costs.values), key_cache=quantity(sum(caches)), value_cache=quantity(costs.value_cache),
        dense=(("parameters", quantity(4 * width**2)), ("macs", quantity(standard)),
               ("flops", quantity(2 * standard))),
        levels=tuple((p.rank, p.block_size, quantity(score), quantity(cache)) for p, score, cache in levels),
        score=costs.score, spec=spec,
    )  # fmt: skip


def _expand(size: Size) -> Size:
    if isinstance(size, int):
        return size
    expanded = sp.expand(size)
    return int(expanded) if expanded.is_Integer else expanded
