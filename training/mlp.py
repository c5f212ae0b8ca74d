"""From `--mlp dense | FILE.yaml` to the two linear maps of each layer's MLP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from mlbtc.codegen.matrix import matrix_factors
from mlbtc.compiler import compile
from mlbtc.spec import MLBTC, load_shaped
from mlbtc.training.errors import TrainingError

EXPANSION = 4
"""Hidden features of an MLP for each of its input."""

DENSE = "dense"


@dataclass(frozen=True, slots=True)
class Mlp:
    """The two structured matrices of an MLP.

    Attributes:
        up: (4 width x width).
        down: (width x 4 width).
    """

    up: MLBTC
    down: MLBTC


def read_mlp(path: str, width: int) -> Mlp:
    """Read a spec file of any shape twice, for the way up and the way down.

    Raises:
        SpecError: the file is no spec of a matrix, or the shapes do not fit its levels.
    """
    hidden = EXPANSION * width
    return Mlp(load_shaped(path, (hidden, width)), load_shaped(path, (width, hidden)))


def choose_mlps(given: Sequence[str | Mlp | None], layers: int, width: int) -> tuple[Mlp | None, ...]:
    """Return the MLP of each layer, None for dense maps.

    Args:
        given: one for all layers, or one per layer: "dense", the path of a spec file, or specs.
        layers: the number of layers.
        width: the model width.

    Raises:
        TrainingError: the number is neither 1 nor that of the layers.
        SpecError: a file is wrong.
    """
    if len(given) not in (1, layers):
        raise TrainingError(f"--mlp: one for all layers or one per layer, found {len(given)} for {layers} layers")
    chosen = tuple(_chosen(mlp, width) for mlp in given)
    return chosen * layers if len(chosen) == 1 else chosen


def _chosen(mlp: str | Mlp | None, width: int) -> Mlp | None:
    if isinstance(mlp, str):
        return None if mlp == DENSE else read_mlp(mlp, width)
    return mlp


def linear(outputs: int, inputs: int, spec: MLBTC | None) -> nn.Module:
    """Return a linear map without bias: dense, or what the spec says."""
    if spec is None:
        return nn.Linear(inputs, outputs, bias=False)
    if spec.shape != (outputs, inputs):
        shape = f"({spec.shape[0]} x {spec.shape[1]})"
        raise TrainingError(f"{spec.name!r} is {shape}, but this map of an MLP is ({outputs} x {inputs})")
    return compile(spec)


@torch.no_grad()
def reset_linear(module: nn.Module, *, zero: bool = False) -> None:
    """Draw the weights of what `linear` returned with variance 1 / fan-in, or make it a zero that learns.

    A product of zeros has no gradient: of a structured matrix only the last factor of each level is zero.

    Raises:
        TrainingError: such a factor stands in several places.
    """
    if isinstance(module, nn.Linear):
        if zero:
            nn.init.zeros_(module.weight)
        else:
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
        return
    cast(Any, module).reset_parameters()
    for factor in matrix_factors(cast(MLBTC, module.spec)) if zero else ():
        if factor.last_of_level and factor.uses > 1:
            raise TrainingError(
                f"the factor {factor.name!r} stands in several places, so the way down of an MLP cannot start at zero; "
                "give the last factor of each level a tensor of its own"
            )
        if factor.last_of_level:
            nn.init.zeros_(cast(nn.Parameter, getattr(module, factor.name)))
