"""Contraction graph to plan: opt_einsum finds the pairwise order, symbols give its exact cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import sympy as sp

from mlbtc.graph.build import INPUT, OUTPUT, ContractionGraph
from mlbtc.plan.stem import products_path, products_text, sequence_path, stem_path
from mlbtc.plan.step import TOKENS, Operand, Step, index_key, replay
from mlbtc.spec.place import Range, covered, disjoint, equal, length
from mlbtc.spec.sizes import Size, evaluate, largest, product, symbol, total

Path = tuple[tuple[int, ...], ...]
_EXHAUSTIVE_OPERANDS = 5
_DYNAMIC_OPERANDS = 9
_STEM_FACTORS = 12
"""Largest networks for which each search is quick whatever the network looks like."""


@dataclass(frozen=True, slots=True)
class LevelPlan:
    """How one level is applied to T tokens.

    Attributes:
        factors: the factors, called f0, f1, ...
        activation: the input x as this level sees it, its indices behind the token index.
        steps: the pairwise steps; the last one yields the level's output.
        output: indices of the output behind the token index.
        sizes: index name to size, without the token index.
        chosen_by: which search found the path.
        rows: which rows of the matrix the level fills; None for all.
        columns: which columns.
    """

    factors: tuple[Operand, ...]
    activation: Operand
    steps: tuple[Step, ...]
    output: tuple[str, ...]
    sizes: tuple[tuple[str, Size], ...]
    chosen_by: str
    rows: Range | None = None
    columns: Range | None = None

    @property
    def macs(self) -> Size:
        """Multiply-adds of all steps."""
        return total([step.macs for step in self.steps])


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan for every level of a matrix.

    Attributes:
        shape: `(out, in)`.
        levels: one plan per level.
        tokens: the number of tokens, a number or the symbol T.
    """

    shape: tuple[Size, Size]
    levels: tuple[LevelPlan, ...]
    tokens: Size

    @property
    def macs(self) -> Size:
        """Multiply-adds of all levels."""
        return total([level.macs for level in self.levels])

    @property
    def dense_macs(self) -> Size:
        """Multiply-adds of the dense matrix of the same shape."""
        return product([self.tokens, *self.shape])

    @property
    def summed_rows(self) -> tuple[Size, ...]:
        """For each level that meets rows of an earlier one how many rows it adds to what is there."""
        filled = [level.rows or (0, self.shape[0]) for level in self.levels]
        meeting = (n for n, rows in enumerate(filled) if not all(disjoint(rows, other) for other in filled[:n]))
        return tuple(length(filled[number]) for number in meeting)

    @property
    def columns_read(self) -> Size:
        """How many columns of the input the levels read together, at most."""
        return covered([level.columns or (0, self.shape[1]) for level in self.levels], self.shape[1])

    @property
    def largest(self) -> Size:
        """Elements of the largest result of any step."""
        return largest([step.elements for level in self.levels for step in level.steps])

    def __str__(self) -> str:
        lines = [f"plan for {self.tokens} tokens: {self.macs} MACs, dense {self.dense_macs} MACs, "
                 f"largest intermediate {self.largest} elements"]  # fmt: skip
        for number, level in enumerate(self.levels):
            lines.append(f"  level {number} ({level.chosen_by})")
            lines += [f"    {step}" for step in level.steps]
        return "\n".join(lines)


def build_plan(
    contraction: ContractionGraph,
    tokens: Size | None = None,
    for_tokens: int | None = None,
    values: Mapping[str, int] | None = None,
    products: int | None = None,
) -> Plan:
    """Plan the product of a matrix with T tokens.

    Args:
        contraction: a checked graph; sizes may be symbols.
        tokens: T in the costs, a number or a symbol; None for the symbol T.
        for_tokens: the number of tokens for which the order is best; factors may then be multiplied with each other
            first, once per call. With None, the activation is part of every step, so that every cost is T times the
            cost of one token.
        values: numbers for symbols, for which the order is best; others get representative ones.
        products: multiply the factors of each level to so many products first, at most, those that the activation would
            meet one after the other; few large products run faster than many small ones. Not with `for_tokens`.

    Returns:
        The plan with the fewest MACs that the searches found, before `products` changes it.
    """
    count = symbol(TOKENS) if tokens is None else tokens
    numbers = values or {}
    levels = tuple(
        _plan_level(contraction, level, count, for_tokens, numbers, products) for level in range(contraction.levels)
    )
    return Plan(contraction.shape, levels, count)


def _plan_level(
    contraction: ContractionGraph,
    level: int,
    tokens: Size,
    for_tokens: int | None,
    values: Mapping[str, int],
    products: int | None,
) -> LevelPlan:
    sizes = {index_key(name): size for name, size in contraction.sizes(level).items()}
    factors = tuple(
        Operand(f"f{node[2]}", tuple(map(index_key, contraction.indices_of(node))))
        for node in contraction.factors(level)
    )
    input_ = tuple(map(index_key, contraction.axis(level, INPUT)))
    output = (TOKENS, *map(index_key, contraction.axis(level, OUTPUT)))
    operands = (*factors, Operand("x", (TOKENS, *input_)))
    numbers = {name: evaluate(size, values) for name, size in sizes.items()}
    path, chosen_by = find_path(operands, output, {**numbers, TOKENS: for_tokens or 1}, for_tokens is None)
    if products is not None:
        path, chosen_by = products_path(path, products), products_text(products)
    steps = replay(operands, output, path, {**sizes, TOKENS: tokens})
    filled = (contraction.range(level, which) for which in (OUTPUT, INPUT))
    rows, columns = (None if equal(a, (0, whole)) else a for a, whole in zip(filled, contraction.shape, strict=True))
    return LevelPlan(factors, operands[-1], steps, output, tuple(sizes.items()), chosen_by, rows, columns)


def find_path(
    operands: Sequence[Operand], output: tuple[str, ...], sizes: Mapping[str, Size], per_token: bool = False
) -> tuple[Path, str]:
    """Return the path with the fewest MACs and the name of the search that found it.

    opt_einsum weighs a product without a sum half as much as one with a sum, and knows nothing of ties, so its path is
    compared in MACs with the best one in which the activation meets one factor after the other.

    Args:
        operands: the factors, then the activation.
        output: indices of the result.
        sizes: index name to size, that of the tokens among them.
        per_token: leave out paths with a step that the activation is not part of.
    """
    return _find_path(tuple(operands), output, tuple(_representatives(sizes).items()), per_token)


@lru_cache(maxsize=1024)
def _find_path(
    operands: tuple[Operand, ...], output: tuple[str, ...], sizes: tuple[tuple[str, int], ...], per_token: bool
) -> tuple[Path, str]:
    numbers = dict(sizes)
    count = len(operands) - 1
    if count <= _STEM_FACTORS:
        candidates = [(stem_path(operands, output, numbers), "activation first")]
        if per_token:
            return candidates[0]  # the best of all orders in which the activation is part of every step
    else:
        candidates = [(sequence_path(count, reverse), "factors in sequence") for reverse in (True, False)]
    candidates.append(_opt_einsum_path(operands, output, numbers))
    replayed = [(replay(operands, output, path, numbers), path, search) for path, search in candidates]
    if per_token:
        replayed = [found for found in replayed if all(TOKENS in step.left.indices for step in found[0])]
    _, path, search = min(replayed, key=lambda found: sum(int(step.macs) for step in found[0]))
    return path, search


def _opt_einsum_path(
    operands: Sequence[Operand], output: tuple[str, ...], numbers: Mapping[str, int]
) -> tuple[Path, str]:
    # With NumPy behind it the import takes a fifth of a second, and most reports never need it.
    import opt_einsum

    letters = {name: opt_einsum.get_symbol(position) for position, name in enumerate(numbers)}
    equation = ",".join("".join(letters[i] for i in o.indices) for o in operands)
    equation += "->" + "".join(letters[i] for i in output)
    count = len(operands)
    search = "optimal" if count <= _EXHAUSTIVE_OPERANDS else "dp" if count <= _DYNAMIC_OPERANDS else "greedy"
    shapes = [tuple(numbers[i] for i in o.indices) for o in operands]
    path, _ = opt_einsum.contract_path(equation, *shapes, shapes=True, optimize=search)
    return tuple(tuple(step) for step in path), f"opt_einsum {search}"


def _representatives(sizes: Mapping[str, Size]) -> dict[str, int]:
    """Return numbers to choose a path with.

    Symbols get distinct values; ranks (symbols that do not reach the shape) are not known here, so all are of the
    order of a typical width, and derived sizes such as D/4 follow from them.
    """
    symbols = sorted({s for size in sizes.values() if isinstance(size, sp.Expr) for s in size.free_symbols}, key=str)
    values = {s: 4096 * (1 + 2 * position) for position, s in enumerate(symbols)}
    return {
        # The root of a size that is negative at these values is complex: only its magnitude matters here.
        name: size if isinstance(size, int) else max(2, round(abs(complex(size.subs(values)))))
        for name, size in sizes.items()
    }
