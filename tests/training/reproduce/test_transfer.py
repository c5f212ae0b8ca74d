import io
from dataclasses import replace

import pytest
from rich.console import Console

from mlbtc.training.reproduce import Plan, plan, reproduce
from mlbtc.training.reproduce.claims import UNDECIDED
from mlbtc.training.reproduce.transfer import Transfer
from tests.training.reproduce.made import outcome

RATES = (("a", 1.0), ("b", 2.0), ("c", 4.0), ("d", 8.0), ("e", 16.0))
WIDTHS = ("narrow", "wide")


def judge(*best):
    """Judge runs whose best rates, seed by seed and width by width, are those named."""
    runs = [
        outcome(name, seed, [abs(ord(name) - ord(places[column])) + 1.0], setting=width)
        for seed, places in enumerate(best)
        for column, width in enumerate(WIDTHS)
        for name, _ in RATES
    ]
    return Transfer(RATES, WIDTHS)(runs)


@pytest.mark.parametrize(
    ("best", "answer"),
    [
        (("cc", "cb"), "holds"),
        (("bd", "db"), "does not hold"),
        (("cc", "bd"), UNDECIDED),
        (("cc",), UNDECIDED),
        (("ab", "bb"), UNDECIDED),
        (("de", "dd"), UNDECIDED),
    ],
)
def test_best_rates_are_one_or_are_not(best, answer):
    assert judge(*best).answer == answer


def test_the_reason_names_the_rates():
    assert judge("cb", "cc").reason == "best rates at narrow, wide, seed by seed: 4, 2; 4, 4"


def test_a_rate_that_was_not_run_decides_nothing():
    runs = [outcome("a", 0, [1.0], setting=width) for width in WIDTHS]
    assert Transfer(RATES, WIDTHS)(runs).answer == UNDECIDED


def test_a_shrunk_grid(tmp_path):
    (tmp_path / "text.txt").write_text("to be, or not to be: that is the question\n" * 100)
    experiment = plan("mup", Plan(steps=2, seeds=1, data=str(tmp_path / "text.txt"), device="cpu"))
    small = (("batch", 1), ("eval_windows", 1), ("layers", 1))
    chosen = [variant for variant in experiment.variants if variant.name in ("mup-0.001", "plain-0.001")]
    experiment = replace(
        experiment, options=(*experiment.options, *small), settings=experiment.settings[:2], variants=tuple(chosen)
    )
    configs = {(cell.setting, cell.variant): cell.config.resolved() for cell in experiment.cells(tmp_path / "grid")}
    assert {key: (one.mup, one.base_width, one.lr, one.specs[0].heads) for key, one in configs.items()} == {
        ("width64", "mup-0.001"): (True, 64, 0.001, 2),
        ("width64", "plain-0.001"): (False, None, 0.001, 2),
        ("width128", "mup-0.001"): (True, 64, 0.001, 4),
        ("width128", "plain-0.001"): (False, None, 0.001, 4),
    }
    report = reproduce(experiment, tmp_path / "grid", command="x", console=Console(file=io.StringIO()))
    assert "not every rate was run at every width" in report.read_text()
