"""Widths of equal cost, against trying every width."""

import pytest

from mlbtc import AttentionSpec, families
from mlbtc.attention.equal import COSTS, MOST, block_macs, cache_elements, equal_width, width_step
from mlbtc.attention.variants import equal_variants

WIDTH, HEADS, CONTEXT = 64, 4, 32
STANDARD = AttentionSpec.standard(WIDTH, HEADS, CONTEXT)
MAKERS = {
    "standard": lambda width: AttentionSpec.standard(width, HEADS, CONTEXT),
    "halves": lambda width: AttentionSpec.mlr(width, HEADS, (width // HEADS - 1, 1), CONTEXT),
    "window": lambda width: AttentionSpec.sliding_window(width, HEADS, CONTEXT, 4),
    "bilinear": lambda width: AttentionSpec.bilinear(width, HEADS, CONTEXT, families.btt((width, width), 1)),
}


def possible(name: str, width: int) -> bool:
    return name != "halves" or width > HEADS


@pytest.mark.parametrize(("width", "heads", "step"), [(512, 8, 16), (64, 4, 4), (128, 4, 4), (30, 3, 3), (1024, 1, 32)])
def test_widths_are_multiples_of_the_heads(width: int, heads: int, step: int) -> None:
    assert width_step(AttentionSpec.standard(width, heads, 8)) == step


@pytest.mark.parametrize("equal", ["compute", "cache"])
@pytest.mark.parametrize("name", MAKERS)
def test_no_other_width_comes_nearer(name: str, equal: str) -> None:
    cost = COSTS[equal]
    found = equal_width(lambda width: MAKERS[name](width) if possible(name, width) else None, STANDARD, equal)
    assert found is not None
    off = {width: abs(cost(MAKERS[name](width), CONTEXT) - cost(STANDARD, CONTEXT))
           for width in range(HEADS, MOST * WIDTH + 1, width_step(STANDARD)) if possible(name, width)}  # fmt: skip
    assert off[found.width] == min(off.values())


def test_standard_attention_keeps_its_width() -> None:
    for equal in COSTS:
        assert equal_width(MAKERS["standard"], STANDARD, equal) == STANDARD


def test_costs_by_hand() -> None:
    # Four projections, scores and values, and the MLP.
    assert block_macs(STANDARD, 32) == 32 * (4 * 64**2 + 2 * 32 * 64 + 8 * 64**2)
    assert cache_elements(STANDARD, 32) == 2 * 32 * 64


def test_a_cheaper_variant_is_wider() -> None:
    standard = AttentionSpec.standard(30, 3, 32)
    found = equal_width(lambda width: AttentionSpec.sliding_window(width, 3, 32, 2), standard, "compute")
    assert found is not None
    assert found.width % 3 == 0
    assert found.width > 30


def test_a_variant_without_a_width_is_left_out() -> None:
    assert equal_width(lambda width: None, STANDARD, "compute") is None


def test_a_variant_that_needs_some_width_has_it() -> None:
    def make(width: int) -> AttentionSpec | None:
        return AttentionSpec.standard(width, HEADS, CONTEXT) if width >= 48 else None

    assert equal_width(make, STANDARD, "cache") == STANDARD


@pytest.mark.parametrize("equal", ["compute", "cache"])
def test_all_variants_cost_about_the_same(equal: str) -> None:
    variants = equal_variants(128, 4, 64, equal)
    budget = COSTS[equal](variants[0].spec, 64)
    assert len(variants) >= 12
    for variant in variants:
        assert COSTS[equal](variant.spec, 64) == pytest.approx(budget, rel=0.1)
        assert variant.spec.heads == 4
