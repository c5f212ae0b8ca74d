"""The costs of a spec over a range of values of one or more of its symbols."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from mlbtc.analysis.attention import AttentionReport
from mlbtc.analysis.compare import COSTS, LAYER_COSTS, PROBLEM, Comparison, cost_row
from mlbtc.analysis.report import Report, analyze
from mlbtc.errors import AnalysisError, MlbtcError, nearest
from mlbtc.spec.attention import AttentionSpec
from mlbtc.spec.language import MLBTC
from mlbtc.spec.sizes import MAX_SIZE, Size

MAX_POINTS = 512
TOKENS = "T"
_RULE = "a sweep is NAME=FIRST:LAST:2x (times 2), NAME=FIRST:LAST:+128 (plus 128) or NAME=A,B,C"
_SWEEP = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(\S.*?)\s*")
_RANGE = re.compile(r"([0-9]{1,12}):([0-9]{1,12}):(?:\+([0-9]{1,12})|([0-9]{1,12})x)")
_LIST = re.compile(r"[0-9]{1,12}(\s*,\s*[0-9]{1,12})*")


@dataclass(frozen=True, slots=True)
class Sweep:
    """The values that a symbol takes, or the number of tokens under the name T."""

    name: str
    values: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Point:
    """One point of a sweep.

    Attributes:
        values: name to value of what is swept.
        report: the costs there, or None.
        problem: why there is none.
    """

    values: tuple[tuple[str, int], ...]
    report: Report | AttentionReport | None
    problem: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form: the values, the main costs and the problem."""
        found: dict[str, Any] = {"at": dict(self.values), "problem": self.problem or None}
        if self.report is None:
            return found
        full = self.report.to_json()
        keys = ("parameters", "macs", "rank", "memory", "key_cache", "value_cache", "dense")
        return {**found, **{key: full[key] for key in keys if key in full}}


def parse_sweep(text: str) -> Sweep:
    """Return the sweep that a text such as `D=256:8192:2x`, `D=256:1024:+128` or `D=256,512` says.

    Raises:
        AnalysisError: the text says none, or a range without values.
    """
    match = _SWEEP.fullmatch(text)
    if match is None:
        raise AnalysisError(f"{_RULE}; found {text!r}")
    name, values = match.groups()
    if _LIST.fullmatch(values):
        return Sweep(name, tuple(int(value) for value in values.split(",")))
    steps = _RANGE.fullmatch(values)
    if steps is None:
        raise AnalysisError(f"{_RULE}; found {text!r}")
    return Sweep(name, _range(text, *(None if part is None else int(part) for part in steps.groups())))


def _range(text: str, first: int | None, last: int | None, plus: int | None, times: int | None) -> tuple[int, ...]:
    assert first is not None
    assert last is not None
    if plus == 0 or (times is not None and times < 2):
        raise AnalysisError(f"the sweep {text!r} never reaches its end: add at least 1, or multiply by at least 2")
    if first > last or not first:
        raise AnalysisError(f"the sweep {text!r} is empty: it starts at 1 or more and at most at its end")
    values = [first]
    while len(values) <= MAX_POINTS and (after := values[-1] + plus if plus else values[-1] * (times or 2)) <= last:
        values.append(after)
    return tuple(values)


def run_sweep(
    spec: MLBTC | AttentionSpec, sweeps: Sequence[Sweep], batch: Size | str | None = None, *, dtype: str = "float32"
) -> tuple[Point, ...]:
    """Return the costs at every combination of values, the last sweep fastest.

    Where a size does not fit at a value, its point says why and the others stay.

    Args:
        spec: a matrix with symbols, or an attention layer, of which only T can be swept.
        sweeps: what takes which values.
        batch: the number of tokens T where T is not swept.
        dtype: for the bytes that a matrix moves.

    Raises:
        AnalysisError: a name is no symbol of the spec, is swept twice, or there are too many points.
    """
    _check(spec, sweeps, batch)
    names = [sweep.name for sweep in sweeps]
    grid = product(*(sweep.values for sweep in sweeps))
    return tuple(_point(spec, dict(zip(names, values, strict=True)), batch, dtype) for values in grid)


def _check(spec: MLBTC | AttentionSpec, sweeps: Sequence[Sweep], batch: Size | str | None) -> None:
    symbols = spec.symbols if isinstance(spec, MLBTC) else ()
    names, points = [sweep.name for sweep in sweeps], 1
    for sweep in sweeps:
        points *= len(sweep.values)
        if names.count(sweep.name) > 1:
            raise AnalysisError(f"{sweep.name} is swept twice: give all its values in one sweep")
        if sweep.name not in (*symbols, TOKENS):
            none = "it has no symbols, only T, the number of tokens, can be swept"
            hint = nearest(sweep.name, (*symbols, TOKENS)) if symbols else none
            raise AnalysisError(f"cannot sweep {sweep.name}: {spec.name} has no symbol {sweep.name!r}; {hint}")
        if sweep.name == TOKENS and TOKENS not in symbols and batch is not None:
            raise AnalysisError("T, the number of tokens, is swept and given: leave one out")
        if max(sweep.values) > MAX_SIZE or min(sweep.values) < 1:
            raise AnalysisError(f"the values of {sweep.name} must be from 1 to {MAX_SIZE} (2**24)")
    if points > MAX_POINTS:
        raise AnalysisError(f"a sweep has at most {MAX_POINTS} points, found more")


def _point(spec: MLBTC | AttentionSpec, values: dict[str, int], batch: Size | str | None, dtype: str) -> Point:
    tokens, sizes = batch, dict(values)
    if TOKENS in sizes and not (isinstance(spec, MLBTC) and TOKENS in spec.symbols):
        tokens = sizes.pop(TOKENS)
    try:
        bound = spec.bind(**sizes) if isinstance(spec, MLBTC) and sizes else spec
        return Point(tuple(values.items()), analyze(bound, tokens, dtype=dtype))
    except MlbtcError as error:
        return Point(tuple(values.items()), None, str(error))


def sweep_table(points: Sequence[Point]) -> Comparison:
    """Return a row for each point; a last column says what is wrong with points that have no costs."""
    names = [name for name, _ in points[0].values]
    costs = LAYER_COSTS if any(isinstance(point.report, AttentionReport) for point in points) else COSTS
    problems = any(point.problem for point in points)
    rows = []
    for point in points:
        cells = ("",) * len(costs) if point.report is None else cost_row(point.report)
        rows.append((*(str(v) for _, v in point.values), *cells, *((point.problem,) if problems else ())))
    return Comparison((*names, *costs, *((PROBLEM,) if problems else ())), tuple(rows))
