import io
from dataclasses import replace

import pytest
import torch
from rich.console import Console

import mlbtc
from mlbtc.training.reproduce import Plan, plan, reproduce
from mlbtc.training.reproduce.forecasting import DAY, STRONG, gains
from mlbtc.training.reproduce.grid import Setting
from tests.training.reproduce.made import outcome


def test_ranks_are_those_of_the_paper_at_its_width(tmp_path):
    cells = plan("forecast", Plan("paper", seeds=1, data="synthetic")).cells(tmp_path)
    specs = {cell.variant: cell.config.resolved().specs[0] for cell in cells if cell.variant != "dlinear"}
    assert specs.pop("own-token").window == 1
    ranks = {variant: spec.ranks for variant, spec in specs.items()}
    assert ranks == {"standard": (64,), "mlr-2-levels": (48, 16), "mlr-4-levels": (40, 16, 4, 4)}


def test_without_attention_a_token_has_no_influence_on_others(tmp_path):
    cells = plan("forecast", Plan(seeds=1, data="synthetic", variants=("own-token",))).cells(tmp_path)
    spec = cells[0].config.resolved().specs[0]
    layer = mlbtc.compile(spec, dtype=torch.float64)
    x = torch.randn(1, spec.context, spec.width, dtype=torch.float64)
    changed = x.index_fill(1, torch.tensor([5]), 0.0)
    moved = (layer(x) - layer(changed)).abs().amax(dim=(0, 2)) > 0
    assert moved.tolist() == [position == 5 for position in range(spec.context)]


@pytest.mark.parametrize("scale", ["small", "paper"])
def test_the_look_back_is_the_horizon_in_the_papers_protocol_and_that_of_dlinear_in_the_other(tmp_path, scale):
    cells = plan("forecast", Plan(scale, seeds=1, data="synthetic", variants=("mlr-4-levels",))).cells(tmp_path)
    configs = [cell.config.resolved() for cell in cells]
    assert {(one.protocol, one.horizon, one.context) for one in configs} == {
        ("positions", 96, 96), ("positions", 192, 192), ("positions", 336, 336),
        ("channels", 96, 96), ("channels", 192, 96), ("channels", 336, 96),
    }  # fmt: skip


def strong(mse, daily, dlinear, setting="channels-horizon96"):
    found = {f"{DAY}: MSE": daily}
    made = [
        replace(outcome(name, seed, [1.0], setting=setting), extra=found | {"mse": value + seed / 1e4})
        for name, value in (("standard", mse), ("dlinear", dlinear))
        for seed in range(3)
    ]
    claims = {claim.text.removeprefix(STRONG): claim.judge for claim in plan("forecast", Plan(data="synthetic")).claims}
    texts = [text for text in claims if ("daily" in text and text.endswith("96.")) or "DLinear" in text]
    return [claims[text](made).answer for text in texts]


def test_strength_is_judged_by_the_daily_repeat_and_dlinear():
    assert strong(0.40, 0.51, 0.384) == ["holds", "holds"]
    assert strong(0.50, 0.51, 0.384) == ["holds", "does not hold"]
    assert strong(0.55, 0.51, 0.384) == ["does not hold", "does not hold"]


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
    small = (("width", 16), ("batch", 2), ("validate_stride", 400))
    setting = Setting("horizon24", (("horizon", 24), ("context", 24)))
    experiment = replace(experiment, options=(*experiment.options, *small), settings=(setting,))
    report = reproduce(experiment, tmp_path, command="x", console=Console(file=io.StringIO()))
    lines = (tmp_path / "runs.csv").read_text().splitlines()
    assert "repeat the last day: OT MAE" in lines[0]
    assert [line.split(",")[3] for line in lines[1:]] == ["standard", "dlinear"]
    assert "series synthetic series" in report.read_text()
