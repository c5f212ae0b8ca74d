"""Every family: its matrix, and its closed forms of parameters, MACs and rank, exactly."""

import itertools
import math
import random
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import sympy as sp

from mlbtc import MLBTC, analyze, families, symbol
from mlbtc.analysis import Report
from mlbtc.errors import SpecError
from mlbtc.spec.families import FAMILIES
from tests.oracles.matrix import Tensor, add, level_matrix, move, random_tensors
from tests.oracles.networks import Network


def report_of(spec: MLBTC, batch: int | None = None) -> Report:
    report = analyze(spec, batch)
    assert isinstance(report, Report)
    return report


class Case(NamedTuple):
    """A spec and what its docstring promises; `rank` is None where only a bound is promised."""

    spec: MLBTC
    shape: tuple[Any, Any]
    parameters: Any
    macs: Any  # of one token
    rank: Any
    certainty: str = "exact"


def low_rank(m: Any, n: Any, r: Any) -> Case:
    return Case(families.low_rank((m, n), r), (m, n), (m + n) * r, (m + n) * r, sp.Min(m, n, r))


def block_diagonal(m: Any, n: Any, p: Any) -> Case:
    # sympy leaves Min(m/p, n/p) alone.
    rank = p * sp.Min(m / sp.Integer(p), n / sp.Integer(p)) if isinstance(p, int) else p * sp.Min(m / p, n / p)
    return Case(families.block_diagonal((m, n), p), (m, n), m * n / p, m * n / p, rank)


def block_low_rank(m: Any, n: Any, p: Any, r: Any) -> Case:
    m_, n_, p_ = map(sp.sympify, (m, n, p))
    spec = families.block_low_rank((m, n), p, r)
    return Case(spec, (m, n), (m + n) * r, (m + n) * r, p_ * sp.Min(m_ / p_, n_ / p_, r))


def mlr(m: Any, n: Any, ranks: list[Any], blocks: list[int] | None = None) -> Case:
    spec = families.mlr((m, n), ranks, blocks)
    counts = blocks or [2**level for level in range(len(ranks))]
    m_, n_ = sp.sympify(m), sp.sympify(n)
    total = sum(p * sp.Min(r, m_ / p, n_ / p) for p, r in zip(counts, ranks, strict=True))
    return Case(spec, (m, n), (m + n) * sum(ranks), (m + n) * sum(ranks), sp.Min(m, n, total))


def kronecker(a: int, c: int, b: int, d: int) -> Case:
    macs = min(c * d * b + a * b * c, c * d * a + a * b * d)
    spec = families.kronecker((a, c), (b, d))
    return Case(spec, (a * b, c * d), a * c + b * d, macs, min(a, c) * min(b, d))


def btt(a: Any, b: Any, c: Any, d: Any, s: Any) -> Case:
    cost = s * b * c * (a + d)
    rank = sp.Min(a * b, c * d, b * c * s)
    return Case(families.btt((a * b, c * d), s, (a, b, c, d)), (a * b, c * d), cost, cost, rank)


def monarch(m: Any, n: Any, p: Any) -> Case:
    return Case(families.monarch((m, n), p), (m, n), p * (m + n), p * (m + n), sp.Min(m, n, p**2))


def butterfly(n: int) -> Case:
    cost = 2 * n * (n.bit_length() - 1)
    return Case(families.butterfly(n), (n, n), cost, cost, n)


def diagonal(n: Any) -> Case:
    return Case(families.diagonal(n), (n, n), n, n, n)


def low_rank_plus_diagonal(n: Any, r: Any) -> Case:
    spec = families.low_rank_plus_diagonal((n, n), r)
    return Case(spec, (n, n), (2 * r + 1) * n, (2 * r + 1) * n, n)


def tensor_train(rows: list[int], columns: list[int], ranks: list[int], certainty: str = "exact") -> Case:
    edges = [1, *ranks, 1]
    cores = [edges[k] * rows[k] * columns[k] * edges[k + 1] for k in range(len(rows))]
    macs = min(sum(_core_costs(order, rows, columns, edges)) for order in itertools.permutations(range(len(rows))))
    spec = families.tensor_train(rows, columns, ranks)
    return Case(spec, (math.prod(rows), math.prod(columns)), sum(cores), macs, None, certainty)


def _core_costs(order: tuple[int, ...], rows: list[int], columns: list[int], edges: list[int]) -> list[int]:
    """Return the MACs of one token when the cores are applied in an order: rows in, columns out, edges half open."""
    done: set[int] = set()
    costs = []
    for core in order:
        after = done | {core}
        outside = math.prod(rows[k] for k in done) * math.prod(columns[k] for k in range(len(rows)) if k not in after)
        before_edges = math.prod(edges[k] for k in range(1, len(rows)) if (k - 1 in done) != (k in done))
        new_edges = math.prod(edges[k] for k in (core, core + 1) if not ({k - 1, k} & done))
        costs.append(outside * rows[core] * columns[core] * before_edges * new_edges)
        done = after
    return costs


def dense(m: Any, n: Any) -> Case:
    return Case(families.dense((m, n)), (m, n), m * n, m * n, sp.Min(m, n))


NUMERIC = {
    "dense": dense(6, 4),
    "dense-prime": dense(13, 7),
    "dense-one-row": dense(1, 9),
    "dense-one": dense(1, 1),
    "low-rank": low_rank(12, 18, 5),
    "low-rank-tall": low_rank(31, 2, 1),
    "low-rank-above-the-shape": low_rank(3, 5, 11),
    "low-rank-of-one": low_rank(1, 1, 1),
    "block-diagonal": block_diagonal(12, 18, 6),
    "block-diagonal-of-one": block_diagonal(7, 7, 7),
    "block-diagonal-tall": block_diagonal(15, 5, 5),
    "block-low-rank": block_low_rank(12, 18, 3, 2),
    "block-low-rank-full": block_low_rank(12, 18, 6, 2),
    "block-low-rank-wide-rank": block_low_rank(6, 10, 2, 9),
    "mlr": mlr(16, 24, [3, 2, 1, 1]),
    "mlr-one-level": mlr(7, 11, [3]),
    "mlr-given-blocks": mlr(18, 36, [2, 1, 2], [1, 3, 9]),
    "mlr-full": mlr(8, 8, [5, 3, 2, 1]),
    "mlr-odd": mlr(45, 15, [1, 1, 1], [1, 5, 15]),
    "kronecker": kronecker(2, 3, 5, 7),
    "kronecker-first-side-cheaper": kronecker(2, 9, 8, 3),
    "kronecker-other-side-cheaper": kronecker(9, 2, 3, 8),
    "kronecker-of-one": kronecker(1, 1, 4, 6),
    "kronecker-square": kronecker(4, 4, 4, 4),
    "btt": btt(3, 4, 5, 2, 2),
    "btt-rank-one": btt(4, 4, 4, 4, 1),
    "btt-ragged": btt(2, 7, 3, 11, 3),
    "btt-primes": btt(13, 1, 1, 17, 2),
    "btt-of-one": btt(1, 1, 1, 1, 1),
    "btt-wide-rank": btt(2, 2, 2, 2, 9),
    "monarch": monarch(12, 18, 3),
    "monarch-square": monarch(16, 16, 4),
    "monarch-one-block": monarch(5, 7, 1),
    "monarch-all-blocks": monarch(6, 6, 6),
    "butterfly-2": butterfly(2),
    "butterfly-8": butterfly(8),
    "butterfly-256": butterfly(256),
    "diagonal": diagonal(7),
    "diagonal-of-one": diagonal(1),
    "low-rank-plus-diagonal": low_rank_plus_diagonal(11, 2),
    "low-rank-plus-diagonal-of-one": low_rank_plus_diagonal(1, 1),
    "tensor-train-one-core": tensor_train([4], [6], []),
    "tensor-train-two-cores": tensor_train([2, 3], [3, 2], [2]),
    "tensor-train-bound": tensor_train([3, 5], [5, 3], [2], "upper bound"),
    "tensor-train-three-cores": tensor_train([2, 3, 2], [3, 2, 3], [2, 3]),
    "tensor-train-ones": tensor_train([1, 4, 1], [5, 1, 2], [1, 1]),
    "permutation-list": Case(families.permutation([2, 0, 1]), (3, 3), 3, 3, 3),
    "permutation-stride": Case(families.permutation("stride(3)", 12), (12, 12), 12, 12, 12),
    "permutation-bit-reversal": Case(families.permutation("bit_reversal", 16), (16, 16), 16, 16, 16),
}


def test_every_family_has_cases() -> None:
    covered = {next((f for f in FAMILIES if name.startswith(f.replace("_", "-"))), "") for name in NUMERIC}
    assert set(FAMILIES) - covered <= {"low_rank_plus_diagonal"}
    assert any(name.startswith("low-rank-plus-diagonal") for name in NUMERIC)
    assert {name: getattr(families, name) for name in FAMILIES} == FAMILIES


@pytest.mark.parametrize("tokens", [1, 7, 64], ids=lambda t: f"{t}-tokens")
@pytest.mark.parametrize("case", NUMERIC.values(), ids=NUMERIC.keys())
def test_closed_forms(case: Case, tokens: int) -> None:
    report = report_of(case.spec, tokens)
    assert case.spec.shape == case.shape
    assert report.parameters.value == case.parameters
    assert report.macs.value == tokens * case.macs
    assert report.flops.value == 2 * tokens * case.macs
    assert report.certainty == case.certainty
    if case.rank is not None:
        assert report.rank.value == case.rank


@pytest.mark.parametrize("case", [low_rank(1, 5, 9), mlr(8, 8, [5, 4, 3, 2])], ids=["low-rank", "mlr"])
def test_closed_forms_of_ranks_above_blocks_of_one_row(case: Case) -> None:
    assert report_of(case.spec).macs == symbol("T") * case.macs


@pytest.mark.parametrize("exponent", [12, 13, 14, 15, 17], ids=lambda e: f"2^{e}")
def test_large_butterflies_cost_as_promised(exponent: int) -> None:
    n = 2**exponent
    report = report_of(families.butterfly(n), 3)
    assert (report.parameters, report.macs, report.rank) == (2 * n * exponent, 3 * 2 * n * exponent, n)


D, P, R, S = (symbol(name) for name in "Dprs")
A, B, C, E = (symbol(name) for name in "abce")
SYMBOLIC = {
    "dense": (dense(D, 2 * D), {"D": 5}),
    "low-rank": (low_rank(D, E, R), {"D": 12, "e": 7, "r": 3}),
    "block-diagonal": (block_diagonal(D, 3 * D, P), {"D": 12, "p": 4}),
    "block-low-rank": (block_low_rank(D, E, P, R), {"D": 12, "e": 6, "p": 3, "r": 5}),
    "mlr": (mlr(D, D, [R, S, 2]), {"D": 16, "r": 3, "s": 1}),
    "btt": (btt(A, B, C, E, S), {"a": 3, "b": 4, "c": 5, "e": 2, "s": 2}),
    "monarch": (monarch(D, E, P), {"D": 12, "e": 18, "p": 3}),
    "diagonal": (diagonal(D), {"D": 7}),
    "low-rank-plus-diagonal": (low_rank_plus_diagonal(D, R), {"D": 7, "r": 2}),
}


@pytest.mark.parametrize(("case", "values"), SYMBOLIC.values(), ids=SYMBOLIC.keys())
def test_closed_forms_of_symbols_and_of_numbers_bound_later(case: Case, values: dict[str, int]) -> None:
    report = report_of(case.spec)
    tokens = symbol("T")
    assert report.parameters == case.parameters
    assert report.macs == tokens * case.macs
    assert report.parameters.value is None
    assert report.certainty == case.certainty
    numbers = {symbol(name): value for name, value in values.items()}
    bound = report.bind(**values, T=3)
    assert bound.parameters.value == case.parameters.subs(numbers)
    assert bound.macs.value == 3 * case.macs.subs(numbers)
    rank = sp.sympify(case.rank).subs(numbers).doit()
    assert bound.rank.value == rank
    assert sp.sympify(report.rank.symbolic).subs(numbers).doit() == rank


def test_symbolic_kronecker_is_one_of_the_two_orders_and_the_cheaper_one_when_bound() -> None:
    report = report_of(families.kronecker(("a", "c"), ("b", "e")), 1)
    orders = [C * E * B + A * B * C, C * E * A + A * B * E]
    assert any(report.macs == order for order in orders)
    for values in ({"a": 2, "c": 9, "b": 8, "e": 3}, {"a": 9, "c": 2, "b": 3, "e": 8}):
        numbers = {symbol(name): value for name, value in values.items()}
        assert report.bind(**values).macs.value == min(order.subs(numbers) for order in orders)


# Matrices


def tensors_and_matrix(spec: MLBTC) -> tuple[list[list[Tensor]], np.ndarray[Any, Any]]:
    """Draw integers for every factor and sum the levels by definition."""
    generator = random.Random(0)
    tensors, matrices = [], []
    for level in spec.levels:
        expression = level.expression
        drawn = Network(expression.factors, expression.output, expression.input, level.size_of)
        tensors.append(random_tensors(drawn, generator, high=10))
        matrices.append(level_matrix(drawn, tensors[-1]))
    return tensors, np.array(add(matrices))


def array(tensor: Tensor) -> np.ndarray[Any, Any]:
    shape = [size + 1 for size in max(tensor)]
    found = np.zeros(shape, dtype=int)
    for place, value in tensor.items():
        found[place] = value
    return found


def block_diag(blocks: list[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    m, n = blocks[0].shape
    found = np.zeros((m * len(blocks), n * len(blocks)), dtype=int)
    for k, block in enumerate(blocks):
        found[k * m : (k + 1) * m, k * n : (k + 1) * n] = block
    return found


def transposition(outer: int, inner: int) -> np.ndarray[Any, Any]:
    """Return the matrix that turns a vector of shape (outer, inner) into (inner, outer)."""
    found = np.zeros((outer * inner, outer * inner), dtype=int)
    for i, j in itertools.product(range(outer), range(inner)):
        found[j * outer + i, i * inner + j] = 1
    return found


def butterfly_matrix(factors: list[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """Multiply one sparse matrix per factor; factor j mixes digit j, the others are digits of its place."""
    count = len(factors)
    total = np.eye(2**count, dtype=int)
    for j, factor in reversed(list(enumerate(factors))):
        sparse = np.zeros((2**count, 2**count), dtype=int)
        for digits in itertools.product((0, 1), repeat=count):
            for new in (0, 1):
                place = (*digits[:j], new, *digits[j:])  # the digits of the input before j, both, those of the output
                row = int("".join(map(str, (*digits[:j], new, *digits[j + 1 :]))), 2)
                sparse[row, int("".join(map(str, digits)), 2)] = factor[place]
        total = sparse @ total
    return total


Dense = Callable[[list[list[np.ndarray[Any, Any]]]], np.ndarray[Any, Any]]
MATRICES: dict[str, tuple[MLBTC, Dense]] = {
    "dense": (families.dense((3, 4)), lambda f: f[0][0]),
    "low-rank": (families.low_rank((3, 5), 2), lambda f: f[0][0][0] @ f[0][1][0].T),
    "block-diagonal": (families.block_diagonal((6, 9), 3), lambda f: block_diag(list(f[0][0]))),
    "block-low-rank": (
        families.block_low_rank((6, 9), 3, 2),
        lambda f: block_diag([left @ right.T for left, right in zip(*f[0], strict=True)]),
    ),
    "mlr": (
        families.mlr((4, 8), (2, 1, 1)),
        lambda f: sum(block_diag([left @ right.T for left, right in zip(*level, strict=True)]) for level in f),
    ),
    "kronecker": (families.kronecker((2, 3), (4, 5)), lambda f: np.kron(f[0][0], f[0][1])),
    "tensor-train": (
        families.tensor_train((2, 3, 2), (3, 1, 2), (2, 3)),
        lambda f: sum(
            np.kron(np.kron(f[0][0][:, :, s], f[0][1][s, :, :, t]), f[0][2][t])
            for s, t in itertools.product(range(2), range(3))
        ),
    ),
    "monarch": (
        families.monarch((6, 9), 3),
        lambda f: block_diag(list(f[0][0])) @ transposition(3, 3) @ block_diag(list(f[0][1])),
    ),
    "btt-rank-1": (
        families.btt((6, 20), 1, (2, 3, 4, 5)),
        lambda f: block_diag(list(f[0][0][..., 0])) @ transposition(4, 3) @ block_diag(list(f[0][1][:, :, 0])),
    ),
    "btt-rank-2": (
        families.btt((6, 20), 2, (2, 3, 4, 5)),
        lambda f: sum(
            block_diag(list(f[0][0][..., s])) @ transposition(4, 3) @ block_diag(list(f[0][1][:, :, s]))
            for s in range(2)
        ),
    ),
    "butterfly-2": (families.butterfly(2), lambda f: f[0][0]),
    "butterfly-16": (families.butterfly(16), lambda f: butterfly_matrix(f[0])),
    "diagonal": (families.diagonal(4), lambda f: np.diag(f[0][0])),
    "low-rank-plus-diagonal": (
        families.low_rank_plus_diagonal((4, 4), 2),
        lambda f: f[0][0][0] @ f[0][1][0].T + np.diag(f[1][0]),
    ),
}


@pytest.mark.parametrize(("spec", "dense_"), MATRICES.values(), ids=MATRICES.keys())
def test_matrices(spec: MLBTC, dense_: Dense) -> None:
    tensors, found = tensors_and_matrix(spec)
    expected = dense_([[array(tensor) for tensor in level] for level in tensors])
    assert found.shape == spec.shape
    assert (found == expected).all()


def test_a_permutation_moves_entry_i_to_its_place() -> None:
    spec = families.permutation([2, 0, 1])
    (level,) = spec.levels
    assert (level.rows, level.columns) == ((2, 0, 1), None)
    moved = np.array(move([[5, 0, 0], [0, 6, 0], [0, 0, 7]], level.rows, level.columns))
    assert (moved @ np.array([1, 10, 100]) == np.array([60, 700, 5])).all()


NEAREST = {1: (1, 1), 2: (1, 2), 7: (1, 7), 12: (3, 4), 16: (4, 4), 18: (3, 6), 1000: (25, 40), 1024: (32, 32)}


@pytest.mark.parametrize(("size", "expected"), NEAREST.items(), ids=str)
def test_btt_splits_nearest_to_square(size: int, expected: tuple[int, int]) -> None:
    sizes = families.btt((size, size), 1).levels[0].size_of
    assert (sizes["a"], sizes["b"]) == (sizes["c"], sizes["d"]) == expected


def test_btt_of_a_large_prime_is_quick_and_dense() -> None:
    prime = 16777213
    assert sp.isprime(prime)
    sizes = families.btt((prime, prime), 1).levels[0].size_of
    assert (sizes["a"], sizes["b"]) == (1, prime)


def test_btt_of_a_symbol_takes_square_roots() -> None:
    spec = families.btt((D, D), 2)
    assert spec.levels[0].size_of["a"] == sp.sqrt(D)
    assert spec.bind(D=49) == families.btt((49, 49), 2)
    with pytest.raises(SpecError):
        spec.bind(D=50)


BAD: dict[str, tuple[Callable[[], MLBTC], tuple[str, ...]]] = {
    "block-diagonal": (lambda: families.block_diagonal((6, 8), 4), ("4 blocks", "6")),
    "mlr-lengths": (lambda: families.mlr((8, 8), (1, 2), (1,)), ("2 ranks", "1 block")),
    "mlr-empty": (lambda: families.mlr((8, 8), ()), ("0 ranks",)),
    "mlr-blocks": (lambda: families.mlr((6, 6), (1, 1, 1)), ("levels[2]", "4 blocks", "6")),
    "tensor-train-lengths": (lambda: families.tensor_train((2, 3), (2, 3), (1, 1)), ("k - 1 ranks", "2, 2 and 2")),
    "tensor-train-empty": (lambda: families.tensor_train((), (), ()), ("found 0",)),
    "btt-three-factors": (lambda: families.btt((4, 4), 1, (2, 2, 2)), ("(a, b, c, d)", "[2, 2, 2]")),
    "btt-product": (lambda: families.btt((4, 4), 1, (2, 2, 2, 4)), ("input", "c=2 * d=4", "8", "4")),
    "btt-shape": (lambda: families.btt((4, 4, 4), 1), ("pair",)),
    "monarch-output": (lambda: families.monarch((5, 4), 2), ("2 blocks", "output", "5")),
    "monarch-input": (lambda: families.monarch((4, 5), 2), ("2 blocks", "input", "5")),
    "butterfly-of-one": (lambda: families.butterfly(1), ("power of 2", "1")),
    "butterfly-of-twelve": (lambda: families.butterfly(12), ("power of 2", "12")),
    "butterfly-of-a-symbol": (lambda: families.butterfly("n"), ("power of 2", "n")),  # type: ignore[arg-type]
    "low-rank-plus-diagonal": (lambda: families.low_rank_plus_diagonal((4, 6), 1), ("levels[1]", "4", "6")),
    "permutation-name": (lambda: families.permutation("bit_reversal"), ("bit_reversal", "size n")),
    "permutation-size": (lambda: families.permutation([1, 0], 3), ("2", "3")),
    "permutation-twice": (lambda: families.permutation([1, 1]), ("twice",)),
    "zero-rank": (lambda: families.low_rank((4, 4), 0), ("rank", "0")),
    "kronecker-size": (lambda: families.kronecker((2, 0), (2, 2)), ("a_shape", "0")),
}


@pytest.mark.parametrize(("make", "words"), BAD.values(), ids=BAD.keys())
def test_bad_arguments(make: Callable[[], MLBTC], words: tuple[str, ...]) -> None:
    with pytest.raises(SpecError) as caught:
        make()
    for word in words:
        assert word in str(caught.value)
