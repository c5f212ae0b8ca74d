"""Everything that is claimed of one random spec at once: matrix, gradients, counted costs, rank, and its algebra."""

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

import mlbtc
from mlbtc import MLBTC
from mlbtc.codegen import compile_matrix
from mlbtc.errors import SpecError
from tests.codegen.random_specs import Drawn, Part, drawn_specs, places
from tests.oracles import matrix as field
from tests.oracles.networks import Network

pytestmark = pytest.mark.usefixtures("without_compiler")

RANDOM = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
TOKENS = 64


def module_of(spec: MLBTC) -> nn.Module:
    torch.manual_seed(5)
    return compile_matrix(spec, dtype=torch.float64)


def same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found.detach(), expected.detach(), rtol=1e-10, atol=1e-10)


def network_of(part: Part) -> Network:
    """Return a level in the words of the oracle over a prime field."""
    names = [f"x{label}" for label in range(len(part.sizes))]

    def words(labels: list[int]) -> tuple[str, ...]:
        return tuple(names[label] for label in labels)

    sizes = dict(zip(names, part.sizes, strict=True))
    return Network(tuple(map(words, part.factors)), words(part.output), words(part.input), sizes)


def exact_rank(drawn: Drawn) -> int:
    """Return the rank of a random instance modulo a large prime; scales do not matter."""
    generator = random.Random(0)
    matrices = []
    for part in drawn.parts:
        network = network_of(part)
        matrix = field.level_matrix(network, field.random_tensors(network, generator))
        sizes = (len(matrix), len(matrix[0]))
        moves = [places(p, n) for p, n in zip((part.rows, part.columns), sizes, strict=True)]
        (row, _), (column, _) = part.at or ((0, 0), (0, 0))
        matrices.append(field.put(field.move(matrix, *moves), drawn.shape, row, column))
    return field.rank(field.add(matrices))


@RANDOM
@given(drawn=drawn_specs())
def test_costs_are_those_counted(drawn: Drawn) -> None:
    """MACs as torch counts them on the meta device: 2 FLOPs each."""
    module = mlbtc.compile(drawn.spec, device="meta")
    x = torch.empty(TOKENS, drawn.shape[1], device="meta")
    with FlopCounterMode(display=False) as flops:
        module(x)
    report = mlbtc.analyze(drawn.spec, batch=TOKENS)
    assert flops.get_total_flops() == 2 * int(report.macs)
    assert sum(p.numel() for p in module.parameters()) == int(report.parameters)


@RANDOM
@given(drawn=drawn_specs())
def test_ranks_are_those_of_an_instance(drawn: Drawn) -> None:
    report, found = mlbtc.analyze(drawn.spec), exact_rank(drawn)
    assert found == int(report.rank) if report.certainty == "exact" else found <= int(report.rank)


@settings(RANDOM, max_examples=25)
@given(drawn=drawn_specs(most=2))
def test_gradients(drawn: Drawn) -> None:
    module = module_of(drawn.spec)
    names = [name for name, _ in module.named_parameters()]
    values = [value.detach().clone().requires_grad_() for value in module.parameters()]
    x = torch.randn(2, drawn.shape[1], dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_()

    def product(x: Tensor, *values: Tensor) -> Tensor:
        return functional_call(module, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(product, (x, *values), fast_mode=True)


@RANDOM
@given(drawn=drawn_specs())
def test_files_read_back(drawn: Drawn) -> None:
    spec = drawn.spec
    again = mlbtc.loads(spec.to_yaml())
    assert (again, hash(again), again.to_yaml()) == (spec, hash(spec), spec.to_yaml())


# Algebra: the matrix of what an operation makes, from the matrices of what it was made of.


@RANDOM
@given(drawn=drawn_specs())
def test_transposes_and_scales(drawn: Drawn) -> None:
    spec = drawn.spec
    assert spec == spec.T.T
    assert -1 * (-spec) == spec
    module = module_of(-2 * spec.T)
    same(module.to_dense(), -2 * drawn.dense(list(module.parameters())).T)


@RANDOM
@given(data=st.data(), one=drawn_specs())
def test_sums(data: st.DataObject, one: Drawn) -> None:
    other = data.draw(drawn_specs(*one.shape), label="other")
    module = module_of(one.spec - other.spec)
    factors = list(module.parameters())
    count = sum(len(part.factors) for part in one.parts)
    same(module.to_dense(), one.dense(factors[:count]) - other.dense(factors[count:]))


def of_pairs(module: nn.Module, one: Drawn, other: Drawn, joined: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Join every level of one with every level of the other; an index that was split is contiguous in its factor."""
    factors = iter(module.parameters())

    def dense(part: Part) -> Tensor:
        shapes = [[part.sizes[label] for label in labels] for labels in part.factors]
        return part.dense([next(factors).reshape(shape) for shape in shapes])

    pairs = [joined(dense(left), dense(right)) for left in one.parts for right in other.parts]
    assert next(factors, None) is None
    return torch.stack(pairs).sum(0)


@RANDOM
@given(one=drawn_specs(most=2, placed=False), other=drawn_specs(most=2, placed=False))
def test_kronecker_products(one: Drawn, other: Drawn) -> None:
    module = module_of(mlbtc.kron(one.spec, other.spec))
    same(module.to_dense(), of_pairs(module, one, other, torch.kron))


@settings(RANDOM, max_examples=120)
@given(data=st.data(), one=drawn_specs(most=2, placed=False))
def test_products(data: st.DataObject, one: Drawn) -> None:
    other = data.draw(drawn_specs(rows=one.shape[1], most=2, placed=False), label="other")
    for part in one.parts:
        part.columns = None
    for part in other.parts:
        part.rows = None
    try:
        spec = one.spec @ other.spec
    except SpecError as error:
        assume("no splitting" not in str(error))
        raise
    module = module_of(spec)
    same(module.to_dense(), of_pairs(module, one, other, torch.matmul))
    assert np.linalg.matrix_rank(module.to_dense().detach().numpy()) <= int(mlbtc.analyze(spec).rank)
