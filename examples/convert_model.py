"""Conversion of a trained model: which structure loses least when its linear layers do half of the MACs?

A small language model is trained, its layers are replaced by the nearest structured ones, and it is trained a little
more. Run `python examples/convert_model.py --data book.txt`; without --data the text is Python's own standard library,
and `--steps 20` shows the same in seconds.
"""

import argparse
import copy
from pathlib import Path

import torch
from safetensors.torch import load_file

import mlbtc
from mlbtc.conversion import Budget, input_covariances
from mlbtc.training.tasks.language_model import Config, LanguageModel, model_inputs, run
from mlbtc.training.tasks.text import load_text
from mlbtc.training.team import joined
from mlbtc.training.trainer import Trainer

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", action="append", default=[], help="a text file or a folder of them; may be repeated")
parser.add_argument("--steps", type=int, default=400, help="of training; a quarter as many follow each conversion")
parser.add_argument("--macs", type=float, default=0.5, help="the fraction of the MACs of the layers that is left")
parser.add_argument("--out", type=Path, default=Path("runs/example-convert"))
options = parser.parse_args()

# --- Setup: a trained model ---------------------------------------------------------------------------------------
config = Config(data=tuple(options.data), steps=options.steps, out=options.out / "standard").resolved()
run(config)
text = load_text(config.data, config.tokens, config.context)


def trained() -> LanguageModel:
    """Return the problem with the weights that the run left."""
    problem = LanguageModel(config, text)
    problem.model.load_state_dict(load_file(config.out / "model.safetensors"))
    return problem


def loss(problem: LanguageModel) -> float:
    """Return the mean validation loss in nats per character."""
    losses = problem.evaluate()
    return sum(losses) / len(losses)


# --- Build: what goes into the layers says which errors matter ----------------------------------------------------
dense = trained()
windows = torch.stack([text.train[start : start + config.context] for start in range(0, 64 * config.context, 64)])
batches = [model_inputs(part.long(), dense.vocabulary) for part in windows.split(16)]
covariances = input_covariances(dense.model, batches)
print(f"{'dense':>14}  validation loss {loss(dense):.4f} nats")

# --- Run: each family at the same budget --------------------------------------------------------------------------
recovery = config.replace(lr=config.lr / 4, steps=max(1, options.steps // 4))
for family in ("low_rank", "mlr", "monarch", "btt"):
    problem = trained()
    budget = Budget(options.macs, family)
    plain = copy.deepcopy(problem)
    mlbtc.convert(plain.model, {"blocks.*": budget}, target="torch", max_iterations=10)
    done = mlbtc.convert(
        problem.model, {"blocks.*": budget}, covariances=covariances, target="torch", max_iterations=10
    )
    converted = loss(problem)
    with joined(recovery) as team:
        trainer = Trainer(problem, recovery, team)
        for step in range(1, recovery.steps + 1):
            trainer.step(step)
    before, after = done.macs
    print(
        f"{family:>14}  {after / before:.2f} of the MACs  validation loss {loss(plain):.4f} by weights, "
        f"{converted:.4f} by outputs, {loss(problem):.4f} after {recovery.steps} steps"
    )
print(done)
