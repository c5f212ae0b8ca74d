from collections import Counter

import pytest

from mlbtc.training.reproduce import Plan, plan
from mlbtc.training.reproduce.grid import evaluation_interval
from mlbtc.training.reproduce.icl import score_ranks


@pytest.mark.parametrize("head", [1, 2, 3, 4, 7, 8, 12, 16, 32, 64])
def test_the_ranks_of_a_score_are_those_of_a_head(head):
    ranks = score_ranks(head)
    assert sum(ranks) == head
    assert min(ranks) >= 1
    assert list(ranks) == sorted(ranks, reverse=True)


def test_the_larger_setting_is_a_short_look_with_one_seed(tmp_path):
    cells = [cell for cell in plan("icl").cells(tmp_path) if cell.setting == "d16-width64"]
    assert {cell.seed for cell in cells} == {0}
    assert {(cell.config.dims, cell.config.width or cell.config.resolved().specs[0].width) for cell in cells} == {
        (16, 64)
    }
    assert {(cell.config.steps, cell.config.curriculum, cell.config.eval_every) for cell in cells} == {(2000, 120, 20)}
    assert {cell.config.steps for cell in plan("icl", Plan(steps=7)).cells(tmp_path)} == {7}


def test_heads_and_scores_of_the_small_grid(tmp_path):
    cells = [cell for cell in plan("icl").cells(tmp_path) if cell.setting == "d8-width32" and cell.seed == 0]
    specs = {cell.variant: cell.config.resolved().specs for cell in cells}
    assert {name: (spec[0].heads, spec[0].width, len(spec)) for name, spec in specs.items()} == {
        "standard": (8, 32, 3),
        "standard-1-head": (1, 32, 3),
        "bilinear-btt": (8, 32, 3),
        "bilinear-mlr": (8, 32, 3),
        "bilinear-mlr-joint": (8, 32, 3),
    }
    assert all(spec[0].context == 32 and spec[0].causal and spec[0].qk_norm for spec in specs.values())
    assert [name for name, spec in specs.items() if spec[0].joint_norm] == ["bilinear-mlr-joint"]


def test_variants_and_settings_for_the_reason_have_fewer_runs(tmp_path):
    cells = Counter((cell.setting, cell.variant) for cell in plan("icl").cells(tmp_path))
    assert cells == {
        ("d8-width32", "standard"): 3, ("d8-width32", "standard-1-head"): 2, ("d8-width32", "bilinear-btt"): 3,
        ("d8-width32", "bilinear-mlr"): 2, ("d8-width32", "bilinear-mlr-joint"): 2,
        ("d16-width64", "standard"): 1, ("d16-width64", "bilinear-btt"): 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("steps", "every"), [(1, 1), (3, 1), (100, 1), (101, 2), (200, 2), (250, 5), (14000, 140), (1009, 11)]
)
def test_evaluations_end_with_the_run(steps, every):
    # 1009 is a prime: nothing near divides it.
    assert evaluation_interval(steps, 100) == every


def test_seeds_that_are_asked_for_are_those_of_every_variant(tmp_path):
    cells = Counter(cell.variant for cell in plan("icl", Plan(seeds=4)).cells(tmp_path) if "d8" in cell.setting)
    assert set(cells.values()) == {4}
