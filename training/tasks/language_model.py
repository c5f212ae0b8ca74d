"""A language model of characters (the paper's experiment 2 at a small size): predict the next token of a text."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from rich.console import Console
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from mlbtc.training import figures
from mlbtc.training.attention import check_causal, choose_attention
from mlbtc.training.compute import PASSES, forward_macs, step_macs
from mlbtc.training.config import RunConfig
from mlbtc.training.errors import TrainingError
from mlbtc.training.launch import own_console
from mlbtc.training.loop import fit
from mlbtc.training.metrics import read_metrics
from mlbtc.training.model import Transformer
from mlbtc.training.problem import Network, Problem
from mlbtc.training.report import Result, Table, finish
from mlbtc.training.runs import load_config, open_run
from mlbtc.training.seeds import seeded, stream
from mlbtc.training.tasks.text import VOCABULARIES, Text, load_text

LAYERS = 2
SIZES: dict[str, int] = {"width": 64, "heads": 4, "context": 128}


class Config(RunConfig):
    """Options of a language model run.

    Attributes:
        data: text files and folders; none for the source text of Python's standard library.
        tokens: "characters" (newline and printable ASCII, others are dropped) or "bytes".
        context: tokens of a window.
        eval_every: steps between validations.
        eval_windows: windows of the validation part that are measured, evenly spread; 0 for all.
    """

    task: ClassVar[str] = "lm"

    data: tuple[str, ...] = ()
    tokens: Literal["characters", "bytes"] = "characters"
    context: int | None = Field(None, ge=1)
    eval_every: int = Field(100, ge=1)
    eval_windows: int = Field(256, ge=0)
    steps: int = Field(400, ge=1)
    batch: int = Field(16, ge=1)
    lr: float = Field(2e-3, gt=0, allow_inf_nan=False)
    out: Path = Path("runs/lm")

    def resolved(self) -> Config:
        """Return the config with every choice made: specs, sizes, device.

        Raises:
            TrainingError: options contradict each other or the attention spec.
        """
        specs = choose_attention(
            self.attention,
            layers=self.layers,
            default_layers=LAYERS,
            given={"width": self.width, "heads": self.heads, "context": self.context},
            defaults={**SIZES, "causal": True, "qk_norm": True, "scale": self.scale},
        )
        check_causal(specs, "a language model predicts a token from those before it")
        if len({spec.context for spec in specs}) > 1:
            raise TrainingError(f"layers need one context, found {sorted({spec.context for spec in specs})}")
        return self.with_layers(specs, context=specs[0].context)


class LanguageModel(Problem):
    """The training problem: mean cross entropy, in nats per token, of random windows of the training part.

    Args:
        config: resolved.
        text: the tokens.
    """

    def __init__(self, config: Config, text: Text) -> None:
        assert config.context is not None
        self.config, self.text, self.context = config, text, config.context
        self.device = torch.device(config.device)
        self.vocabulary = VOCABULARIES[config.tokens]
        self.starts = evaluation_starts(len(text.validation), self.context, config.eval_windows)
        super().__init__(build_model(config).to(self.device), stream(config.seed, "training"))

    def draw(self, step: int) -> tuple[Tensor, ...]:
        """Draw where windows begin."""
        last = len(self.text.train) - self.context
        return (torch.randint(last, (self.config.batch,), generator=self.generator),)

    def loss(self, network: Network, *batch: Tensor) -> Tensor:
        """Return the mean cross entropy of windows."""
        (starts,) = batch
        return self.losses(network, self.text.train, starts).mean()

    def losses(self, network: Network, tokens: Tensor, starts: Tensor) -> Tensor:  # (N,), (B,) to (B, T)
        """Return the cross entropy of each token behind those of windows."""
        windows = tokens[starts.cpu()[:, None] + torch.arange(self.context + 1)].long().to(self.device)
        logits = network(model_inputs(windows[:, :-1], self.vocabulary))
        return cross_entropy(logits.transpose(1, 2), windows[:, 1:], reduction="none")

    def validation_loss(self, rows: int, generator: torch.Generator) -> Tensor:
        """Return the mean cross entropy of windows of the validation part."""
        starts = torch.randint(len(self.text.validation) - self.context, (rows,), generator=generator)
        return self.losses(self.model, self.text.validation, starts).mean()

    def measure(self, step: int) -> dict[str, Any]:
        """Validate every so often."""
        if step % self.config.eval_every:
            return {}
        losses = self.evaluate()
        return {"validation_loss": sum(losses) / len(losses)}

    def evaluate(self) -> list[float]:
        """Return the mean validation loss at each position of a window, in float64."""
        total = torch.zeros(self.context, dtype=torch.float64)
        with self.evaluating():
            for starts in self.starts.split(32):
                total += self.losses(self.model, self.text.validation, starts).cpu().double().sum(0)
        means: list[float] = (total / len(self.starts)).tolist()
        return means


def build_model(config: Config) -> Transformer:
    """Return the model of a resolved config, with the weights that training starts from."""
    vocabulary = VOCABULARIES[config.tokens]
    assert config.context is not None
    with seeded(config.seed, "model"):
        sizes = {"inputs": vocabulary, "outputs": vocabulary, "positions": config.context}
        return Transformer(config.specs, config.mlps, **sizes)


def model_inputs(tokens: Tensor, vocabulary: int) -> Tensor:  # (B, T) to (B, T, vocabulary)
    """Return tokens as the model takes them: a linear read-in of one-hot vectors is an embedding."""
    return one_hot(tokens, vocabulary).to(torch.get_default_dtype())


def evaluation_starts(tokens: int, context: int, most: int) -> Tensor:
    """Return where windows begin that cover a text without overlap; at most `most`, evenly spread (0: all)."""
    count = (tokens - 1) // context
    chosen = count if most == 0 else min(most, count)
    return torch.arange(chosen) * count // chosen * context


def run(config: Config, *, resume: bool = False, console: Console | None = None) -> Result:
    """Train, evaluate on fixed validation windows and write the run folder.

    Args:
        config: need not be resolved.
        resume: continue the run in `config.out`; see `resume_config`.
        console: for progress and messages; standard output by default.

    Raises:
        TrainingError: an option or the data is wrong, or the loss diverged.
        Interrupted: Ctrl-C or SIGTERM; the run can be resumed.
    """
    console = console or own_console()
    config = config.resolved()
    problem, inputs = load_problem(config, console)
    folder = open_run(config, inputs, resume=resume, console=console)
    steps = fit(problem, config, folder, resume=resume, console=console)
    losses = problem.evaluate()
    rows = read_metrics(folder.metrics)
    metrics = _metrics(losses, rows) | _compute(config, steps)
    return finish(
        config,
        folder,
        model=problem.model,
        metrics=metrics,
        table=_table(problem, metrics),
        notes=(_compute_note(config, metrics),),
        steps=steps,
        draw=lambda: figures.losses_by_position(folder.figure, rows, losses),
    )


def load_problem(config: Config, console: Console) -> tuple[LanguageModel, dict[str, str]]:
    """Return the problem of a resolved config, and what identifies its data.

    Raises:
        TrainingError: a file is missing or no text, or there is too little.
    """
    assert config.context is not None
    text = load_text(config.data, config.tokens, config.context, console=console)
    return LanguageModel(config, text), {"sha256": text.digest}


def resume_config(folder: Path, **changes: Any) -> Config:
    """Return the config of an earlier run with some options changed, for `run(config, resume=True)`."""
    return load_config(Config, folder, **changes)


def _metrics(losses: list[float], rows: list[dict[str, Any]]) -> dict[str, Any]:
    loss = sum(losses) / len(losses)
    return {
        "validation_loss": loss,
        "perplexity": math.exp(loss),
        "bits_per_token": loss / math.log(2),
        "loss_by_position": losses,
        "seconds": rows[-1]["seconds"],
    }


def _compute(config: Config, steps: int) -> dict[str, float]:
    """Return what the blocks cost: the read-in, which is an embedding, and the read-out are left out."""
    assert config.context is not None
    forward = forward_macs(config.specs, config.context, config.mlps)
    step = step_macs(config.specs, sequences=config.batch, tokens=config.context, mlps=config.mlps)
    return {"macs_per_token": forward / config.context, "training_macs": step * steps}


def _compute_note(config: Config, metrics: dict[str, Any]) -> str:
    return (
        f"non-embedding compute: {metrics['macs_per_token']:,.0f} MACs per token in a window of {config.context}, "
        f"{metrics['training_macs']:.3g} MACs in {PASSES} x forward for all steps (1 MAC = 2 FLOPs)"
    )


def _table(problem: LanguageModel, metrics: dict[str, Any]) -> Table:
    title = f"next token of {problem.vocabulary}, {len(problem.starts)} validation windows of {problem.context} tokens"
    uniform = math.log(problem.vocabulary)
    header = ("predictor", "loss (nats)", "perplexity", "bits per token", "first position", "last position")
    by_position = metrics["loss_by_position"]
    found = (metrics["validation_loss"], by_position[0], by_position[-1])
    rows = tuple(
        (name, f"{loss:.4f}", f"{math.exp(loss):.2f}", f"{loss / math.log(2):.4f}", f"{first:.4f}", f"{last:.4f}")
        for name, (loss, first, last) in {"model": found, "uniform": (uniform,) * 3}.items()
    )
    return Table(title, header, rows)
