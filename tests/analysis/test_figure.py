"""Figures: files of each kind, the same bytes twice, clear refusals."""

from pathlib import Path

import pytest

from mlbtc import AttentionSpec, families
from mlbtc.analysis.figure import draw_graph, plot_sweep
from mlbtc.analysis.sweep import parse_sweep, run_sweep
from mlbtc.errors import AnalysisError

STARTS = {".svg": b"<svg", ".dot": b"graph", ".mmd": b"---", ".png": b"\x89PNG"}
POINTS = run_sweep(families.btt(("D", "D"), 2), [parse_sweep("D=16:256:2x")], 4)


@pytest.mark.parametrize(("suffix", "start"), STARTS.items())
def test_graphs(suffix: str, start: bytes, tmp_path: Path) -> None:
    one, two = tmp_path / f"one{suffix}", tmp_path / f"two{suffix.upper()}"
    for path in (one, two):
        draw_graph(families.butterfly(16), str(path))
    assert one.read_bytes().startswith(start)
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_sweeps(suffix: str, tmp_path: Path) -> None:
    one, two = (tmp_path / f"{name}{suffix}" for name in ("one", "two"))
    for path in (one, two):
        plot_sweep(POINTS, str(path))
    assert one.read_bytes() == two.read_bytes()
    assert len(one.read_bytes()) > 5000


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(AnalysisError, match=r"ends in \.svg, \.dot, \.mmd, \.png; found 'x\.pdf'"):
        draw_graph(families.dense((2, 2)), "x.pdf")
    with pytest.raises(AnalysisError, match="ends in"):
        plot_sweep(POINTS, "x.dot")
    with pytest.raises(AnalysisError, match="one swept value"):
        plot_sweep(run_sweep(families.low_rank(("m", "n"), 2), [parse_sweep("m=4,8"), parse_sweep("n=4")]), "x.svg")
    layer = AttentionSpec.standard(width=16, heads=2, context=8)
    with pytest.raises(AnalysisError, match="no point"):
        plot_sweep(run_sweep(layer, [parse_sweep("T=4,8")]), str(tmp_path / "x.svg"))
