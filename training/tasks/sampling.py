"""Text from a trained language model, token by token through the caches of its attention layers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from mlbtc.training.checkpoints import load_weights
from mlbtc.training.config import choose_device
from mlbtc.training.errors import TrainingError
from mlbtc.training.model import Transformer
from mlbtc.training.runs import RunFolder
from mlbtc.training.seeds import stream
from mlbtc.training.tasks.language_model import Config, build_model, model_inputs, resume_config
from mlbtc.training.tasks.text import VOCABULARIES, decode, encode


class Sampler:
    """A model of a run folder that continues text.

    Args:
        folder: of a language model run; one that is not finished gives its newest checkpoint.
        device: where to run, as for training; None for the choice of "auto".

    Raises:
        TrainingError: the folder is no run of a language model, or its weights cannot be read.
    """

    def __init__(self, folder: Path, device: str | None = None) -> None:
        self.config: Config = resume_config(folder)
        self.device = choose_device(device or "auto")
        self.model: Transformer = build_model(self.config).to(self.device).eval()
        found = RunFolder(folder)
        load_weights(found.model, found.checkpoints, self.model)

    @torch.no_grad()
    def tokens(
        self, prompt: bytes, count: int, *, temperature: float = 1.0, top_k: int | None = None, seed: int = 0
    ) -> Iterator[int]:
        """Yield the tokens that follow a prompt.

        When the context is full, its last half is read anew as if the text began there.

        Args:
            prompt: not empty; what is no token is dropped. Only what fits into the context counts.
            count: how many.
            temperature: divides the logits; 0 takes the most likely token.
            top_k: draw from so many most likely tokens only; None for all.
            seed: of the draws.

        Raises:
            TrainingError: an argument makes no sense.
        """
        seen = list(encode(prompt, self.config.tokens))
        vocabulary = VOCABULARIES[self.config.tokens]
        _check(seen, count, temperature, top_k, vocabulary)
        context, generator = self.model.positions.shape[0], stream(seed, "sampling")
        caches, new = self.model.new_caches(1), seen[-context:]
        for _ in range(count):
            if caches[0].lengths[0] + len(new) > context:
                caches, new = self.model.new_caches(1), seen[-max(1, context // 2) :]
            inputs = model_inputs(torch.tensor([new], device=self.device), vocabulary)
            logits = self.model(inputs, caches)[0, -1].double().cpu()
            token = _draw(logits, temperature, top_k, generator)
            seen.append(token)
            new = [token]
            yield token

    def text(
        self, prompt: str, count: int, *, temperature: float = 1.0, top_k: int | None = None, seed: int = 0
    ) -> Iterator[str]:
        """Yield what follows a prompt, piece by piece; arguments are those of `tokens`."""
        pending = b""
        for token in self.tokens(prompt.encode(), count, temperature=temperature, top_k=top_k, seed=seed):
            pending += decode([token], self.config.tokens)
            # Bytes of one character may arrive one after the other.
            try:
                piece, pending = pending.decode(), b""
            except UnicodeDecodeError as error:
                if error.reason == "unexpected end of data":
                    continue
                piece, pending = pending.decode(errors="replace"), b""
            yield piece
        if pending:
            yield pending.decode(errors="replace")


def _draw(logits: Tensor, temperature: float, top_k: int | None, generator: torch.Generator) -> int:
    if temperature == 0:
        return int(logits.argmax())
    values, tokens = logits.topk(top_k or len(logits))
    chosen = torch.multinomial(torch.softmax(values / temperature, 0), 1, generator=generator)
    return int(tokens[chosen])


def _check(seen: list[int], count: int, temperature: float, top_k: int | None, vocabulary: int) -> None:
    if not seen:
        raise TrainingError("--prompt: a model continues text, and none of it is a token of the run; give some")
    if count < 1:
        raise TrainingError(f"--tokens takes at least 1, found {count}")
    if not 0 <= temperature < float("inf"):
        raise TrainingError(f"--temperature takes 0 or more, found {temperature:g}")
    if top_k is not None and not 1 <= top_k <= vocabulary:
        raise TrainingError(f"--top-k takes 1 to {vocabulary}, the tokens of the run, found {top_k}")
