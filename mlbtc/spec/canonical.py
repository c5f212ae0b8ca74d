"""The canonical form of a spec: equal structures that are written differently become equal specs."""

from __future__ import annotations

from collections import Counter
from itertools import chain, product
from string import ascii_letters, digits
from typing import Any

from mlbtc.spec.digits import free_permutations, write_permutations
from mlbtc.spec.expression import Expression, is_writable
from mlbtc.spec.indices import drop_units, fuse_indices
from mlbtc.spec.labelling import rank_order, size_key
from mlbtc.spec.language import MLBTC
from mlbtc.spec.level import Level
from mlbtc.spec.rebuild import is_plain, rebuild, substituted, with_levels
from mlbtc.spec.sizes import normal


def canonical(spec: MLBTC) -> MLBTC:
    """Return the canonical form: index names, orders of factors and levels and sizes of 1 play no role any more.

    The form only renames and reorders what is learnt: the same numbers, in other places, give the same matrix, and
    parameters, best plan and rank stay what they are. Scales are kept, for they belong to the value that given factors
    have. So `canonical(A) == canonical(B)` means that A and B are one structure. The converse holds for everything that
    differs by names, orders of factors, of their axes and of levels, indices of size 1, an axis cut more finely than
    any factor needs, and permutations that are an order of indices or that rename the entries of a factor. It is not
    promised for other permutations of an axis of several indices, for symbolic permutations of an axis that symbols
    do not split, and for levels that are symmetric beyond `labelling.MAX_CHOICES`.

    Levels that say more than a product of factors keep their form.
    """
    levels = sorted((canonical_level(level) for level in spec.levels), key=_level_key)
    shape = (normal(spec.shape[0]), normal(spec.shape[1]))
    return with_levels(type(spec)(shape, levels, spec.name, spec.defaults), levels)


def canonical_level(level: Level) -> Level:
    """Return the canonical form of a level whose sizes are all known.

    Output indices are named o1, o2, ..., input indices i1, i2, ..., those of both axes b1, b2, ... and summed ones
    r1, r2, .... Where that makes an expression too long for the grammar, names are as short as can be.
    """
    if not is_plain(level):
        return level
    level = rebuild(level, sizes={name: normal(size) for name, size in level.sizes})
    level = free_permutations(fuse_indices(drop_units(level)))
    level = free_permutations(fuse_indices(drop_units(write_permutations(level))))
    return _labelled(level)


def _labelled(level: Level) -> Level:
    names = _names(level)
    renamed = substituted(level.expression, {old: (new,) for old, new in names.items()})
    place = {name: number for number, name in enumerate(names.values())}
    factors = (tuple(sorted(factor, key=place.__getitem__)) for factor in renamed.factors)
    ordered = tuple(sorted(factors, key=lambda factor: [place[name] for name in factor]))
    sizes = {names[old]: size for old, size in level.sizes}
    expression = Expression(ordered, renamed.output, renamed.input)
    if not is_writable(expression):
        short = _shortest(expression)
        expression = substituted(expression, {old: (new,) for old, new in short.items()})
        sizes = {short[name]: size for name, size in sizes.items()}
    return rebuild(level, expression=expression, sizes=sizes)


def _shortest(expression: Expression) -> dict[str, str]:
    """Return old name to new name, the shortest words for the names that stand most often: no naming is shorter."""
    uses = Counter(name for names in (*expression.factors, expression.output, expression.input) for name in names)
    letters, inner = f"{ascii_letters}_", f"{ascii_letters}_{digits}"
    words = chain(letters, map("".join, product(letters, inner)), map("".join, product(letters, inner, inner)))
    return {name: word for (name, _), word in zip(uses.most_common(), words, strict=False)}


def _names(level: Level) -> dict[str, str]:
    """Return old name to new name: output, input and then summed indices, the order in which a factor has them."""
    expression = level.expression
    names: dict[str, str] = {}
    count = dict.fromkeys("obir", 0)
    blocks = set(expression.block_indices)
    for role, group in (("o", expression.output), ("i", expression.input), ("r", rank_order(level))):
        for name in group:
            if name not in names:
                kind = "b" if name in blocks else role
                count[kind] += 1
                names[name] = f"{kind}{count[kind]}"
    return names


def _level_key(level: Level) -> tuple[Any, ...]:
    sizes = tuple(size_key(size) for _, size in level.sizes)
    return (str(level.expression), sizes, level.scale, repr(level))
