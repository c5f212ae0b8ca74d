"""Initial values: the standard deviation that a rule draws each factor with."""

from __future__ import annotations

from mlbtc.codegen.program import Parameter, Program
from mlbtc.errors import CodegenError, nearest

INITS = {
    "dense": "Draw every factor so that outputs, scales aside, have the variance of inputs",
    "mup": "Draw every factor with variance 1 / fan_in of its own product; levels add up",
    "spectral": "Draw every factor with variance min(fan_in, fan_out) / fan_in^2",
}
"""The rules, and what a module says that it does.

fan_in is the number of terms of each entry of the product that a factor takes part in, fan_out the number of entries
that it makes out of them; block indices, of which every product has its own, count in neither.

- "dense": variance 1 / fan_in, the last factor of each level also divided by the number of levels. An entry of the
  matrix then has, on average, the variance 1 / in_features of a dense layer (nn.Linear draws with a third of it).
- "mup": variance 1 / fan_in, so that outputs have the variance of inputs times the number of levels.
- "spectral": variance min(fan_in, fan_out) / fan_in^2, for which the spectral norm of every factor's product is of the
  order of sqrt(fan_out / fan_in) at any width: Qiu et al., Compute Better Spent, arXiv 2406.06248, section 3, after
  Yang et al., A Spectral Condition for Feature Learning, arXiv 2310.17813. A factor that narrows shrinks its outputs.
"""


def check_init(init: str) -> str:
    """Return the name of a rule.

    Raises:
        CodegenError: there is no such rule.
    """
    if init not in INITS:
        raise CodegenError(f"init {init!r} is not a rule for initial values; {nearest(str(init), list(INITS))}")
    return init


def std_texts(program: Program, init: str) -> dict[str, str]:
    """Return for each factor of a program its standard deviation under a rule, as an expression of its fans."""
    return {parameter.name: std_text(parameter, init) for parameter in program.parameters}


def std_text(parameter: Parameter, init: str = "dense") -> str:
    """Return the standard deviation of a factor under a rule, as an expression of its fans.

    A tensor that stands in several places has the geometric mean of what they ask for.
    """
    uses = parameter.uses
    match init:
        case "spectral":
            text = f"min({parameter.fan_in}, {parameter.fan_out}) ** 0.5 / {parameter.fan_in}"
            return text if uses == 1 else f"({text}) ** (1 / {uses})"
        case "dense" if parameter.last_of_level:
            terms = parameter.fan_in * parameter.levels
        case _:
            terms = parameter.fan_in
    return f"{terms}**-0.5" if uses == 1 else f"{terms} ** (-0.5 / {uses})"
