"""The splits of a bilinear score as plain data and as table rows: the chosen ones and the ones they beat."""

from __future__ import annotations

from typing import Any

from mlbtc.plan.score import LayerPlan, ScorePlan
from mlbtc.plan.split import Split
from mlbtc.spec.attention import AttentionSpec

SHOWN = 8
"""Rejected splits of a term that a report shows, the cheapest ones."""


def score_json(plan: LayerPlan, spec: AttentionSpec) -> dict[str, Any]:
    """Return a plan as plain data; costs are MACs of one head for `context` tokens, in blocks of `block_size`."""
    assert spec.matrix is not None
    terms = iter(spec.matrix.levels)
    levels = [
        {
            "expression": str(next(terms)),
            "block_size": part.block,
            "chosen": _split(chosen, part),
            "rejected": [_split(split, part) for split in rejected[:SHOWN]],
            "considered": 1 + len(rejected),
        }
        for part in plan.parts
        for chosen, rejected in zip(part.chosen, part.rejected, strict=True)
    ]
    shared = [
        {"levels": list(s.levels), "features": s.features, "factors_on": s.side, "block_size": part.block}
        for part in plan.parts
        for s in part.segments
    ]
    return {
        "features": plan.features,
        "context": plan.tokens,
        "macs_per_head": plan.cost,
        "segments": shared,
        "levels": levels,
    }


def _split(split: Split, part: ScorePlan) -> dict[str, Any]:
    return {
        "query": sorted(split.query),
        "key": sorted(split.key),
        "cut": list(split.cut),
        "features": split.features,
        "query_macs": split.query_macs,
        "key_macs": split.key_macs,
        "cost": split.cost(part.tokens, part.block),
    }


SPLIT_HEADER = ("level", "block", "split", "features", "MACs per token", "MACs of a head", "")


def split_rows(plan: LayerPlan) -> list[tuple[str, ...]]:
    """Return a row for the chosen split of every term and one for each split that it beat."""
    rows: list[tuple[str, ...]] = []
    number = 0
    for part in plan.parts:
        for chosen, rejected in zip(part.chosen, part.rejected, strict=True):
            shares = any(number in segment.levels and len(segment.levels) > 1 for segment in part.segments)
            rows.append(_row(number, chosen, part, "chosen, features shared" if shares else "chosen"))
            rows += [_row(number, split, part, "") for split in rejected[:SHOWN]]
            number += 1
    return rows


def _row(level: int, split: Split, part: ScorePlan, note: str) -> tuple[str, ...]:
    numbers = (split.features, split.macs, split.cost(part.tokens, part.block))
    return (str(level), str(part.block), str(split), *(f"{number:,}" for number in numbers), note)
