"""The score compiler: every split against its definition, and the orders of the paper found by search."""

import itertools
import math

import pytest
from hypothesis import given, settings

from mlbtc import MLBTC, Level, families
from mlbtc.graph import build_graph, check
from mlbtc.plan.score import ScorePlan, plan_score, plan_side
from mlbtc.plan.split import EXHAUSTIVE_FACTORS, Split, find_splits
from tests.oracles.networks import Network, networks


def plan_of(spec: MLBTC, tokens: int) -> ScorePlan:
    return plan_score(check(build_graph(spec)), tokens)


def splits_of(spec: MLBTC) -> tuple[Split, ...]:
    return find_splits(check(build_graph(spec)), 0)


def cheapest(network: Network, side: tuple[int, ...], axis: tuple[str, ...], far: tuple[str, ...]) -> int:
    """Return the least MACs of a token with `axis` that meets the factors of a side, by trying every order."""
    others = [set(names) for number, names in enumerate(network.factors) if number not in side]
    costs = []
    for order in itertools.permutations(side):
        carried, total, left = set(axis), 0, list(order)
        for number in order:
            left.remove(number)
            needed = set(far).union(*others, *(set(network.factors[n]) for n in left))
            factor = set(network.factors[number])
            # What only the factor has, and nothing else needs, is summed before the product.
            factor = {name for name in factor if name in carried or name in needed}
            total += math.prod(network.sizes[name] for name in carried | factor)
            carried = (carried | factor) & needed
        costs.append(total)
    return min(costs)


@settings(derandomize=True, max_examples=80, deadline=None)
@given(networks(max_factors=4, max_product=10**6))
def test_every_split_costs_what_its_definition_says(drawn: Network) -> None:
    level = Level.einsum(drawn.expression, drawn.sizes)
    found = splits_of(MLBTC(drawn.shape, [level]))
    assert {frozenset(split.query) for split in found} == {
        frozenset(side)
        for n in range(len(drawn.factors) + 1)
        for side in itertools.combinations(range(len(drawn.factors)), n)
    }
    for split in found:
        near = set(drawn.output).union(*(drawn.factors[n] for n in split.query))
        far = set(drawn.input).union(*(drawn.factors[n] for n in split.key))
        cut = {name.rstrip("'") for name in split.cut}
        assert cut == near & far
        assert split.features == math.prod(drawn.sizes[name] for name in cut)
        assert split.query_macs == cheapest(drawn, split.query, drawn.output, drawn.input)
        assert split.key_macs == cheapest(drawn, split.key, drawn.input, drawn.output)


@settings(derandomize=True, max_examples=40, deadline=None)
@given(networks(max_factors=4, max_product=10**6))
def test_the_plan_of_a_side_costs_what_the_split_says(drawn: Network) -> None:
    contraction = check(build_graph(MLBTC(drawn.shape, [Level.einsum(drawn.expression, drawn.sizes)])))
    for split in find_splits(contraction, 0):
        for side, macs in (("query", split.query_macs), ("key", split.key_macs)):
            plan = plan_side(contraction, 0, split, side, 1)
            assert (0 if plan is None else plan.macs) == macs


# Tables 2 and 3 of the paper

SIZES = [(64, 32), (64, 1024), (256, 128), (1024, 4096)]


@pytest.mark.parametrize(("width", "tokens"), SIZES, ids=str)
def test_standard_attention_is_low_rank_with_a_factor_on_each_side(width: int, tokens: int) -> None:
    rank = width // 8
    plan = plan_of(families.low_rank((width, width), rank), tokens)
    assert plan.cost(tokens) == tokens**2 * rank + 2 * tokens * width * rank
    assert plan.chosen[0].side == "both"


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(("width", "tokens"), SIZES, ids=str)
def test_a_block_tensor_train_has_both_factors_on_the_key_side(width: int, tokens: int, rank: int) -> None:
    plan = plan_of(families.btt((width, width), rank), tokens)
    assert plan.cost(tokens) == tokens**2 * width + 2 * rank * tokens * width * math.isqrt(width)
    assert plan.chosen[0].side == "key"
    split = next(s for s in plan.rejected[0] if s.query == (0,))
    assert split.features == rank * width


@pytest.mark.parametrize(("width", "tokens"), SIZES, ids=str)
def test_mlr_splits_every_level(width: int, tokens: int) -> None:
    ranks = (width // 16, width // 32, width // 64)
    plan = plan_of(families.mlr((width, width), ranks), tokens)
    features = sum(2**level * rank for level, rank in enumerate(ranks))
    assert plan.features == features
    assert plan.cost(tokens) == tokens**2 * features + 2 * tokens * width * sum(ranks)
    assert {split.side for split in plan.chosen} == {"both"}


# Beyond the paper


def test_levels_on_one_side_share_their_features() -> None:
    plan = plan_of(families.low_rank_plus_diagonal((64, 64), 8), 128)
    assert plan.features == 64
    assert plan.macs == 2 * 64 * 8 + 64
    assert [segment.levels for segment in plan.segments] == [(0, 1)]


def test_ranks_beyond_the_width_are_not_paid_for() -> None:
    plan = plan_of(families.mlr((32, 32), (16, 8, 8)), 256)
    assert plan.features == 32


def test_a_small_level_stays_apart_from_one_that_needs_the_whole_width_where_that_is_cheaper() -> None:
    wide = Level.einsum("i j -> i j")
    plan = plan_of(MLBTC((64, 64), [wide, Level(1, 4)]), 512)
    assert plan.features == 64
    assert plan.cost(512) <= min(s.cost(512) for s in splits_of(MLBTC((64, 64), [wide]))) + 512 * 2 * 64 * 4


@pytest.mark.parametrize(("tokens", "side"), [(1, "key"), (10**6, "both")])
def test_the_choice_follows_the_number_of_tokens(tokens: int, side: str) -> None:
    # A narrow waist that costs much to reach.
    spec = MLBTC((64, 64), [Level.einsum("i r, r u, u j -> i j", {"r": 32, "u": 40})])
    chosen = plan_of(spec, tokens).chosen[0]
    assert chosen.cost(tokens) == min(split.cost(tokens) for split in splits_of(spec))
    if side == "both":
        assert chosen.features == 32


def test_long_chains_are_cut_in_two() -> None:
    factors = ", ".join(f"i{n} i{n + 1}" for n in range(EXHAUSTIVE_FACTORS + 3))
    last = EXHAUSTIVE_FACTORS + 3
    sizes = {f"i{n}": 8 for n in range(last + 1)} | {"i7": 2}
    plan = plan_of(MLBTC((8, 8), [Level.einsum(f"{factors} -> i0 i{last}", sizes)]), 1000)
    assert plan.features == 2
    assert sorted(plan.chosen[0].query) == list(range(7))


def test_a_plan_reads_well() -> None:
    text = str(plan_of(families.btt((64, 64), 2), 128))
    for word in ("64 features", "2048 MACs", "query x | key f0, f1"):
        assert word in text
