"""The check that the best learning rate of a narrow model is that of a wide one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mlbtc.errors import CodegenError
from mlbtc.mup.runs import Build, Loss, adam, random_state_kept, seeded, train


@dataclass(frozen=True, slots=True)
class TransferCheck:
    """The loss that a few steps lead to, for several widths and learning rates.

    Attributes:
        widths: of the models, growing.
        rates: learning rates at the base width, growing.
        losses: for each width the loss at each rate; infinite where a run diverged.
    """

    widths: tuple[int, ...]
    rates: tuple[float, ...]
    losses: tuple[tuple[float, ...], ...]

    @property
    def best(self) -> tuple[float, ...]:
        """The rate of the lowest loss of each width."""
        return tuple(self.rates[min(range(len(row)), key=row.__getitem__)] for row in self.losses)

    def transfers(self, factor: float = 2.0) -> bool:
        """Return whether the best rates of all widths lie within a factor of each other, inside the range tried.

        A best rate at either end of the range says nothing: the true one may lie outside.
        """
        inside = all(self.rates[0] < rate < self.rates[-1] for rate in self.best)
        # Rates of a grid are rarely exact powers of it.
        return inside and max(self.best) / min(self.best) <= factor * (1 + 1e-9)

    def __str__(self) -> str:
        lines = [f"{'loss at rate':<14}{''.join(f'{rate:>10.2g}' for rate in self.rates)}   best"]
        for width, row, best in zip(self.widths, self.losses, self.best, strict=True):
            lines.append(f"width {width:<8}{''.join(f'{loss:>10.4g}' for loss in row)}   {best:.2g}")
        return "\n".join(lines)


def transfer_check(
    build: Build,
    loss: Loss,
    *,
    widths: Sequence[int],
    rates: Sequence[float],
    base_width: int,
    steps: int,
    seeds: int = 1,
    mup: bool = True,
) -> TransferCheck:
    """Train models of several widths with several learning rates and compare which rate is best.

    Under muP it is the same at every width; under the standard parametrisation it falls as the width grows.

    Args:
        build: makes the model of a width.
        loss: makes the loss of a model from the batch of a step, the first is 1.
        widths: at least two, growing.
        rates: at least three learning rates at the base width, growing.
        base_width: as for `parameter_groups`.
        steps: of Adam; what is compared is the mean loss of the last quarter of them.
        seeds: runs per width and rate, whose losses are averaged.
        mup: False for one rate for all parameters.

    Raises:
        CodegenError: there are too few widths, rates, steps or seeds.
    """
    if len(widths) < 2 or list(widths) != sorted(set(widths)):
        raise CodegenError(f"a transfer check needs two or more growing widths, found {list(widths)}")
    if len(rates) < 3 or list(rates) != sorted(set(rates)) or not rates[0] > 0:
        raise CodegenError(f"a transfer check needs three or more growing rates above 0, found {list(rates)}")
    if steps < 1 or seeds < 1:
        raise CodegenError(f"a transfer check needs a step and a seed, found steps={steps} and seeds={seeds}")

    def final(width: int, rate: float) -> float:
        return sum(_final(build, loss, width, rate, base_width, steps, seed, mup) for seed in range(seeds)) / seeds

    losses = tuple(tuple(final(width, rate) for rate in rates) for width in widths)
    return TransferCheck(tuple(widths), tuple(rates), losses)


def _final(
    build: Build, loss: Loss, width: int, rate: float, base_width: int, steps: int, seed: int, mup: bool
) -> float:
    """Return the mean loss of the last quarter of the steps, infinite where the run diverged."""
    with random_state_kept():
        model = seeded(seed, 0, lambda: build(width))
        optimizer = adam(model, lr=rate, base_width=base_width, mup=mup)
        losses = train(model, optimizer, loss, steps, seed)
    last = losses[-max(1, steps // 4) :]
    return sum(last) / len(last) if math.isfinite(sum(last)) else math.inf
