import io
import json

import pytest
import torch
from rich.console import Console

from mlbtc import AttentionSpec
from mlbtc.training import TrainingError
from mlbtc.training.metrics import read_metrics
from mlbtc.training.tasks.in_context_regression import Config, Regression, predict, resume_config, run
from mlbtc.training.tasks.prompts import Prompts, draw_prompts

SMALL = {"dims": 3, "width": 16, "heads": 2, "layers": 2, "batch": 8, "evaluation_prompts": 300, "steps": 6}


def train(out, **options):
    return run(Config(out=out, **(SMALL | options)), console=Console(file=io.StringIO()))


def losses(result):
    return [row["loss"] for row in read_metrics(result.folder / "metrics.jsonl")]


@pytest.mark.parametrize("attention", ["standard", "mlr"])
def test_a_run_leaves_everything(tmp_path, attention):
    result = train(tmp_path / "run", attention=attention)
    names = {path.name for path in result.folder.iterdir()}
    expected = {"config.json", "metrics.jsonl", "checkpoints", "model.safetensors", "results.json", "report.md"}
    assert names - {"figure.png"} == expected
    assert json.loads((result.folder / "results.json").read_text()) == result.metrics
    assert [row[0] for row in result.table.rows] == ["model", "zero predictor", "least squares"]
    assert result.metrics["errors"]["zero predictor"]["mean"] == pytest.approx(1, abs=0.2)
    assert result.metrics["errors"]["least squares"]["last"] < 1e-6


def test_equal_seeds_give_equal_numbers(tmp_path):
    first, second, other = (train(tmp_path / name, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    assert losses(first) == losses(second) != losses(other)
    assert first.metrics == second.metrics != other.metrics


@pytest.mark.parametrize("attention", ["standard", "mlr"])
def test_a_resumed_run_is_bit_exact(tmp_path, attention):
    whole = train(tmp_path / "whole", attention=attention, curriculum=4)
    first = train(tmp_path / "parts", attention=attention, curriculum=4, steps=2)
    second = run(resume_config(first.folder, steps=6), resume=True, console=Console(file=io.StringIO()))
    assert losses(second) == losses(whole)
    assert second.metrics == whole.metrics


def test_evaluations_during_training_change_nothing_and_end_with_the_final_one(tmp_path):
    plain, evaluated = train(tmp_path / "plain"), train(tmp_path / "evaluated", eval_every=2)
    assert losses(evaluated) == losses(plain)
    found = {
        row["step"]: row["last_error"]
        for row in read_metrics(evaluated.folder / "metrics.jsonl")
        if "last_error" in row
    }
    assert list(found) == [2, 4, 6]
    assert found[6] == pytest.approx(plain.metrics["errors"]["model"]["last"], abs=1e-8)


def test_evaluation_prompts_are_not_those_of_training(tmp_path):
    problem = Regression(Config(out=tmp_path, **SMALL).resolved())
    state = problem.generator.get_state()
    first = problem.evaluate()
    assert torch.equal(problem.generator.get_state(), state)
    assert problem.evaluate() == first
    # Were the streams one, the 300 prompts of the evaluation would be the next ones of training.
    targets = draw_prompts(300, 3, 3, 6, problem.generator).targets
    assert first["zero predictor"] != pytest.approx(targets.square().mean(0).tolist(), abs=1e-6)


def test_the_loss_is_that_of_predictions_at_the_points():
    problem = Regression(Config(**SMALL, curriculum=0).resolved())
    # At the start the read-out is zero, so the loss is the mean square of the targets of the same stream.
    state = problem.generator.get_state()
    loss = problem.loss(problem.model, *problem.draw(1))
    problem.generator.set_state(state)
    targets = draw_prompts(8, 3, 3, 6, problem.generator).targets
    assert loss.item() == pytest.approx(targets.square().mean().item())


def test_a_target_is_not_seen_before_it_is_predicted():
    problem = Regression(Config(**SMALL, curriculum=0).resolved())
    with torch.no_grad():
        for parameter in problem.model.parameters():
            parameter.add_(torch.randn_like(parameter))
    prompts = draw_prompts(8, 3, 3, 6, problem.generator)
    changed = prompts.targets.clone()
    changed[:, 4:] += 1
    before, after = (predict(problem.model, Prompts(prompts.points, y)) for y in (prompts.targets, changed))
    assert torch.allclose(before[:, :5], after[:, :5], atol=1e-5)
    assert not torch.allclose(before[:, 5], after[:, 5], atol=1e-3)


def test_attention_that_sees_the_answer_is_refused():
    spec = AttentionSpec.standard(width=16, heads=2, context=12, causal=False)
    with pytest.raises(TrainingError, match="causal: true"):
        Config(attention=spec, dims=3).resolved()


def test_blocks_of_another_length_are_pointed_out(tmp_path):
    spec = AttentionSpec.mlr(width=16, heads=2, ranks=(4, 4), context=64)
    options = {key: value for key, value in SMALL.items() if key not in ("width", "heads")}
    result = run(Config(out=tmp_path / "run", attention=spec, **options), console=Console(file=io.StringIO()))
    assert result.notes == ("the blocks of the attention spec are those of 64 tokens, a prompt has 12",)


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["standard", "mlr"])
def test_the_defaults_learn(tmp_path, attention):
    result = run(Config(out=tmp_path / "run", attention=attention), console=Console(file=io.StringIO()))
    errors = result.metrics["errors"]
    assert errors["model"]["last"] < 0.7 * errors["zero predictor"]["last"]
    assert errors["model"]["mean"] < 0.8 * errors["zero predictor"]["mean"]
