"""The best factors of one level by singular value decompositions, see `mlbtc.fitting.splits`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mlbtc.fitting.network import Network
from mlbtc.fitting.splits import Cut, Leaf, Names, Tree, extent


def decompose(level: Network, tree: Tree, target: Tensor) -> dict[str, Tensor]:
    """Return factors of a level whose product is near a tensor: the nearest where the tree is one cut or less.

    Args:
        level: a level whose factors are tensors of their own.
        tree: its cuts.
        target: what the product should be, over `level.axes`, float64.

    Returns:
        The parameters by name, of equal norms.
    """
    found: dict[int, Tensor] = {}
    _fill(level, tree, target, level.axes, found)
    return balanced({level.parameters[factor]: found[factor] for factor in sorted(found)})


def is_optimal(tree: Tree | None) -> bool:
    """Return whether the factors that a tree gives are the best there are, and not only near them."""
    return isinstance(tree, Leaf) or (tree is not None and tree.is_single)


def balanced(factors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return factors with the same product and equal norms: none grows or vanishes when they are trained."""
    norms = [float(factor.norm()) for factor in factors.values()]
    if min(norms) == 0:
        return dict(factors)
    mean = torch.tensor(norms, dtype=torch.float64).log().mean().exp()
    return {name: factor * (mean / norm) for (name, factor), norm in zip(factors.items(), norms, strict=True)}


def _fill(level: Network, tree: Tree, target: Tensor, opened: Names, found: dict[int, Tensor]) -> None:
    if isinstance(tree, Leaf):
        found[tree.factor] = _spread(level, level.factors[tree.factor], target, opened)
        return
    left, right = _separate(tree, target, opened, level.sizes)
    _fill(level, tree.left, left, (*tree.shared, *tree.only_left, *tree.summed), found)
    _fill(level, tree.right, right, (*tree.shared, *tree.summed, *tree.only_right), found)


def _spread(level: Network, names: Names, target: Tensor, opened: Names) -> Tensor:
    """Return a factor that is a tensor, once it is summed over the indices that the tensor does not have."""
    lone = [name for name in names if name not in opened]
    kept = [name for name in names if name in opened]
    value = target.permute([opened.index(name) for name in kept]) / extent(lone, level.sizes)
    shape = tuple(1 if name in lone else level.sizes[name] for name in names)
    return value.reshape(shape).expand(level.shape(names)).contiguous()


def _separate(cut: Cut, target: Tensor, opened: Names, sizes: Mapping[str, int]) -> tuple[Tensor, Tensor]:
    """Return L over (K, A, S) and R over (K, S, B) whose product is nearest to a tensor."""
    groups = (cut.shared, cut.only_left, cut.only_right)
    order = [opened.index(name) for group in groups for name in group]
    blocks, rows, columns = (extent(group, sizes) for group in groups)
    rank = extent(cut.summed, sizes)
    matrices = target.permute(order).reshape(blocks, rows, columns)
    left, values, right = truncated(matrices, rank)
    # What is cut again is the nearest in the whole product where the other part has orthonormal columns.
    inner, outer = values, torch.ones_like(values)
    if isinstance(cut.left, Leaf) == isinstance(cut.right, Leaf):
        inner, outer = values.sqrt(), values.sqrt()
    elif not isinstance(cut.left, Leaf):
        inner, outer = outer, inner
    return (
        (left * outer[:, None, :]).reshape(*_shape((*cut.shared, *cut.only_left, *cut.summed), sizes)),
        (inner[:, :, None] * right).reshape(*_shape((*cut.shared, *cut.summed, *cut.only_right), sizes)),
    )


def truncated(matrices: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the leading singular vectors and values of a batch of matrices, zeros where the rank exceeds theirs.

    Args:
        matrices: `(blocks, rows, columns)`.
        rank: how many.

    Returns:
        Left `(blocks, rows, rank)`, values `(blocks, rank)`, right `(blocks, rank, columns)`.
    """
    left, values, right = torch.linalg.svd(matrices, full_matrices=False)
    left, values, right = left[:, :, :rank], values[:, :rank], right[:, :rank]
    missing = rank - values.shape[1]
    if missing > 0:
        pad = torch.nn.functional.pad
        return pad(left, (0, missing)), pad(values, (0, missing)), pad(right, (0, 0, 0, missing))
    return left, values, right


def _shape(names: Sequence[str], sizes: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(sizes[name] for name in names)
