"""Which structure each layer of a model gets: a function, patterns of names, or a budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TypeAlias

from torch import nn

from mlbtc.errors import SpecError, nearest
from mlbtc.linear import spec_of_shape
from mlbtc.selection import largest_member
from mlbtc.spec.language import MLBTC
from mlbtc.spec.padding import Padded


@dataclass(frozen=True, slots=True)
class Budget:
    """A fraction of the MACs of each layer, spent on a family.

    Attributes:
        macs: the fraction, above 0 and at most 1.
        family: the name of the family, whose member nearest to the budget from below is taken.
    """

    macs: float
    family: str

    def __post_init__(self) -> None:
        if isinstance(self.macs, bool) or not isinstance(self.macs, int | float) or not 0 < self.macs <= 1:
            raise SpecError(f"Budget: macs is a fraction of the MACs of a layer, above 0, found {self.macs!r}")

    def spec(self, out_features: int, in_features: int) -> MLBTC:
        """Return the member for a shape.

        Raises:
            SpecError: there is no such family, or no member that is cheap enough.
        """
        return largest_member((out_features, in_features), self.family, self.macs * out_features * in_features)


Structure: TypeAlias = MLBTC | Padded | Budget
Rule: TypeAlias = Callable[[str, nn.Module], Structure | None] | Mapping[str, Structure | None] | Budget


def structure_of(rule: Rule, name: str, module: nn.Module) -> Structure | None:
    """Return what a rule says about a layer; of several patterns the first that matches counts."""
    if isinstance(rule, Budget):
        return rule
    if isinstance(rule, Mapping):
        return next((value for pattern, value in rule.items() if fnmatchcase(name, pattern)), None)
    return rule(name, module)


def check_rule(rule: object, names: Sequence[str]) -> None:
    """Refuse what is no rule, and patterns that match no linear layer.

    Args:
        rule: what `convert` was given.
        names: of the linear layers of the model.

    Raises:
        SpecError: saying which.
    """
    if isinstance(rule, Mapping):
        for pattern in rule:
            if not any(fnmatchcase(name, pattern) for name in names):
                known = nearest(pattern, list(names)) if names else "it has none"
                raise SpecError(f"pattern {pattern!r} matches no linear layer of the model; {known}")
    elif not isinstance(rule, Budget) and not callable(rule):
        raise SpecError(
            f"a rule is a function of name and module, a mapping of patterns to specs or a Budget, found "
            f"{type(rule).__name__}"
        )


def bound(structure: object, name: str, out_features: int, in_features: int) -> MLBTC | Padded:
    """Return the spec of a layer, with numbers.

    Raises:
        SpecError: it does not fit the layer, which the message names.
    """
    try:
        if isinstance(structure, Budget):
            return structure.spec(out_features, in_features)
        if isinstance(structure, Padded):
            if structure.shape != (out_features, in_features):
                raise SpecError(f"{structure} is no ({out_features} x {in_features}) matrix")
            return structure
        if not isinstance(structure, MLBTC):
            raise SpecError(f"the rule gave a {type(structure).__name__}, not a spec or None")
        return spec_of_shape(structure, out_features, in_features, {})
    except SpecError as error:
        raise SpecError(f"{name or 'the model'}: {error}") from None
