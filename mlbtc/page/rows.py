"""Tables of a page: each cell knows its formula, its value at the start, and under which id the script finds it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlbtc.analysis import AttentionReport, Quantity, Report
from mlbtc.analysis.render import Measure


@dataclass(frozen=True, slots=True)
class Cell:
    """A formula and its value; `formula` is empty where it is the value."""

    id: str
    formula: str
    value: str


@dataclass(frozen=True, slots=True)
class Row:
    """A measure, and the same of what it is compared with; `certainty` only of a rank."""

    id: str
    key: str
    label: str
    certainty: str
    cell: Cell
    dense: str
    dense_formula: str
    ratio: str


@dataclass(frozen=True, slots=True)
class Table:
    """A table whose last columns are cells.

    Attributes:
        caption: what it shows.
        header: titles of all columns.
        rows: for each row the texts, the first a heading, and the cells.
        ids: for each row the id of its last text, where the script may change it.
    """

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[tuple[str, ...], tuple[Cell, ...]], ...]
    ids: tuple[str, ...] = ()

    @property
    def words(self) -> tuple[str, ...]:
        """Titles of the columns that hold texts."""
        return self.header[: -len(self.rows[0][1])]


def cell(id_: str, shown: Quantity, known: Quantity) -> Cell:
    """Return a cell with the symbolic form of one quantity and the value of another."""
    value = "" if known.value is None else f"{known.value:,}"
    formula = str(shown.symbolic)
    return Cell(id_, "" if formula == value.replace(",", "") else formula, value)


def measure_rows(number: int, shown: Sequence[Measure], known: Sequence[Measure], certainty: str) -> tuple[Row, ...]:
    """Return the rows of the main table of a section.

    Args:
        number: of the section.
        shown: of the symbolic report.
        known: of the report at the start of all sliders.
        certainty: of the rank there.
    """
    return tuple(
        _measure_row(f"s{number}-m{place}", one, other, certainty if one.key == "rank" else "")
        for place, (one, other) in enumerate(zip(shown, known, strict=True))
    )


def _measure_row(id_: str, shown: Measure, known: Measure, certainty: str) -> Row:
    main = cell(id_, shown.quantity, known.quantity)
    if shown.dense is None or known.dense is None:
        return Row(id_, shown.key, shown.label, certainty, main, "", "", "")
    dense = cell(f"{id_}-dense", shown.dense, known.dense)
    ratio = f"{known.dense.value / known.quantity.value:.4g}" if known.dense.value and known.quantity.value else ""
    return Row(id_, shown.key, shown.label, certainty, main, dense.value, dense.formula, ratio)


def level_table(number: int, shown: Report | AttentionReport, known: Report | AttentionReport) -> Table:
    """Return a row for each level: its costs, and of a matrix its rank."""
    if isinstance(shown, AttentionReport):
        assert isinstance(known, AttentionReport)
        return _layer_levels(number, shown, known)
    assert isinstance(known, Report)
    rows = []
    for place, (one, other) in enumerate(zip(shown.levels, known.levels, strict=True)):
        id_ = f"s{number}-l{place}"
        costs = ("parameters", "macs", "rank")
        cells = tuple(cell(f"{id_}-{key}", getattr(one, key), getattr(other, key)) for key in costs)
        rows.append(((str(place), one.expression, one.certainty), cells))
    header = ("level", "what it computes", "its rank is", "parameters", "MACs", "rank")
    return Table("Levels of the matrix, which are added", header, tuple(rows))


def _layer_levels(number: int, shown: AttentionReport, known: AttentionReport) -> Table:
    rows = []
    for place, (one, other) in enumerate(zip(shown.levels, known.levels, strict=True)):
        rank, block, scores, cache = one
        id_ = f"s{number}-l{place}"
        cells = (cell(f"{id_}-scores", scores, other[2]), cell(f"{id_}-key_cache", cache, other[3]))
        rows.append(((str(place), f"{rank:,}", f"{block:,}"), cells))
    header = ("level", "features of a pair", "tokens of a block", "scores (MACs)", "key cache (elements)")
    return Table("Features that pairs of tokens multiply, and which pairs", header, tuple(rows))


def step_table(number: int, shown: Report | AttentionReport, known: Report | AttentionReport) -> Table | None:
    """Return a row for each step of a matrix; None for a layer."""
    if isinstance(shown, AttentionReport) or isinstance(known, AttentionReport):
        return None
    rows, ids = [], []
    for place, (one, other) in enumerate(zip(shown.steps, known.steps, strict=True)):
        id_ = f"s{number}-t{place}"
        costs = ("macs", "elements", "bytes_moved")
        cells = tuple(cell(f"{id_}-{key}", getattr(one, key), getattr(other, key)) for key in costs)
        rows.append(((str(one.level), one.text.partition(": ")[0]), cells))
        ids.append(f"{id_}-text")
    caption = f"Steps of the product, one factor after the other (bytes of {shown.memory.dtype})"
    return Table(caption, ("level", "step", "MACs", "elements", "bytes"), tuple(rows), tuple(ids))
