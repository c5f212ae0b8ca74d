"""Reports as Markdown and CSV."""

import csv
import io

from mlbtc import MLBTC, AttentionSpec, Level, analyze, families
from mlbtc.analysis import Report
from mlbtc.analysis.render import markdown_table, title, to_csv
from mlbtc.spec.sizes import Size


def report_of(spec: MLBTC, batch: Size | str | None = None) -> Report:
    report = analyze(spec, batch)
    assert isinstance(report, Report)
    return report


def table(text: str, number: int = 0) -> list[list[str]]:
    """Return the cells of one Markdown table of a report."""
    block = [part for part in text.split("\n\n") if part.startswith("|")][number]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()]


def test_a_bound_report() -> None:
    rows = table(report_of(families.btt((1024, 1024), 2), 64).to_markdown())
    assert rows == [
        ["quantity", "symbolic", "value", "dense", "dense / this"],
        ["---"] * 5,
        ["parameters", "131072", "131,072", "1,048,576", "8"],
        ["MACs", "8388608", "8,388,608", "67,108,864", "8"],
        ["FLOPs", "16777216", "16,777,216", "134,217,728", "8"],
        ["rank (exact)", "1024", "1,024", "", ""],
        ["largest intermediate (elements)", "131072", "131,072", "", ""],
        ["kept for the backward (elements)", "196608", "196,608", "", ""],
        ["bytes moved (float32)", "2097152", "2,097,152", "4,718,592", "2.25"],
    ]


def test_an_open_number_of_tokens_is_a_factor() -> None:
    rows = {row[0]: row[1:] for row in table(report_of(families.low_rank((8, 8), 2)).to_markdown())}
    assert rows["MACs"] == ["32*T", "32 T", "64 T", "2"]
    assert rows["parameters"] == ["32", "32", "64", "2"]
    assert rows["largest intermediate (elements)"] == ["8*T", "8 T", "", ""]


def test_open_symbols_have_no_values() -> None:
    rows = {row[0]: row[1:] for row in table(report_of(families.low_rank(("D", "D"), 2)).to_markdown())}
    assert rows["parameters"] == ["4*D", "", "D**2", ""]
    assert rows["MACs"] == ["4*D*T", "", "D**2*T", ""]


def test_an_open_number_of_tokens_keeps_its_name() -> None:
    rows = {row[0]: row[1:] for row in table(report_of(families.low_rank((8, 8), 2), "N").to_markdown())}
    assert rows["MACs"] == ["32*N", "32 N", "64 N", "2"]


def test_an_expression_of_tokens() -> None:
    assert "64*N" in report_of(families.low_rank((8, 8), 2), "2*N").to_markdown()


def test_costs_that_are_no_multiple_of_the_tokens_are_not_shown_as_one() -> None:
    report = report_of(families.low_rank((1, 5), 9))
    rows = {row[0]: row[1:] for row in table(report.to_markdown())}
    shown = rows["MACs"][1].removesuffix(" T")
    assert not shown or report.bind(T=100).macs == 100 * int(shown)


def test_steps_are_listed_with_their_costs() -> None:
    rows = table(report_of(families.low_rank((6, 8), 2), 5).to_markdown(), 1)
    assert rows[0] == ["level", "step", "MACs", "elements", "bytes"]
    moved = [4 * (5 * 8 + 8 * 2 + 5 * 2), 4 * (5 * 2 + 2 * 6 + 5 * 6)]
    assert [[row[0], *row[2:]] for row in rows[2:]] == [
        ["0", str(5 * 8 * 2), "10", str(moved[0])],
        ["0", str(5 * 2 * 6), "30", str(moved[1])],
    ]


def test_notes_state_rank_conditions_and_warnings() -> None:
    spec = MLBTC(("D", "D"), [Level(4, 9)], defaults={"D": 8})
    text = report_of(spec, 1).to_markdown()
    assert text.startswith("## matrix: D x D, 1 level, 1 tokens\n")
    notes = [line for line in text.splitlines() if line.startswith("- ")]
    assert notes[0] == "- family: block low rank 9 (4 blocks)"
    assert notes[1].startswith("- the rank is exact: ")
    assert "- needs: 4 divides D" in notes
    assert any(note.startswith("- warning: levels[0]: rank 9") for note in notes)
    assert text.endswith("\n")
    bound = report_of(families.tensor_train((3, 5), (5, 3), (2,))).to_markdown()
    assert "- the rank is an upper bound: " in bound


def test_titles() -> None:
    assert title(report_of(MLBTC((4, 6), [Level(1, 1)] * 3, name="three"))) == "three: 4 x 6, 3 levels, T tokens"
    assert title(analyze(AttentionSpec.standard(8, 2, 16), 16)).endswith(", 16 tokens")


def test_csv_has_plain_numbers() -> None:
    rows = list(csv.reader(io.StringIO(to_csv(report_of(families.btt((1024, 1024), 2), 64)))))
    assert rows[0] == ["quantity", "symbolic", "value", "dense", "dense / this"]
    assert [row[0] for row in rows[1:]] == [
        "parameters", "MACs", "FLOPs", "rank (exact)", "largest intermediate (elements)",
        "kept for the backward (elements)", "bytes moved (float32)",
    ]  # fmt: skip
    assert rows[2] == ["MACs", "8388608", "8388608", "67108864", "8"]


def test_csv_keeps_commas_of_formulas() -> None:
    text = to_csv(report_of(families.low_rank(("m", "n"), "r")))
    rows = list(csv.reader(io.StringIO(text)))
    assert {len(row) for row in rows} == {5}
    rank = next(row for row in rows if row[0].startswith("rank"))
    assert rank[1].startswith("Min(")
    assert rank[1].count(",") == 2


def test_csv_of_an_attention_layer() -> None:
    spec = AttentionSpec.mlr(width=16, heads=2, ranks=(4, 4), context=8)
    rows = list(csv.reader(io.StringIO(to_csv(analyze(spec, 8)))))
    assert rows[0] == ["quantity", "symbolic", "value", "standard", "standard / this"]
    cells = {row[0]: row[1:] for row in rows}
    assert cells["scores (MACs)"] == ["768", "768", "1024", "1.333"]


def test_bars_in_cells_do_not_end_a_markdown_cell() -> None:
    assert markdown_table(("a",), [("b|c",)]) == "| a |\n| --- |\n| b\\|c |"
