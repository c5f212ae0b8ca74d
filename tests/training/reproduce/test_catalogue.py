import pytest

from mlbtc.training import TrainingError
from mlbtc.training.reproduce import EXPERIMENTS, Plan, plan


@pytest.mark.parametrize("scale", ["small", "paper"])
@pytest.mark.parametrize("name", list(EXPERIMENTS))
def test_every_run_of_every_experiment_is_a_config_that_resolves(name, scale, tmp_path):
    experiment = plan(name, Plan(scale, seeds=1, device="cpu"))
    cells = experiment.cells(tmp_path)
    assert len(cells) == sum(len(setting.variants or experiment.variants) for setting in experiment.settings)
    assert len({cell.config.out for cell in cells}) == len(cells)
    for cell in cells:
        config = cell.config.resolved()
        # So that the last evaluation is at the end of the run.
        assert config.steps % getattr(config, experiment.measure.evaluates) == 0
        assert config.seed == cell.seed == 0


@pytest.mark.parametrize("name", list(EXPERIMENTS))
def test_the_paper_has_three_seeds_or_more(name):
    assert plan(name).seeds >= 3 or name == "mup"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("icx", Plan(), "no experiment 'icx'; did you mean 'icl'"),
        ("icl", Plan("large"), "--scale large: known: paper, small"),
        ("icl", Plan(seeds=0), "--seeds takes at least 1, found 0"),
        ("icl", Plan(steps=0), "--steps takes at least 1, found 0"),
        ("icl", Plan(variants=("standart",)), "--variants standart: icl has standard, .*did you mean 'standard'"),
        ("icl", Plan(data="x"), "--data x: icl draws its data and takes none"),
    ],
)
def test_wrong_wishes(name, options, message):
    with pytest.raises(TrainingError, match=message):
        plan(name, options)


def test_options_reach_the_runs(tmp_path):
    cell, *_ = plan("icl", Plan(seeds=1, steps=200, variants=("bilinear-mlr",), device="cpu")).cells(tmp_path)
    assert (cell.variant, cell.config.steps, cell.config.eval_every, cell.config.device) == (
        "bilinear-mlr",
        200,
        2,
        "cpu",
    )


@pytest.mark.parametrize("scale", ["small", "paper"])
@pytest.mark.parametrize("name", ["icl", "lm", "forecast"])
def test_claims_are_about_variants_and_settings_that_exist(name, scale):
    experiment = plan(name, Plan(scale))
    variants = {variant.name for variant in experiment.variants}
    assert len({claim.text for claim in experiment.claims}) == len(experiment.claims) > 0
    for claim in experiment.claims:
        assert {claim.judge.ours, claim.judge.theirs} <= variants
        assert claim.judge.setting in {setting.name for setting in experiment.settings}
