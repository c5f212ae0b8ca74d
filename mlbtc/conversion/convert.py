"""`convert`: linear layers of a model become structured ones, in place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mlbtc.compiler import compile
from mlbtc.conversion.layers import Layer, linear_layers
from mlbtc.conversion.report import Conversion, Converted, Skipped
from mlbtc.conversion.rules import Rule, bound, check_rule, structure_of
from mlbtc.conversion.surgery import put, take_over
from mlbtc.errors import SpecError, nearest
from mlbtc.fitting import Fit
from mlbtc.fitting import fit as fit_matrix
from mlbtc.selection import macs_of, parameters_of
from mlbtc.spec.language import MLBTC
from mlbtc.spec.padding import Padded


def convert(
    model: nn.Module,
    rule: Rule,
    *,
    fit: bool = True,
    covariances: Mapping[str, Tensor] | None = None,
    init: str = "dense",
    target: str = "auto",
    tokens: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    **options: Any,
) -> Conversion:
    """Replace linear layers of a model by structured ones, in place.

    Layers are `nn.Linear`, and the `Conv1D` of transformers. A new layer has the device, the dtype, the mode, the hooks
    and `requires_grad` of the old one, and the very same bias. A layer that stands in several places is replaced in all
    of them by one module; layers that share a weight share their factors. Everything is made before anything is
    replaced: after an error the model is what it was.

    Args:
        model: any module; a linear layer itself is not changed, the new one is `Conversion.model`.
        rule: says which structure a layer gets, None for none: a function of its name and module; a mapping of patterns
            of names (`fnmatch`, the first that matches counts) to specs or budgets; or a `Budget` for all layers. An
            axis of a spec that is one symbol takes the size of the layer.
        fit: whether the factors are fitted to the layer's matrix; else they are drawn anew.
        covariances: E[x x^T] of the inputs of layers by their names, see `input_covariances`; then the error that is
            minimised is that of the layer's outputs.
        init: how factors are drawn where they are not fitted, as for `compile`.
        target: as for `compile`.
        tokens: as for `compile`.
        progress: called before each layer with its name, how many are done and how many there are.
        **options: of `mlbtc.fit`: max_iterations, tolerance, seed, starts.

    Returns:
        The model, what became of each layer, and which of those that the rule chose were left alone, and why.

    Raises:
        SpecError: a spec does not fit a layer, a pattern matches none, or layers that share a weight got different
            specs.
    """
    layers = linear_layers(model)
    check_rule(rule, [name for layer in layers for name in layer.names])
    _check_names(covariances or {}, layers)
    chosen, skipped = _choose(rule, layers)
    made: dict[str, nn.Module] = {}
    converted: list[Converted] = []
    first: dict[int, tuple[_Chosen, nn.Module]] = {}
    for number, choice in enumerate(chosen):
        if progress is not None:
            progress(choice.layer.name, number, len(chosen))
        earlier = first.get(id(choice.layer.weight))
        if earlier is None:
            weights = None if covariances is None else _covariance(covariances, choice.layer)
            new, error = _make(choice, fit, weights, {"target": target, "tokens": tokens}, init, options)
            first[id(choice.layer.weight)] = choice, new
            converted.append(_row(choice, error))
        else:
            new = _sharing(choice, *earlier, {"target": target, "tokens": tokens})
        _finish(new, choice.layer)
        made |= dict.fromkeys(choice.layer.names, new)
    return Conversion(put(model, made), tuple(converted), tuple(skipped))


@dataclass(frozen=True, slots=True, eq=False)
class _Chosen:
    layer: Layer
    spec: MLBTC | Padded

    @property
    def matrix(self) -> MLBTC:
        """The spec of the structured matrix, of a larger one where it is padded."""
        return self.spec.spec if isinstance(self.spec, Padded) else self.spec


def _choose(rule: Rule, layers: list[Layer]) -> tuple[list[_Chosen], list[Skipped]]:
    chosen: list[_Chosen] = []
    skipped: list[Skipped] = []
    for layer in layers:
        wanted = (structure_of(rule, name, layer.module) for name in layer.names)
        structure = next((found for found in wanted if found is not None), None)
        if structure is None:
            continue
        if layer.reason is not None:
            skipped.append(Skipped(layer.name, layer.reason))
            continue
        chosen.append(_Chosen(layer, bound(structure, layer.name, *layer.matrix.shape)))
    return _with_their_ties(chosen, layers), skipped


def _with_their_ties(chosen: list[_Chosen], layers: list[Layer]) -> list[_Chosen]:
    """Check that layers which share a weight are all converted, to one structure."""
    specs = {id(choice.layer.module): choice.spec for choice in chosen}
    for choice in chosen:
        for other in layers:
            if other.module is choice.layer.module or other.module.weight is not choice.layer.weight:
                continue
            if specs.get(id(other.module)) != choice.spec or other.matrix.shape != choice.layer.matrix.shape:
                raise SpecError(
                    f"{choice.layer.name} and {other.name} share a weight, so both must get the same structure"
                )
    return chosen


def _make(
    choice: _Chosen, fit: bool, covariance: Tensor | None, common: dict[str, Any], init: str, options: dict[str, Any]
) -> tuple[nn.Module, float | None]:
    """Return the new layer and the error of its matrix."""
    layer = choice.layer
    common = {**common, "device": layer.weight.device, "dtype": layer.weight.dtype}
    if not fit:
        return compile(choice.spec, bias=layer.bias is not None, init=init, **common), None
    try:
        bias = None if layer.bias is None else layer.bias.detach()
        found: Fit = fit_matrix(choice.spec, layer.matrix, covariance=covariance, bias=bias, **common, **options)
    except SpecError as error:
        raise SpecError(f"{layer.name or 'the model'}: {error}") from None
    return found.module, found.error


def _sharing(choice: _Chosen, first: _Chosen, made: nn.Module, common: dict[str, Any]) -> nn.Module:
    """Return a layer whose factors are those of the one that its weight was shared with."""
    layer = choice.layer
    common = {**common, "device": layer.weight.device, "dtype": layer.weight.dtype}
    new = compile(choice.spec, bias=layer.bias is not None, **common)
    for name, factor in made.named_parameters():
        if name != "bias":
            path, _, attribute = name.rpartition(".")
            setattr(new.get_submodule(path), attribute, factor)
    return new


def _finish(new: nn.Module, layer: Layer) -> None:
    """Give the new layer the bias, the mode, the hooks and the `requires_grad` of the old one."""
    for name, parameter in new.named_parameters():
        if name != "bias":
            parameter.requires_grad_(layer.weight.requires_grad)
    if layer.bias is not None:
        new.bias = layer.bias
    take_over(new, layer.module)


def _row(choice: _Chosen, error: float | None) -> Converted:
    rows, columns = choice.layer.matrix.shape
    dense = rows * columns
    return Converted(
        names=tuple(name or "(the model)" for name in choice.layer.names),
        spec=choice.matrix,
        error=error,
        parameters=(dense, parameters_of(choice.matrix)),
        macs=(dense, macs_of(choice.matrix)),
    )


def _check_names(covariances: Mapping[str, Tensor], layers: list[Layer]) -> None:
    known = [name for layer in layers for name in layer.names]
    for name in covariances:
        if name not in known:
            raise SpecError(f"covariances names {name!r}, which is no linear layer; {nearest(name, known)}")


def _covariance(covariances: Mapping[str, Tensor], layer: Layer) -> Tensor | None:
    found = [covariances[name] for name in layer.names if name in covariances]
    return torch.stack(found).mean(0) if found else None
