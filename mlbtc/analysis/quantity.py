"""A quantity of a report: its symbolic form and, where all symbols are bound, its value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sympy as sp

from mlbtc.errors import AnalysisError
from mlbtc.spec.sizes import Size, evaluate


@dataclass(frozen=True, slots=True)
class Quantity:
    """A count of parameters, MACs, FLOPs or elements.

    Attributes:
        symbolic: the form in the symbols of the spec and the number of tokens.
        value: the number once every symbol is bound, else None.
    """

    symbolic: Size
    value: int | None

    @classmethod
    def of(cls, symbolic: Size, values: Mapping[str, Size]) -> Quantity:
        """Evaluate a symbolic form with the given symbol values."""
        if isinstance(symbolic, int):
            return cls(symbolic, symbolic)
        bound = evaluate(symbolic, values)
        return cls(symbolic, bound if isinstance(bound, int) else None)

    def bind(self, values: Mapping[str, Size]) -> Quantity:
        """Return the quantity with symbols replaced in its symbolic form too."""
        if isinstance(self.symbolic, int):
            return self
        bound = evaluate(self.symbolic, values)
        return Quantity(bound, bound if isinstance(bound, int) else self.value)

    def to_json(self) -> dict[str, Any]:
        """Return `{"symbolic": "2*D*r", "value": 65536 or null}`."""
        return {"symbolic": str(self.symbolic), "value": self.value}

    def __int__(self) -> int:
        if self.value is None:
            raise AnalysisError(f"{self.symbolic} has no value until its symbols are bound: report.bind(...)")
        return self.value

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Quantity):
            return (self.symbolic, self.value) == (other.symbolic, other.value)
        if isinstance(other, int):
            return self.value == other
        if isinstance(other, sp.Basic):
            return bool(sp.simplify(sp.sympify(self.symbolic) - other) == 0)
        return NotImplemented

    def __hash__(self) -> int:
        return hash((self.symbolic, self.value))

    def __str__(self) -> str:
        if self.value is None or str(self.value) == str(self.symbolic):
            return str(self.symbolic)
        return f"{self.symbolic} = {self.value}"
