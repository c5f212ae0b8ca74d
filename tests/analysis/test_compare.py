"""Comparisons of reports."""

import pytest

from mlbtc import AttentionSpec, analyze, families
from mlbtc.analysis.compare import compare
from mlbtc.errors import AnalysisError

LAYER = AttentionSpec.standard(width=16, heads=2, context=8)


def test_matrices() -> None:
    found = compare([analyze(families.btt(("D", "D"), 2)), analyze(families.low_rank((64, 32), 4), 10)])
    assert found.header[:4] == ("name", "shape", "parameters", "MACs")
    assert found.rows[0][:6] == ("btt", "D x D", "4*D**(3/2)", "4*D**(3/2)*T", "D", "exact")
    assert found.rows[0][-2:] == ("sqrt(D)/4", "sqrt(D)/4")
    bytes_moved = 4 * (10 * 32 + 32 * 4 + 10 * 4 + 10 * 4 + 4 * 64 + 10 * 64)
    assert found.rows[1] == ("low_rank", "64 x 32", "384", "3,840", "4", "exact", f"{bytes_moved:,}", "5.333", "5.333")


def test_attention_layers() -> None:
    (row,) = compare([analyze(LAYER, 8)]).rows
    assert row[:3] == (LAYER.name, "16", "1,024")
    assert row[-3:] == (str(2 * 8 * 16), "1", "1")


def test_kinds_are_not_mixed() -> None:
    reports = [analyze(LAYER, 8), analyze(families.dense((2, 2)))]
    with pytest.raises(AnalysisError, match=r"b\.yaml is a matrix, a\.yaml an attention layer"):
        compare(reports, ["a.yaml", "b.yaml"])
    with pytest.raises(AnalysisError, match="at least one"):
        compare([])
