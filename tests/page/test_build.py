"""The text of a page: self-contained, escaped, the same every time, and what it says of bounds."""

import re
from pathlib import Path

import pytest

import mlbtc
from mlbtc import MLBTC, AttentionSpec, Level, analyze, families, symbol
from mlbtc.analysis.sweep import Sweep
from mlbtc.errors import AnalysisError
from mlbtc.page import check_page_path, render_page, write_page
from tests.cli.command import SPECS

D = symbol("D")
EXAMPLES = sorted(SPECS.glob("*.yaml"))


def page(name: str) -> str:
    return render_page([mlbtc.load(SPECS / f"{name}.yaml")])


@pytest.mark.parametrize("name", ["monarch", "bilinear_attention"])
def test_nothing_outside_is_named(name: str) -> None:
    text = page(name)
    assert re.findall(r"\b(?:src|href)\s*=\s*[\"'](?!#)", text) == []
    assert re.findall(r"url\(|@import|https?://(?!www\.w3\.org/2000/svg)", text) == []
    assert "default-src 'none'" in text


def test_the_same_page_every_time() -> None:
    assert page("tied") == page("tied")


def test_what_is_on_it() -> None:
    spec = mlbtc.load(SPECS / "local_and_global.yaml")
    text = page("local_and_global")
    report = analyze(spec)
    for words in ("k = 4", "s = 2", "sqrt(D)", "class", "LocalAndGlobal", str(report.macs.symbolic)):
        assert words in text
    for step in report.steps:
        assert step.text.partition(": ")[0].replace("'", "&#39;") in text
    for warning in report.warnings:
        assert warning in text
    assert text.count('<svg role="img" class="graph"') == 1
    assert text.count('<input type="range"') == 2


def test_fixed_sizes_have_no_slider_of_a_size() -> None:
    text = page("monarch")
    assert text.count('<input type="range"') == 1
    assert 'id="slider-0" min="0"' in text
    assert "(tokens)</option>" in text


def test_a_bound_is_called_one() -> None:
    tensor_train = Level.einsum("a c s, b d s -> (a b) (c d)", sizes={"a": 3, "b": 5, "c": 5, "d": 3, "s": 2})
    spec = MLBTC((15, 15), [tensor_train])
    report = analyze(spec)
    assert report.certainty == "upper bound"
    text = render_page([spec])
    assert "(upper bound)" in text
    assert f"the rank is an upper bound: {report.reason}" in text


def test_names_are_escaped() -> None:
    spec = MLBTC((D, 8), [Level(1, 2)], "a", {"D": 16})
    text = render_page([spec.named("x y.z")])
    assert "x y.z" in text
    evil = AttentionSpec.standard(width=8, heads=2, context=4, name="a")
    object.__setattr__(evil, "name", "</script><script>alert(1)</script>")
    text = render_page([evil])
    assert "<script>alert" not in text
    assert text.count("</script>") == 1


def test_mixed_kinds() -> None:
    with pytest.raises(AnalysisError, match="share no table"):
        render_page([families.dense((8, 8)), AttentionSpec.standard(width=8, heads=2, context=4)])


def test_a_rank_at_too_many_positions() -> None:
    spec = MLBTC((D, D), [Level(2, 3, permutation=("stride(2)", None)), *families.low_rank((D, D), symbol("r")).levels])
    ranges = [Sweep("D", tuple(range(2, 102, 2))), Sweep("r", tuple(range(1, 40)))]
    with pytest.raises(
        AnalysisError, match=r"settled at every position .* at most 512, found 1950: give shorter ranges"
    ):
        render_page([spec], ranges)


def test_paths(tmp_path: Path) -> None:
    for path, message in {
        tmp_path / "report.txt": "the name of a page ends in .html; found",
        tmp_path / "none" / "report.html": "there is no folder",
        tmp_path / "folder.html": "it is a folder",
    }.items():
        (tmp_path / "folder.html").mkdir(exist_ok=True)
        with pytest.raises(AnalysisError, match=message):
            check_page_path(path)
    write_page(tmp_path / "good.html", "text")
    assert (tmp_path / "good.html").read_text() == "text"


def test_a_page_that_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    (tmp_path / "report.html").write_text("before")
    monkeypatch.setattr("os.replace", full)
    with pytest.raises(AnalysisError, match=r"cannot write .*report.html: No space left on device"):
        write_page(tmp_path / "report.html", "after")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_text() == "before"
