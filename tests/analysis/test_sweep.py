"""Sweeps: what texts mean, rows against single reports, and points that do not fit."""

import pytest

from mlbtc import AttentionSpec, analyze, families
from mlbtc.analysis import Report
from mlbtc.analysis.sweep import Sweep, parse_sweep, run_sweep, sweep_table
from mlbtc.errors import AnalysisError

TEXTS = {
    "D=256:8192:2x": (256, 512, 1024, 2048, 4096, 8192),
    "D=256:640:+128": (256, 384, 512, 640),
    "D=256:700:+128": (256, 384, 512, 640),
    "D=3:30:3x": (3, 9, 27),
    "D=256,512": (256, 512),
    " D = 7 , 5": (7, 5),
    "D=8:8:2x": (8,),
}


@pytest.mark.parametrize(("text", "values"), TEXTS.items())
def test_texts(text: str, values: tuple[int, ...]) -> None:
    assert parse_sweep(text) == Sweep("D", values)


BAD = {
    "D=512:256:2x": "empty",
    "D=0:256:2x": "empty",
    "D=1:256:1x": "multiply by at least 2",
    "D=1:256:+0": "add at least 1",
    "D=1:256": "NAME=FIRST:LAST:2x",
    "D": "found 'D'",
    "D=": "found 'D='",
    "D=a,b": "NAME=A,B,C",
    "D=-1,2": "NAME=A,B,C",
    "D=1:99999999999999999999:2x": "NAME=FIRST",
}


@pytest.mark.parametrize(("text", "words"), BAD.items())
def test_bad_texts(text: str, words: str) -> None:
    with pytest.raises(AnalysisError, match=words):
        parse_sweep(text)


BTT = families.btt(("D", "D"), 2)


def test_rows_are_those_of_single_reports_and_others_say_why() -> None:
    points = run_sweep(BTT, [parse_sweep("D=16:64:2x")], 5)
    assert [point.report is None for point in points] == [False, True, False]
    assert "sqrt(D) must be an integer" in points[1].problem
    for point in (points[0], points[2]):
        single = analyze(BTT.bind(**dict(point.values)), 5)
        assert point.report is not None
        assert point.report.to_json() == single.to_json()
    table = sweep_table(points)
    assert table.header[0] == "D"
    assert table.header[-1] == "problem"
    assert table.rows[0][:2] == ("16", "256")
    assert table.rows[1][1:-1] == ("",) * (len(table.header) - 2)
    assert points[1].to_json() == {"at": {"D": 32}, "problem": points[1].problem}
    assert points[0].to_json()["macs"]["value"] == 5 * 256


def test_tokens_and_several_names() -> None:
    points = run_sweep(BTT, [parse_sweep("D=16,64"), parse_sweep("T=1,10")])
    assert [point.values for point in points] == [
        (("D", d), ("T", t)) for d in (16, 64) for t in (1, 10)
    ]  # fmt: skip
    assert [int(p.report.macs) for p in points if isinstance(p.report, Report)] == [256, 2560, 2048, 20480]
    square = families.low_rank(("T", "T"), 2)
    sizes = run_sweep(square, [parse_sweep("T=8,16")], 3)
    assert [int(p.report.macs) for p in sizes if p.report is not None] == [3 * 32, 3 * 64]


def test_attention_layers_sweep_tokens_only() -> None:
    spec = AttentionSpec.standard(width=16, heads=2, context=64)
    points = run_sweep(spec, [parse_sweep("T=8,16")])
    assert sweep_table(points).header[:2] == ("T", "parameters")
    with pytest.raises(AnalysisError, match="only T"):
        run_sweep(spec, [parse_sweep("D=8")])


def test_what_cannot_be_swept() -> None:
    with pytest.raises(AnalysisError, match=r"no symbol 'E'.*known: D, T"):
        run_sweep(BTT, [Sweep("E", (1,))])
    with pytest.raises(AnalysisError, match="swept twice"):
        run_sweep(BTT, [Sweep("D", (1,)), Sweep("D", (4,))])
    with pytest.raises(AnalysisError, match="swept and given"):
        run_sweep(BTT, [Sweep("T", (1,))], 5)
    with pytest.raises(AnalysisError, match="at most 512 points"):
        run_sweep(BTT, [Sweep("D", (4,) * 30), Sweep("T", (1,) * 30)])
    with pytest.raises(AnalysisError, match="from 1 to 16777216"):
        run_sweep(BTT, [Sweep("D", (0,))])
