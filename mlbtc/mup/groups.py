"""Adam's learning rate of every parameter under muP, from the fan-in of the product that it takes part in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from mlbtc.attention.layer import CompiledAttention
from mlbtc.attention.score import score_factors
from mlbtc.codegen.matrix import matrix_factors
from mlbtc.codegen.program import Parameter
from mlbtc.codegen.structured import StructuredMatrix
from mlbtc.errors import CodegenError

FanIn = float | None
"""The terms of the sum that a parameter takes part in; None where their number does not grow with the width."""

GATHERED = (nn.Embedding, nn.EmbeddingBag)


def parameter_groups(module: nn.Module, *, lr: float, base_width: int) -> list[dict[str, Any]]:
    """Return parameter groups for Adam or AdamW: `lr * base_width / fan_in` each.

    - A weight of nn.Linear has its number of inputs for fan_in.
    - A factor of a structured matrix, or of a score, has the fan-in of its own batched product: D / p of a level of p
      low-rank blocks and r behind it, d for the right and c s for the left factor of a block tensor train. A factor
      that stands in several places has the geometric mean.
    - Embeddings, norms, biases and all other vectors, and what a class names in its attribute `width_free`, have sums
      whose length does not depend on the width. They keep `lr` at any width.
    - A dense map that a class names in its attribute `expansion`, as in `expansion = {"down": 4}`, has that many times
      the width for inputs, and counts as having the width. muP leaves constants open; the paper has a quarter of the
      rate for the second map of an MLP, which then learns too slowly at every rate that the other maps bear.

    A dense layer of `base_width` inputs has the rate `lr`, so `lr` is what was found to be best at that width. Initial
    values are the module's business: variance 1 / fan_in (`mlbtc.compile(..., init="mup")`), 0 for output projections
    and read-outs, and attention with `scale: mup`.

    Args:
        module: its parameters that need no gradient are left out.
        lr: the learning rate at the base width.
        base_width: the width at which `lr` was found.

    Returns:
        One group for each fan-in, in the order of the parameters: `params`, `lr` and `fan_in`.

    Raises:
        CodegenError: a number is not positive, or there is no rule for a parameter.
    """
    if not lr > 0:
        raise CodegenError(f"lr is a positive number, found {lr!r}")
    if isinstance(base_width, bool) or not isinstance(base_width, int) or base_width < 1:
        raise CodegenError(f"base_width is a positive integer, found {base_width!r}")
    groups: dict[FanIn, dict[str, Any]] = {}
    for parameter, fan_in in _fans(module):
        rate = lr if fan_in is None else lr * base_width / fan_in
        groups.setdefault(fan_in, {"params": [], "lr": rate, "fan_in": fan_in})["params"].append(parameter)
    return list(groups.values())


def _fans(module: nn.Module) -> Iterator[tuple[nn.Parameter, FanIn]]:
    """Yield every parameter once with its fan-in."""
    free = {id(p) for part in module.modules() for p in _width_free(part)}
    expansion = dict(pair for part in module.modules() for pair in _expanded(part))
    seen: dict[int, tuple[str, FanIn]] = {}
    for path, part in module.named_modules():
        known = _known(part)
        for name, parameter in part.named_parameters(recurse=False):
            where = f"{path}.{name}" if path else name
            fan_in = None if parameter.dim() < 2 or id(parameter) in free else _fan_in(part, name, where, known)
            if fan_in is not None:
                fan_in /= expansion.get(id(parameter), 1)
            if id(parameter) not in seen:
                seen[id(parameter)] = where, fan_in
                if parameter.requires_grad:
                    yield parameter, fan_in
            elif seen[id(parameter)][1] != fan_in:
                first, other = seen[id(parameter)]
                raise CodegenError(
                    f"muP: {first} and {where} are one tensor with two fan-ins, {_shown(other)} and {_shown(fan_in)}; "
                    "give them a tensor each"
                )


def _shown(fan_in: FanIn) -> str:
    return "that of a vector" if fan_in is None else f"{fan_in:g}"


def _width_free(part: nn.Module) -> Iterator[nn.Parameter]:
    """Yield what a class declares: parameters and modules whose sums do not grow with the width."""
    for name in getattr(type(part), "width_free", ()):
        found = getattr(part, name)
        yield from found.parameters() if isinstance(found, nn.Module) else (found,)


def _expanded(part: nn.Module) -> Iterator[tuple[int, int]]:
    """Yield what a class declares: dense maps, by their weights, and how many times the width they have for inputs."""
    for name, times in getattr(type(part), "expansion", {}).items():
        found = getattr(part, name)
        if isinstance(found, nn.Linear):
            yield id(found.weight), times


def _known(part: nn.Module) -> dict[str, float]:
    """Return the fan-in of the parameters of a module whose class says what they are."""
    if isinstance(part, nn.Linear):
        return {"weight": part.in_features}
    if isinstance(part, StructuredMatrix):
        return {factor.name: _of_each_use(factor) for factor in matrix_factors(part.spec)}
    if isinstance(part, CompiledAttention) and part.spec.scores:
        return {factor.name: _of_each_use(factor) for factor in score_factors(part.spec)}
    return {}


def _of_each_use(factor: Parameter) -> float:
    return factor.fan_in if factor.uses == 1 else float(factor.fan_in ** (1 / factor.uses))


def _fan_in(part: nn.Module, name: str, where: str, known: dict[str, float]) -> FanIn:
    if isinstance(part, GATHERED):
        return None
    if name not in known:
        raise CodegenError(
            f"muP: no rule for the fan-in of {where}, a parameter of {type(part).__name__}; use nn.Linear or a "
            f"compiled spec, or name it in the class: width_free = ({name!r},) if its sums do not grow with the width"
        )
    return known[name]
