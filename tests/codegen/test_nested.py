"""Nested low rank with all factors side by side: the same matrix, parameters and FLOPs as level by level."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import mlbtc
from mlbtc import MLBTC, Level, families
from mlbtc.codegen.matrix import generate_matrix
from mlbtc.codegen.modules import compile_matrix, module_class
from mlbtc.codegen.nested import is_nested
from mlbtc.codegen.tuning import Candidate, Layout
from mlbtc.errors import CodegenError
from mlbtc.tuner import candidates


@st.composite
def nested_specs(draw: st.DrawFn) -> MLBTC:
    """Sums of low-rank levels whose counts divide the finest one, in any order, with scales."""
    finest = draw(st.sampled_from([1, 2, 3, 4, 6, 12]))
    divisors = [count for count in range(1, finest + 1) if finest % count == 0]
    counts = draw(st.permutations([finest, *draw(st.lists(st.sampled_from(divisors), min_size=1, max_size=3))]))
    ranks = [draw(st.integers(1, 3)) for _ in counts]
    rows = draw(st.integers(sum(ranks), sum(ranks) + 3))
    scales = [draw(st.sampled_from([1, -2, 0.5])) for _ in counts]
    levels = [Level(blocks=p, rank=r, scale=s) for p, r, s in zip(counts, ranks, scales, strict=True)]
    return MLBTC((finest * rows, finest * draw(st.integers(1, 4))), levels)


def module(spec: MLBTC, layout: Layout) -> torch.nn.Module:
    candidate = Candidate("torch", layout=layout)
    return module_class(spec, candidate, optional=False)(dtype=torch.float64)


def by_blocks(spec: MLBTC, factors: list[Tensor]) -> Tensor:
    """Return the matrix in float64, block by block."""
    dense = torch.zeros(spec.shape, dtype=torch.float64)
    for number, level in enumerate(spec.levels):
        left, right = factors[2 * number : 2 * number + 2]
        blocks = [u @ v.T for u, v in zip(left, right, strict=True)]
        dense = dense + level.scale * torch.block_diag(*blocks)
    return dense


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(spec=nested_specs(), tokens=st.sampled_from([0, 1, 5]))
def test_the_product_and_all_gradients_are_those_of_the_matrix(spec: MLBTC, tokens: int) -> None:
    assert is_nested(spec)
    nested, levels = module(spec, "nested"), module(spec, "levels")
    levels.load_state_dict(nested.state_dict())
    x = torch.randn(tokens, spec.shape[1], dtype=torch.float64, requires_grad=True)
    factors = list(nested.parameters())
    oracle = x @ by_blocks(spec, factors).T
    grad = torch.randn_like(oracle)
    expected = [oracle, *torch.autograd.grad(oracle, [x, *factors], grad)]
    for made in (nested, levels):
        y = made(x)
        found = [y, *torch.autograd.grad(y, [x, *made.parameters()], grad)]
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(spec=nested_specs())
def test_flops_are_those_of_the_report(spec: MLBTC) -> None:
    made = module(spec, "nested").to("meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        made(torch.empty(7, spec.shape[1], device="meta", dtype=torch.float64))
    assert counter.get_total_flops() == int(mlbtc.analyze(spec, batch=7).flops)


def test_parameters_and_what_a_seed_draws_are_the_same() -> None:
    drawn = []
    for layout in ("nested", "levels"):
        torch.manual_seed(3)
        drawn.append(module(families.mlr((24, 16), [2, 1, 1]), layout).state_dict())
    assert list(drawn[0]) == list(drawn[1])
    torch.testing.assert_close(drawn[0], drawn[1], rtol=0, atol=0)


def test_two_products_whatever_the_number_of_levels() -> None:
    source = generate_matrix(families.mlr((64, 64), [2, 2, 2, 1]), target="torch", layout="nested")
    assert source.count("torch.bmm(") == 2
    assert source.count("torch.mm(") == 0


BLOCKS = [Level(blocks=2, rank=1), Level(blocks=4, rank=1)]
OTHERS = {
    "one-level": MLBTC((8, 8), BLOCKS[:1]),
    "block-diagonal": MLBTC((8, 8), [*BLOCKS, Level(blocks=8)]),
    "counts-that-do-not-divide": MLBTC((12, 12), [Level(blocks=2, rank=1), Level(blocks=3, rank=1)]),
    "permuted": MLBTC((8, 8), [BLOCKS[0], Level(blocks=4, rank=1, permutation=("bit_reversal", None))]),
    "placed": mlbtc.block_diag(families.low_rank((4, 4), 1), families.low_rank((4, 4), 1)),
    "larger-than-the-output": MLBTC((8, 64), [BLOCKS[0], Level(blocks=4, rank=2)]),
}


@pytest.mark.parametrize("spec", OTHERS.values(), ids=OTHERS.keys())
def test_other_specs_are_refused(spec: MLBTC) -> None:
    assert not is_nested(spec)
    with pytest.raises(CodegenError, match="the layout 'nested' takes two or more low-rank levels"):
        generate_matrix(spec, target="torch", layout="nested")


def test_autotune_races_it() -> None:
    spec = families.mlr((24, 16), [2, 1, 1])
    assert Candidate("torch", layout="nested") in set(candidates(spec, 8, torch.float32))
    assert Candidate("torch", layout="nested") not in set(candidates(OTHERS["permuted"], 8, torch.float32))


def test_one_graph_autocast_and_vmap() -> None:
    spec = families.mlr((16, 16), [2, 1, 1])
    made = module(spec, "nested")
    x = torch.randn(3, 5, 16, dtype=torch.float64)
    expected = x @ by_blocks(spec, list(made.parameters())).T
    torch.testing.assert_close(torch.vmap(made)(x), expected)
    torch.testing.assert_close(torch.compile(made, fullgraph=True, backend="aot_eager")(x), expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert made.float()(x.float()).dtype == torch.bfloat16


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize(("tokens", "layout"), [(None, "nested"), (1, "levels"), (16, "levels"), (1024, "nested")])
def test_the_torch_target_takes_the_layout_that_was_faster_for_so_many_tokens(
    tokens: int | None, layout: Layout, device: str
) -> None:
    spec = families.mlr((1024, 1024), [32] * 4)
    made = compile_matrix(spec, target="torch", tokens=tokens, device=device)
    assert made.candidate.layout == layout
    assert ("side by side" in made.explain()) == (layout == "nested")


def test_other_specs_keep_their_plan_for_many_tokens() -> None:
    made = compile_matrix(families.btt((16, 16), rank=1), target="torch", tokens=64, device="meta")
    assert made.candidate == Candidate("torch", 64)
