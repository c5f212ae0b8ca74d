"""The coordinate check: whether training moves the activations of a wide model as much as those of a narrow one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mlbtc.errors import CodegenError
from mlbtc.mup.runs import Build, Loss, adam, random_state_kept, seeded, train


@dataclass(frozen=True, slots=True)
class CoordinateCheck:
    """How far a few steps moved the activations of each layer, at several widths.

    Attributes:
        widths: of the models, growing.
        changes: for each layer its name and, for each width, the root mean square of the change of its output.
    """

    widths: tuple[int, ...]
    changes: tuple[tuple[str, tuple[float, ...]], ...]

    @property
    def slopes(self) -> dict[str, float]:
        """The exponent of the width that the change of each layer follows: the slope of a line through logarithms."""
        return {name: _slope(self.widths, changes) for name, changes in self.changes}

    def is_flat(self, tolerance: float = 0.25) -> bool:
        """Return whether the change of no layer follows a power of the width beyond the tolerance."""
        return all(abs(slope) <= tolerance for slope in self.slopes.values())

    def __str__(self) -> str:
        longest = max(len(name) for name, _ in self.changes)
        lines = [f"{'change at width':{longest}}{''.join(f'{width:>11}' for width in self.widths)}   exponent"]
        for name, changes in self.changes:
            numbers = "".join(f"{change:>11.3g}" for change in changes)
            lines.append(f"{name:{longest}}{numbers}   {_slope(self.widths, changes):+.2f}")
        return "\n".join(lines)


def coordinate_check(
    build: Build,
    loss: Loss,
    *,
    widths: Sequence[int],
    lr: float,
    base_width: int,
    steps: int = 5,
    seeds: int = 2,
    mup: bool = True,
) -> CoordinateCheck:
    """Train models of several widths for a few steps and compare how far the outputs of their layers move.

    Under muP the change is the same at every width; under the standard parametrisation, one rate for all parameters, it
    grows. `build` and `loss` draw from torch's global generator, which is seeded before each call.

    Args:
        build: makes the model of a width.
        loss: makes the loss of a model from the batch of a step; that of step 0 is where outputs are compared.
        widths: at least two, growing.
        lr: at the base width.
        base_width: as for `parameter_groups`.
        steps: of Adam. With output projections and read-outs at 0 it takes three until all layers have moved.
        seeds: models per width, whose squared changes are averaged.
        mup: False for one rate for all parameters.

    Returns:
        The changes of all layers that return one tensor and have moved at some width.

    Raises:
        CodegenError: there are too few widths, or layers differ between them.
    """
    if len(widths) < 2 or list(widths) != sorted(set(widths)):
        raise CodegenError(f"a coordinate check needs two or more growing widths, found {list(widths)}")
    if steps < 1 or seeds < 1:
        raise CodegenError(f"a coordinate check needs a step and a seed, found steps={steps} and seeds={seeds}")
    optimizer = partial(adam, lr=lr, base_width=base_width, mup=mup)
    columns = [
        _mean([_changes(build, loss, width, optimizer, steps, seed) for seed in range(seeds)]) for width in widths
    ]
    if any(column.keys() != columns[0].keys() for column in columns):
        raise CodegenError("a coordinate check compares models of the same layers, but they differ between widths")
    rows = ((name, tuple(column[name] for column in columns)) for name in columns[0])
    return CoordinateCheck(tuple(widths), tuple((name, row) for name, row in rows if any(row)))


def _changes(
    build: Build,
    loss: Loss,
    width: int,
    optimizer: Callable[[nn.Module], torch.optim.Optimizer],
    steps: int,
    seed: int,
) -> dict[str, float]:
    """Return the mean square of the change of the output of each layer."""
    with random_state_kept():
        model = seeded(seed, 0, lambda: build(width))
        before = _outputs(model, loss, seed)
        train(model, optimizer(model), loss, steps, seed)
        after = _outputs(model, loss, seed)
    return {name: float((after[name] - before[name]).double().square().mean()) for name in before}


def _outputs(model: nn.Module, loss: Loss, seed: int) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    with torch.no_grad(), _recorded(model, found):
        seeded(seed, 1, partial(loss, model, 0))
    return found


@contextmanager
def _recorded(model: nn.Module, found: dict[str, Tensor]) -> Iterator[None]:
    """Keep the output of every layer that returns one tensor."""

    def keep(name: str, layer: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            found[name] = output.detach().clone()

    layers = {name or type(model).__name__: layer for name, layer in model.named_modules()}
    hooks = [layer.register_forward_hook(partial(keep, name)) for name, layer in layers.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _mean(columns: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: math.sqrt(sum(column[name] for column in columns) / len(columns)) for name in columns[0]}


def _slope(widths: Sequence[int], changes: Sequence[float]) -> float:
    """Return the slope of the least-squares line; a layer that moves at some widths only follows no power."""
    if not all(change > 0 and math.isfinite(change) for change in changes):
        return math.inf
    x = [math.log(width) for width in widths]
    y = [math.log(change) for change in changes]
    middle, level = sum(x) / len(x), sum(y) / len(y)
    return sum((a - middle) * (b - level) for a, b in zip(x, y, strict=True)) / sum((a - middle) ** 2 for a in x)
