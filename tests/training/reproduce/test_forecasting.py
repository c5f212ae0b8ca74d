import io
from dataclasses import replace

import pytest
from rich.console import Console

from mlbtc.training.reproduce import Plan, plan, reproduce
from mlbtc.training.reproduce.forecasting import gains
from mlbtc.training.reproduce.grid import Setting
from tests.training.reproduce.made import outcome


def test_ranks_are_those_of_the_paper_at_its_width(tmp_path):
    cells = plan("forecast", Plan("paper", seeds=1, data="synthetic")).cells(tmp_path)
    ranks = {cell.variant: cell.config.resolved().specs[0].ranks for cell in cells if cell.variant != "dlinear"}
    assert ranks == {"standard": (64,), "mlr-2-levels": (48, 16), "mlr-4-levels": (40, 16, 4, 4)}
    assert {cell.config.resolved().context for cell in cells} == {96, 192, 336}


def test_the_rival_keeps_its_recipe(tmp_path):
    cells = plan("forecast", Plan(seeds=1, data="synthetic", variants=("dlinear",))).cells(tmp_path)
    config = cells[0].config.resolved()
    assert (config.model, config.steps, config.lr, config.validate_every) == ("dlinear", 2640, 1e-4, 264)


def test_gains_are_paired_and_in_percent():
    runs = [
        outcome("standard", 0, [2.0]),
        outcome("a", 0, [1.0]),
        outcome("standard", 1, [1.0]),
        outcome("a", 1, [1.1]),
    ]
    assert gains([*runs, outcome("a", 2, [1.0])], "a", "only") == pytest.approx([50.0, -10.0])


def test_a_shrunk_grid(tmp_path):
    experiment = plan("forecast", Plan(steps=2, seeds=1, data="synthetic", variants=("standard", "dlinear")))
    small = (("width", 8), ("batch", 2), ("validate_stride", 400))
    setting = Setting("horizon24", (("horizon", 24), ("context", 24)))
    experiment = replace(experiment, options=(*experiment.options, *small), settings=(setting,))
    report = reproduce(experiment, tmp_path, command="x", console=Console(file=io.StringIO()))
    lines = (tmp_path / "runs.csv").read_text().splitlines()
    assert "repeat the last day: OT MAE" in lines[0]
    assert [line.split(",")[3] for line in lines[1:]] == ["standard", "dlinear"]
    assert "series synthetic series" in report.read_text()
