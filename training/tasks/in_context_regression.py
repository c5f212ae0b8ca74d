"""In-context regression (Garg et al. 2022; the paper's experiment 1): learn to fit a line within one forward pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import Field
from rich.console import Console
from torch import Tensor

from mlbtc.training import figures
from mlbtc.training.attention import check_causal, choose_attention
from mlbtc.training.config import RunConfig
from mlbtc.training.launch import own_console
from mlbtc.training.loop import fit
from mlbtc.training.metrics import read_metrics
from mlbtc.training.model import Transformer
from mlbtc.training.problem import Network, Problem
from mlbtc.training.report import Result, Table, finish
from mlbtc.training.runs import load_config, open_run
from mlbtc.training.seeds import seeded, stream
from mlbtc.training.tasks.prompts import Curriculum, Prompts, draw_prompts, least_squares_errors, zero_errors

LAYERS = 3
SIZES: dict[str, int] = {"width": 32, "heads": 4}


class Config(RunConfig):
    """Options of an in-context regression run.

    Attributes:
        dims: d, the dimensions of a point.
        points: N, the points of a prompt; None for 2 d.
        curriculum: steps over which dimensions and points grow from a quarter to all; 0 for none.
        evaluation_prompts: fresh prompts for the final table.
        eval_every: steps between evaluations of the model on these prompts while it trains; 0 for none.
    """

    task: ClassVar[str] = "icl"

    dims: int = Field(8, ge=1, le=4096)
    points: int | None = Field(None, ge=1, le=8192)
    curriculum: int = Field(500, ge=0)
    evaluation_prompts: int = Field(1024, ge=1)
    eval_every: int = Field(0, ge=0)
    steps: int = Field(2000, ge=1)
    batch: int = Field(64, ge=1)
    lr: float = Field(2e-3, gt=0, allow_inf_nan=False)
    out: Path = Path("runs/icl")

    def resolved(self) -> Config:
        """Return the config with every choice made: specs, sizes, points, device.

        Raises:
            TrainingError: options contradict each other or the attention spec.
        """
        points = self.points or 2 * self.dims
        specs = choose_attention(
            self.attention,
            layers=self.layers,
            default_layers=LAYERS,
            given={"width": self.width, "heads": self.heads},
            defaults={**SIZES, "context": 2 * points, "causal": True, "qk_norm": True, "scale": self.scale},
        )
        check_causal(specs, "in-context regression predicts a target from what stands before it")
        return self.with_layers(specs, points=points)


class Regression(Problem):
    """The training problem: the mean over points of (prediction - w.x)^2.

    Args:
        config: resolved.
    """

    def __init__(self, config: Config) -> None:
        assert config.points is not None
        self.config = config
        self.device = torch.device(config.device)
        self.curriculum = Curriculum(config.dims, config.points, config.curriculum)
        with seeded(config.seed, "model"):
            model = Transformer(config.specs, config.mlps, inputs=config.dims, outputs=1, positions=2 * config.points)
        super().__init__(model.to(self.device), stream(config.seed, "training"))

    def draw(self, step: int) -> tuple[Tensor, ...]:
        """Draw prompts of the curriculum's size: points and targets."""
        active, points = self.curriculum.at(step)
        prompts = draw_prompts(self.config.batch, self.config.dims, active, points, self.generator)
        return prompts.points, prompts.targets

    def loss(self, network: Network, *batch: Tensor) -> Tensor:
        """Return the mean squared error of prompts."""
        prompts = Prompts(*batch)
        return (predict(network, prompts) - prompts.targets).square().mean()

    def validation_loss(self, rows: int, generator: torch.Generator) -> Tensor:
        """Return the mean squared error of fresh prompts of the full size."""
        config = self.config
        assert config.points is not None
        prompts = draw_prompts(rows, config.dims, config.dims, config.points, generator).to(self.device)
        return self.loss(self.model, prompts.points, prompts.targets)

    def measure(self, step: int) -> dict[str, Any]:
        """Return the size of the curriculum, and every so often the errors at the last point and on average."""
        active, points = self.curriculum.at(step)
        found: dict[str, Any] = {"dims": active, "points": points}
        if self.config.eval_every and step % self.config.eval_every == 0:
            errors = self.errors(self.fresh_prompts())
            found |= {"last_error": float(errors[-1]), "mean_error": float(errors.mean())}
        return found

    def fresh_prompts(self) -> Prompts:
        """Return the prompts of evaluations, which training never draws."""
        config = self.config
        assert config.points is not None
        generator = stream(config.seed, "evaluation")
        return draw_prompts(config.evaluation_prompts, config.dims, config.dims, config.points, generator)

    def errors(self, prompts: Prompts) -> Tensor:
        """Return the mean squared error of the model at each position, `(N,)` in float64."""
        with self.evaluating():
            parts = [predict(self.model, part.to(self.device)).cpu() for part in prompts.split(256)]
        return (torch.cat(parts).double() - prompts.targets.double()).square().mean(0)

    def evaluate(self) -> dict[str, list[float]]:
        """Return errors by position, of the model and its rivals, on prompts that training never draws."""
        prompts = self.fresh_prompts()
        found = {
            "model": self.errors(prompts),
            "zero predictor": zero_errors(prompts),
            "least squares": least_squares_errors(prompts),
        }
        # Rounded, as the last bits of a LAPACK solve depend on where its input lies in memory.
        return {name: [round(value, 9) for value in values.tolist()] for name, values in found.items()}


def predict(network: Network, prompts: Prompts) -> Tensor:  # (B, N)
    """Return the predictions for the targets of prompts, read where the points stand."""
    return network(prompts.tokens())[:, 0::2, 0]


def run(config: Config, *, resume: bool = False, console: Console | None = None) -> Result:
    """Train, evaluate on fresh prompts and write the run folder.

    Args:
        config: need not be resolved.
        resume: continue the run in `config.out`; see `resume_config`.
        console: for progress and messages; standard output by default.

    Returns:
        The final errors, at the last point and as the mean over points, of the model, the zero predictor and least
        squares; and where report and figure are.

    Raises:
        TrainingError: an option is wrong, or the loss diverged.
        Interrupted: Ctrl-C or SIGTERM; the run can be resumed.
    """
    console = console or own_console()
    config = config.resolved()
    problem, inputs = load_problem(config, console)
    folder = open_run(config, inputs, resume=resume, console=console)
    steps = fit(problem, config, folder, resume=resume, console=console)
    errors = problem.evaluate()
    metrics = {name: {"last": values[-1], "mean": sum(values) / len(values)} for name, values in errors.items()}
    return finish(
        config,
        folder,
        model=problem.model,
        metrics={"errors": metrics, "errors_by_position": errors},
        table=_table(config, metrics),
        notes=_notes(config),
        steps=steps,
        draw=lambda: figures.errors_by_position(folder.figure, read_metrics(folder.metrics), errors),
    )


def load_problem(config: Config, console: Console) -> tuple[Regression, dict[str, str]]:
    """Return the problem of a resolved config, and what identifies its data: nothing, as prompts are drawn."""
    return Regression(config), {}


def resume_config(folder: Path, **changes: Any) -> Config:
    """Return the config of an earlier run with some options changed, for `run(config, resume=True)`."""
    return load_config(Config, folder, **changes)


def _table(config: Config, metrics: dict[str, dict[str, float]]) -> Table:
    title = (
        f"mean squared error at d = {config.dims}, {config.points} points, {config.evaluation_prompts} fresh prompts"
    )
    rows = tuple((name, f"{errors['last']:.4f}", f"{errors['mean']:.4f}") for name, errors in metrics.items())
    return Table(title, ("predictor", "last point", "mean over points"), rows)


def _notes(config: Config) -> tuple[str, ...]:
    assert config.points is not None
    tokens = 2 * config.points
    nested = (spec for spec in config.specs if any(len(part.block_sizes) > 1 for part in spec.parts))
    contexts = sorted({spec.context for spec in nested} - {tokens})
    return tuple(
        f"the blocks of the attention spec are those of {context} tokens, a prompt has {tokens}" for context in contexts
    )
