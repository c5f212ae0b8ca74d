"""Sizes as JavaScript: exact integer arithmetic on BigInt, which `templates/costs.js` completes.

A BigInt has no fractions, so a quotient is written as one division at the end, and a product of roots as one root:
`D/2 + D**2/2` becomes `div(((v.D)**2n + v.D), 2n)`. Where a division leaves a remainder or a root is not whole, the
script throws: the sizes do not fit.
"""

from __future__ import annotations

from math import lcm
from typing import Any, NoReturn

import sympy as sp
from sympy.printing.jscode import JavascriptCodePrinter

from mlbtc.errors import AnalysisError
from mlbtc.spec.sizes import Size


def to_javascript(size: Size) -> str:
    """Return a size as a JavaScript expression of `v.NAME`, the BigInt of each symbol.

    Raises:
        AnalysisError: it holds something else than sums, products, rational powers, minima, maxima and ceilings.
    """
    return str(_Printer().doprint(sp.sympify(size)))


_KNOWN = (sp.Rational, sp.Symbol, sp.Add, sp.Mul, sp.Pow, sp.Min, sp.Max, sp.ceiling)


class _Printer(JavascriptCodePrinter):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__({"human": False})

    def doprint(self, expr: Any, assign_to: Any = None) -> str:
        return str(self._print(expr))

    def _print(self, expr: Any, **_: Any) -> str:
        # What sympy's printer writes for others, such as Math.log, has fractions.
        if not isinstance(expr, _KNOWN):
            self._refuse(expr)
        return str(super()._print(expr))

    def _print_Integer(self, expr: Any) -> str:
        return f"{expr.p}n"

    def _print_Rational(self, expr: Any) -> str:
        return f"div({expr.p}n, {expr.q}n)"

    def _print_Symbol(self, expr: Any) -> str:
        # A property may have any name, also that of a keyword.
        return f"v.{expr.name}"

    def _print_Add(self, expr: Any, order: Any = None) -> str:
        if all(_denominator(term) == 1 for term in expr.args):
            return f"({' + '.join(self._print(term) for term in self._as_ordered_terms(expr))})"
        above, below = sp.fraction(sp.together(expr))
        if below == 1:
            self._refuse(expr)
        return f"div({self._print(above)}, {self._print(below)})"

    def _print_Mul(self, expr: Any) -> str:
        return self._quotient(expr)

    def _print_Pow(self, expr: Any) -> str:
        return self._quotient(expr)

    def _quotient(self, expr: Any) -> str:
        above, below, roots = [], [], []
        for part in sp.Mul.make_args(expr):
            base, power = part.as_base_exp()
            if part.is_Rational:
                above += [f"{part.p}n"] if part.p != 1 else []
                below += [f"{part.q}n"] if part.q != 1 else []
                continue
            if not power.is_Rational:
                self._refuse(part)
            # The whole part of the power first: what is left is from 0 to 1, above the line.
            whole = int(sp.floor(power))
            if power != whole:
                roots.append((base, power - whole))
            if whole:
                (above if whole > 0 else below).append(self._power(base, abs(whole)))
        if roots:
            degree = lcm(*(int(power.q) for _, power in roots))
            under = " * ".join(self._power(base, int(power * degree)) for base, power in roots)
            above.append(f"root({degree}n, {under})")
        product = " * ".join(above) or "1n"
        return f"div({product}, {' * '.join(below)})" if below else f"({product})" if len(above) > 1 else product

    def _power(self, base: Any, power: int) -> str:
        text = self._print(base)
        return text if power == 1 else f"({text})**{power}n"

    def _print_Min(self, expr: Any) -> str:
        return self._call("min", expr)

    def _print_Max(self, expr: Any) -> str:
        return self._call("max", expr)

    def _print_ceiling(self, expr: Any) -> str:
        above, below = sp.fraction(sp.together(expr.args[0]))
        return f"ceil({self._print(above)}, {self._print(below)})"

    def _call(self, name: str, expr: Any) -> str:
        return f"{name}({', '.join(self._print(part) for part in sorted(expr.args, key=sp.default_sort_key))})"

    def _refuse(self, expr: Any) -> NoReturn:
        raise AnalysisError(f"{expr} has no form in whole numbers that a browser could compute")


def _denominator(term: Any) -> Any:
    """Return what a term is divided by; 1 also where that is inside a minimum, a maximum or a ceiling."""
    return sp.fraction(term)[1]
