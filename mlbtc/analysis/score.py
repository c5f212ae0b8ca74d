"""The splits of a bilinear score as plain data and as table rows: the chosen ones and the ones they beat."""

from __future__ import annotations

from typing import Any

from mlbtc.plan.score import ScorePlan
from mlbtc.plan.split import Split
from mlbtc.spec.attention import AttentionSpec

SHOWN = 8
"""Rejected splits of a level that a report shows, the cheapest ones."""


def score_json(plan: ScorePlan, spec: AttentionSpec) -> dict[str, Any]:
    """Return a plan as plain data; costs are MACs of one head for `context` tokens."""
    assert spec.score is not None
    levels = [
        {
            "expression": str(level),
            "chosen": _split(chosen, plan.tokens),
            "rejected": [_split(split, plan.tokens) for split in rejected[:SHOWN]],
            "considered": 1 + len(rejected),
        }
        for level, chosen, rejected in zip(spec.score.levels, plan.chosen, plan.rejected, strict=True)
    ]
    shared = [{"levels": list(s.levels), "features": s.features, "factors_on": s.side} for s in plan.segments]
    return {
        "features": plan.features,
        "context": plan.tokens,
        "macs_per_head": int(plan.cost(plan.tokens)),
        "segments": shared,
        "levels": levels,
    }


def _split(split: Split, tokens: int) -> dict[str, Any]:
    return {
        "query": sorted(split.query),
        "key": sorted(split.key),
        "cut": list(split.cut),
        "features": split.features,
        "query_macs": split.query_macs,
        "key_macs": split.key_macs,
        "cost": split.cost(tokens),
    }


SPLIT_HEADER = ("level", "split", "features", "MACs per token", "MACs of a head", "")


def split_rows(plan: ScorePlan) -> list[tuple[str, ...]]:
    """Return a row for the chosen split of every level and one for each split that it beat."""
    rows = []
    for number, (chosen, rejected) in enumerate(zip(plan.chosen, plan.rejected, strict=True)):
        shares = sum(number in segment.levels and len(segment.levels) > 1 for segment in plan.segments)
        rows.append(_row(number, chosen, plan.tokens, "chosen, features shared" if shares else "chosen"))
        rows += [_row(number, split, plan.tokens, "") for split in rejected[:SHOWN]]
    return rows


def _row(level: int, split: Split, tokens: int, note: str) -> tuple[str, ...]:
    numbers = (split.features, split.macs, split.cost(tokens))
    return (str(level), str(split), *(f"{number:,}" for number in numbers), note)
