"""`mlbtc reproduce`: what it would run, what it leaves, and what it refuses."""

from pathlib import Path

import pytest

from tests.cli.command import Command

QUICK = ("--steps", 2, "--seeds", 1, "--variants", "standard")


def test_a_dry_run_prints_the_grid_and_makes_nothing(mlbtc: Command, tmp_path: Path) -> None:
    done = mlbtc("reproduce", "icl", *QUICK, "--out", tmp_path / "grid", "--dry-run")
    assert (done.code, done.err) == (0, "")
    assert "d8-width32, standard, seed 0\n" in done.out
    assert "d16-width64, standard, seed 0\n" in done.out
    assert "2 runs; about" in done.out
    assert not (tmp_path / "grid").exists()


def test_a_run_prints_the_verdicts_and_where_the_report_is(mlbtc: Command, tmp_path: Path) -> None:
    done = mlbtc("reproduce", "icl", *QUICK, "--out", tmp_path / "grid")
    assert done.code == 0, done.err
    assert "**not decidable at this scale**: Bilinear BTT attention ends below half" in done.out
    assert f"report {tmp_path / 'grid' / 'report.md'}" in done.out
    report = (tmp_path / "grid" / "report.md").read_text()
    assert "    mlbtc reproduce icl --scale small --seeds 1 --steps 2 --variants standard\n" in report


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "there is no experiment 'nothing'"),
        (["icl", "--variants", "bilinear"], "--variants bilinear: icl has standard"),
        (["icl", "--seeds", 0], "--seeds takes at least 1"),
    ],
    ids=str,
)
def test_wrong_wishes(arguments: list[object], message: str, mlbtc: Command, tmp_path: Path) -> None:
    done = mlbtc("reproduce", *arguments, "--out", tmp_path / "grid")
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert not (tmp_path / "grid").exists()
