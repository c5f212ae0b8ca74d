"""The linear layers of a model: where they stand, what they hold, and which must be left alone."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A linear layer and the places where it stands.

    Attributes:
        names: its names in the model; one that is shared has several, the model itself has "".
        module: the layer.
        reason: why it cannot be converted, None if it can.
    """

    names: tuple[str, ...]
    module: nn.Module
    reason: str | None

    @property
    def name(self) -> str:
        """The first of its names."""
        return self.names[0]

    @property
    def weight(self) -> nn.Parameter:
        """The parameter."""
        weight = self.module.weight
        assert isinstance(weight, nn.Parameter)
        return weight

    @property
    def matrix(self) -> Tensor:
        """The weight as a matrix, (out, in)."""
        weight = self.weight.detach()
        return weight.T if _is_conv1d(self.module) else weight

    @property
    def bias(self) -> nn.Parameter | None:
        """The bias."""
        bias = self.module.bias
        assert bias is None or isinstance(bias, nn.Parameter)
        return bias


def linear_layers(model: nn.Module) -> list[Layer]:
    """Return every linear layer of a model once, in the order of the model."""
    places: dict[nn.Module, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, nn.Linear) or _is_conv1d(module):
            places.setdefault(module, []).append(name)
    owners = weight_owners(model)
    return [
        Layer(tuple(names), module, _refusal(model, module, names, owners, places)) for module, names in places.items()
    ]


def weight_owners(model: nn.Module) -> dict[int, list[tuple[str, nn.Module]]]:
    """Return for the id of every parameter the names and modules that hold it."""
    owners: dict[int, list[tuple[str, nn.Module]]] = {}
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            owners.setdefault(id(parameter), []).append((f"{path}.{name}" if path else name, module))
    return owners


def _refusal(
    model: nn.Module,
    module: nn.Module,
    names: list[str],
    owners: dict[int, list[tuple[str, nn.Module]]],
    layers: dict[nn.Module, list[str]],
) -> str | None:
    if type(module) is not nn.Linear and not _is_conv1d(module) and not _is_projection(module):
        return f"{type(module).__name__} is a subclass of nn.Linear, which may do more than multiply"
    for parent in _parents(model, names):
        if isinstance(parent, nn.MultiheadAttention) and module is parent.out_proj:
            return "nn.MultiheadAttention reads the weight of its projection itself and never calls the layer"
        if isinstance(parent, nn.TransformerEncoderLayer) and module in (parent.linear1, parent.linear2):
            return "nn.TransformerEncoderLayer reads the weights of its layers itself when it predicts"
    weight = module.weight
    if not isinstance(weight, nn.Parameter):
        return "its weight is not a parameter"
    if not weight.is_floating_point() or isinstance(weight, nn.parameter.UninitializedParameter):
        return f"its weight has no floating-point values ({weight.dtype})"
    others = [name for name, owner in owners[id(weight)] if owner is not module and owner not in layers]
    return f"its weight is also {others[0]}" if others else None


def _parents(model: nn.Module, names: list[str]) -> Iterator[nn.Module]:
    for name in names:
        if name:
            yield model.get_submodule(name.rpartition(".")[0])


def _is_projection(module: nn.Module) -> bool:
    """Return whether a module is the projection of nn.MultiheadAttention, a Linear by another name."""
    return type(module) is torch.nn.modules.linear.NonDynamicallyQuantizableLinear


def _is_conv1d(module: nn.Module) -> bool:
    """Return whether a module is the Conv1D of transformers, a linear layer whose weight is (in, out)."""
    library = sys.modules.get("transformers.pytorch_utils")
    return library is not None and type(module) is library.Conv1D
