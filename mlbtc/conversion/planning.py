"""`plan_model`: one budget for a whole model, spent where it saves most error."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from mlbtc.conversion.layers import Layer, linear_layers
from mlbtc.errors import SpecError
from mlbtc.fitting.fit import fit_error
from mlbtc.selection import macs_of
from mlbtc.selection.candidates import front, specs_within
from mlbtc.spec.language import MLBTC

FAMILIES = ("low_rank", "mlr", "monarch", "btt")
MAX_ITERATIONS = 5


@dataclass(frozen=True, slots=True)
class Choice:
    """A way to write a layer: `spec` is None for the dense matrix that it is."""

    spec: MLBTC | None
    macs: int
    error: float


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """What each layer of a model should become: `convert(model, plan.rule)`.

    Attributes:
        choices: for the name of every layer that can be converted what was chosen.
        dense: the MACs per token of these layers as they are.
        budget: how many they may have.
    """

    choices: Mapping[str, Choice]
    dense: int
    budget: int

    @property
    def rule(self) -> dict[str, MLBTC]:
        """Names to specs, a rule for `convert`; layers that stay dense are not in it."""
        return {_literal(name): choice.spec for name, choice in self.choices.items() if choice.spec is not None}

    @property
    def macs(self) -> int:
        """The MACs per token of all layers together."""
        return sum(choice.macs for choice in self.choices.values())

    def __str__(self) -> str:
        rows = [
            f"{name}: {'dense' if one.spec is None else one.spec.name}, {one.macs:,} MACs, error {one.error:.4f}"
            for name, one in self.choices.items()
        ]
        return "\n".join([*rows, f"all: {self.macs:,} of {self.dense:,} MACs per token, the budget is {self.budget:,}"])


def plan_model(
    model: nn.Module,
    macs: float,
    *,
    families: Sequence[str] = FAMILIES,
    covariances: Mapping[str, Tensor] | None = None,
    max_iterations: int = MAX_ITERATIONS,
    progress: Callable[[str, int, int], None] | None = None,
) -> ModelPlan:
    """Return structures for the linear layers of a model that together keep a budget.

    Every layer is fitted with every structure of the families, in a few ranks. All layers start with their cheapest
    one, and as long as the budget allows it the step that lowers the sum of the squared relative errors most for its
    MACs is taken; staying dense is such a step.

    Args:
        model: is not changed.
        macs: the fraction of the MACs per token of the layers that can be converted, all of them together.
        families: names of families to choose from.
        covariances: of the inputs of layers, as for `convert`.
        max_iterations: of each fit.
        progress: called before each layer with its name, how many are done and how many there are.

    Raises:
        SpecError: the fraction is none, or the cheapest structures exceed the budget.
    """
    if isinstance(macs, bool) or not isinstance(macs, int | float) or not 0 < macs <= 1:
        raise SpecError(f"the budget is a fraction of the MACs of the layers, above 0, found {macs!r}")
    layers = [layer for layer in linear_layers(model) if layer.reason is None]
    ways: dict[str, list[Choice]] = {}
    for number, layer in enumerate(layers):
        if progress is not None:
            progress(layer.name, number, len(layers))
        ways[layer.name] = _ways(layer, families, (covariances or {}).get(layer.name), max_iterations)
    dense = sum(layer.weight.numel() for layer in layers)
    return ModelPlan(spend(ways, int(macs * dense)), dense, int(macs * dense))


def spend(ways: Mapping[str, list[Choice]], budget: int) -> dict[str, Choice]:
    """Return a choice for each layer, within a budget of MACs for all.

    Args:
        ways: for each layer its choices, the cheapest first and each with a smaller error than those before.
        budget: the MACs of all choices together, at most.

    Raises:
        SpecError: the cheapest choices exceed it.
    """
    chosen = {name: found[0] for name, found in ways.items()}
    left = budget - sum(choice.macs for choice in chosen.values())
    if left < 0:
        least = sum(choice.macs for choice in chosen.values())
        raise SpecError(f"the budget of {budget:,} MACs per token is below the {least:,} of the cheapest structures")
    while True:
        steps = [
            ((chosen[name].error ** 2 - choice.error**2) / (choice.macs - chosen[name].macs), name, choice)
            for name, found in ways.items()
            for choice in found
            if 0 < choice.macs - chosen[name].macs <= left and choice.error < chosen[name].error
        ]
        if not steps:
            return chosen
        _, name, choice = max(steps, key=lambda step: step[0])
        left -= choice.macs - chosen[name].macs
        chosen[name] = choice


def _ways(layer: Layer, families: Sequence[str], covariance: Tensor | None, iterations: int) -> list[Choice]:
    """Return the choices of a layer that no other one beats."""
    rows, columns = layer.matrix.shape
    found = [
        Choice(spec, macs_of(spec), fit_error(spec, layer.matrix, covariance, iterations))
        for spec in specs_within((rows, columns), rows * columns - 1, families)
    ]
    return front([*found, Choice(None, rows * columns, 0.0)], lambda choice: (choice.macs, choice.error))


def _literal(name: str) -> str:
    """Return the pattern that matches a name alone."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)
