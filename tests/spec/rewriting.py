"""Other ways to write a spec: names, orders of factors and levels, sizes of 1, indices cut in two."""

import random
from dataclasses import replace

from mlbtc import MLBTC, Level
from mlbtc.spec.expression import Expression
from mlbtc.spec.sizes import Size


def rewritten(spec: MLBTC, seed: int) -> MLBTC:
    """Return the same structure in other words."""
    generator = random.Random(seed)
    levels = [_level(level, generator) for level in spec.levels]
    generator.shuffle(levels)
    return MLBTC(spec.shape, levels, "rewritten", spec.defaults)


def _level(level: Level, generator: random.Random) -> Level:
    expression, sizes = level.expression, level.size_of
    if generator.random() < 0.5:
        expression, sizes = _split(expression, sizes, generator)
    if generator.random() < 0.5:
        expression, sizes = _with_unit(expression, sizes, generator)
    names = list(expression.indices)
    others = [f"{letter}{number}" for letter in "xyz" for number in range(len(names))]
    generator.shuffle(others)
    new = dict(zip(names, others, strict=False))
    factors = [generator.sample([new[n] for n in factor], len(factor)) for factor in expression.factors]
    generator.shuffle(factors)
    output, input_ = ([new[n] for n in axis] for axis in (expression.output, expression.input))
    text = f"{', '.join(map(' '.join, factors))} -> ({' '.join(output)}) ({' '.join(input_)})"
    return Level.einsum(text, {new[n]: sizes[n] for n in names}, level.scale, (level.rows, level.columns), level.at)


def _split(
    expression: Expression, sizes: dict[str, Size], generator: random.Random
) -> tuple[Expression, dict[str, Size]]:
    """Cut an index in two neighbours."""
    name = generator.choice(expression.indices)
    size = sizes[name]
    if not isinstance(size, int):
        return expression, sizes
    outer = generator.choice([d for d in range(1, size + 1) if size % d == 0])

    def cut(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(part for n in names for part in ((n, "cut") if n == name else (n,)))

    new = Expression(tuple(map(cut, expression.factors)), cut(expression.output), cut(expression.input))
    return new, {**sizes, name: outer, "cut": size // outer}


def _with_unit(
    expression: Expression, sizes: dict[str, Size], generator: random.Random
) -> tuple[Expression, dict[str, Size]]:
    """Add an index of size 1 to a factor, and perhaps to an axis."""
    factors = list(expression.factors)
    at = generator.randrange(len(factors))
    factors[at] = (*factors[at], "unit")
    new = replace(expression, factors=tuple(factors))
    if generator.random() < 0.5:
        new = replace(new, input=("unit", *new.input))
    return new, {**sizes, "unit": 1}
