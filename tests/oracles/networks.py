"""Random levels: a few factors, indices that touch any number of them, block indices, sizes of 1 and primes."""

import math
from typing import NamedTuple

from hypothesis import strategies as st

from mlbtc import MLBTC, Level

# T is also what plans call the index of tokens.
NAMES = ("a", "T", "b", "c", "d", "e", "f", "g")


class Network(NamedTuple):
    """One level in plain tuples."""

    factors: tuple[tuple[str, ...], ...]
    output: tuple[str, ...]
    input: tuple[str, ...]
    sizes: dict[str, int]

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = (math.prod(self.sizes[name] for name in axis) for axis in (self.output, self.input))
        return rows, columns

    @property
    def expression(self) -> str:
        left = ", ".join(" ".join(factor) for factor in self.factors)
        return f"{left} -> ({' '.join(self.output)}) ({' '.join(self.input)})"

    @property
    def level(self) -> Level:
        return Level.einsum(self.expression, self.sizes)

    @property
    def spec(self) -> MLBTC:
        return MLBTC(self.shape, [self.level])


def network(expression: str, **sizes: int) -> Network:
    """Split a simple expression by hand: factors, `->`, two groups in parentheses."""
    left, right = expression.split("->")
    output, input_ = right.replace(")", "").split("(")[1:]
    factors = tuple(tuple(factor.split()) for factor in left.split(","))
    return Network(factors, tuple(output.split()), tuple(input_.split()), sizes)


@st.composite
def networks(
    draw: st.DrawFn,
    sizes: tuple[int, ...] = (1, 2, 3, 4, 5, 7),
    max_factors: int = 4,
    max_product: int = 2000,
    alone: bool = True,
) -> Network:
    """Draw a level.

    Args:
        draw: of hypothesis.
        sizes: what an index size may be.
        max_factors: the largest number of factors.
        max_product: bound of the product of all index sizes.
        alone: whether a summed index may touch a single factor.
    """
    count = draw(st.integers(1, max_factors))
    roles = ["output", "input", *draw(st.lists(st.sampled_from(["output", "input", "block", "rank"]), max_size=6))]
    touched: dict[str, set[int]] = {}
    size_of: dict[str, int] = {}
    role_of: dict[str, str] = {}
    for name, role in zip(draw(st.permutations(NAMES)), roles, strict=False):
        least = 2 if role == "rank" and not alone else 1
        if least > count:
            continue
        touched[name] = draw(st.sets(st.integers(0, count - 1), min_size=least, max_size=count))
        role_of[name] = role
        size = draw(st.sampled_from(sizes))
        size_of[name] = size if math.prod(size_of.values()) * size <= max_product else 1
    reached = _reached(touched, role_of)
    factors = [tuple(name for name in touched if number in touched[name]) for number in sorted(reached)]
    names = [name for name in touched if touched[name] & reached]
    output = [name for name in names if role_of[name] in ("output", "block")]
    input_ = draw(st.permutations([name for name in names if role_of[name] in ("input", "block")]))
    return Network(tuple(factors), tuple(output), tuple(input_), {name: size_of[name] for name in names})


def _reached(touched: dict[str, set[int]], role_of: dict[str, str]) -> set[int]:
    """Return the factors that are linked with an axis; a spec holds no others."""
    reached = set().union(*(held for name, held in touched.items() if role_of[name] != "rank"))
    for _ in touched:
        for held in touched.values():
            if held & reached:
                reached |= held
    return reached
