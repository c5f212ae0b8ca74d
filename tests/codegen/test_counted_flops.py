"""What torch counts while a compiled module runs on the meta device is what `analyze` says, to the last FLOP."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch.utils.flop_counter import FlopCounterMode

import mlbtc
from mlbtc import MLBTC, Level, families
from tests.codegen.random_specs import Drawn, drawn_specs

BATCH = 64


def counted(spec: MLBTC) -> int:
    module = mlbtc.compile(spec, device="meta", target="torch")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(torch.empty(BATCH, int(module.spec.shape[1]), device="meta"))
    return int(counter.get_total_flops())


def claimed(spec: MLBTC) -> int:
    return int(mlbtc.analyze(spec, batch=BATCH).flops)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(drawn_specs())
def test_any_spec(drawn: Drawn) -> None:
    assert counted(drawn.spec) == claimed(drawn.spec)


UNUSUAL = {
    "diagonal": families.diagonal(13),
    "blocks-of-one": families.block_diagonal((12, 12), 12),
    "outer-product": families.low_rank((7, 11), 1),
    "one-by-one": families.dense((1, 1)),
    "prime-btt": families.btt((7, 13), 2),
    "low-rank-plus-diagonal": families.low_rank_plus_diagonal((31, 31), 1),
    "hyperedge": MLBTC((6, 10), [Level.einsum("i h, h, j h, h -> i j", {"h": 5})]),
    "elementwise-on-both-sides": MLBTC((6, 10), [Level.einsum("i, i j, j, j -> i j")]),
    "summed-alone": MLBTC((6, 10), [Level.einsum("i h s, j h t -> i j", {"h": 2, "s": 3, "t": 4})]),
    "permuted": MLBTC((8, 8), [Level(2, 3, permutation=("bit_reversal", "stride(2)")), Level(scale=0.5)]),
    "defaults": families.mlr(("D", "D"), [4, 2]).with_defaults({"D": 48}),
    "kron-of-sums": mlbtc.kron(families.low_rank((3, 4), 2) + families.dense((3, 4)), families.diagonal(5)),
}


@pytest.mark.parametrize("spec", UNUSUAL.values(), ids=UNUSUAL.keys())
def test_unusual_specs(spec: MLBTC) -> None:
    assert counted(spec) == claimed(spec) > 0
