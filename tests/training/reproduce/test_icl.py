import pytest

from mlbtc.training.reproduce import plan
from mlbtc.training.reproduce.grid import evaluation_interval
from mlbtc.training.reproduce.icl import score_ranks


@pytest.mark.parametrize("head", [1, 2, 3, 4, 7, 8, 12, 16, 32, 64])
def test_the_ranks_of_a_score_are_those_of_a_head(head):
    ranks = score_ranks(head)
    assert sum(ranks) == head
    assert min(ranks) >= 1
    assert list(ranks) == sorted(ranks, reverse=True)


def test_heads_and_scores_of_the_small_grid(tmp_path):
    experiment = plan("icl")
    specs = {cell.variant: cell.config.resolved().specs for cell in experiment.cells(tmp_path) if cell.seed == 0}
    assert {name: (spec[0].heads, spec[0].width, len(spec)) for name, spec in specs.items()} == {
        "standard": (8, 32, 3),
        "standard-1-head": (1, 32, 3),
        "bilinear-btt": (8, 32, 3),
        "bilinear-mlr": (8, 32, 3),
    }
    assert all(spec[0].context == 32 and spec[0].causal and spec[0].qk_norm for spec in specs.values())


@pytest.mark.parametrize(
    ("steps", "every"), [(1, 1), (3, 1), (100, 1), (101, 2), (200, 2), (250, 5), (14000, 140), (1009, 11)]
)
def test_evaluations_end_with_the_run(steps, every):
    # 1009 is a prime: nothing near divides it.
    assert evaluation_interval(steps, 100) == every
