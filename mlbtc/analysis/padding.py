"""What it costs to pad: the parameters and MACs of a padded spec beyond those of the sizes that were wanted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import sympy as sp

from mlbtc.analysis.report import Report, analyze
from mlbtc.spec.language import MLBTC
from mlbtc.spec.padding import Padded
from mlbtc.spec.sizes import Size, evaluate


@dataclass(frozen=True, slots=True)
class PaddingCost:
    """What a padded matrix costs, and how much of it is due to padding.

    A spec has no matrix at sizes that do not fit, but its formulas have a value there: that is what the extra costs are
    measured from, rounded to the nearest integer. A spec whose sizes are numbers and that is only cut has none.

    Attributes:
        parameters: of the padded matrix, all of which are stored and trained.
        macs: of the padded matrix, per token.
        extra_parameters: beyond the formula at the wanted sizes.
        extra_macs: beyond the formula at the wanted sizes, per token.
        dense: parameters, and MACs per token, of a dense matrix of the wanted shape.
    """

    parameters: int
    macs: int
    extra_parameters: int
    extra_macs: int
    dense: int

    def to_json(self) -> dict[str, int]:
        """Return the JSON form."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"{self.parameters:,} parameters ({self.extra_parameters:,} by padding) and {self.macs:,} MACs per token "
            f"({self.extra_macs:,} by padding); dense: {self.dense:,} of each"
        )


def padding_cost(padded: Padded) -> PaddingCost:
    """Return what a padded matrix costs beyond the sizes that were wanted."""
    larger, formula = _report(padded.spec), _report(padded.source)
    parameters, macs = int(larger.parameters), int(larger.macs)
    wanted = dict(padded.wanted)
    extras = (
        parameters - _at(formula.parameters.symbolic, wanted),
        macs - _at(formula.macs.symbolic, wanted),
    )
    return PaddingCost(parameters, macs, *extras, padded.shape[0] * padded.shape[1])


def _report(spec: MLBTC) -> Report:
    report = analyze(spec, 1)
    assert isinstance(report, Report)
    return report


def _at(formula: Size, values: Mapping[str, int]) -> int:
    return int(sp.Integer(sp.floor(sp.sympify(evaluate(formula, values)) + sp.Rational(1, 2))))
