"""A small pre-norm transformer whose attention is any attention spec, one per layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from mlbtc.compiler import compile
from mlbtc.spec import AttentionSpec
from mlbtc.training.errors import TrainingError
from mlbtc.training.mlp import EXPANSION, Mlp, linear, reset_linear


class Block(nn.Module):
    """`x + attention(norm(x))`, then `x + down(gelu(up(norm(x))))` with 4 times the width between up and down.

    Both output projections start at zero, so a new block is the identity.

    Args:
        spec: the attention of this block; it fixes the width.
        mlp: the structured matrices of its MLP; None for dense maps.
    """

    # What compile returns; its class is emitted code.
    attention: Any
    expansion: ClassVar = {"down": EXPANSION}  # read by mlbtc.mup.parameter_groups

    def __init__(self, spec: AttentionSpec, mlp: Mlp | None = None) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(spec.width, bias=False)
        self.attention = compile(spec)
        self.mlp_norm = nn.LayerNorm(spec.width, bias=False)
        hidden = EXPANSION * spec.width
        self.up = linear(hidden, spec.width, None if mlp is None else mlp.up)
        self.down = linear(spec.width, hidden, None if mlp is None else mlp.down)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw weights with variance 1 / fan-in; the two output projections are 0."""
        self.attention.reset_parameters()
        nn.init.zeros_(self.attention.output.weight)
        reset_linear(self.up)
        reset_linear(self.down, zero=True)

    def forward(self, x: Tensor, cache: Any = None) -> Tensor:  # (B, T, D)
        """Return the tokens behind the block, of the same shape; with a cache, they follow those that it holds."""
        given = {} if cache is None else {"cache": cache}
        x = x + self.attention(self.attention_norm(x), **given)
        return x + self.down(nn.functional.gelu(self.up(self.mlp_norm(x))))


class Transformer(nn.Module):
    """Linear read-in, learned positions, blocks, a last norm and a linear read-out that starts at zero.

    Args:
        specs: the attention of each layer; all of one width.
        mlps: the MLP of each layer, None for dense maps; without it all are dense.
        inputs: features of a token going in.
        outputs: features of a token coming out.
        positions: the most tokens that `forward` takes.

    Raises:
        TrainingError: there is no layer, the widths differ, or there are more or fewer MLPs.
    """

    width_free = ("read_in", "positions")

    def __init__(
        self,
        specs: Sequence[AttentionSpec],
        mlps: Sequence[Mlp | None] | None = None,
        *,
        inputs: int,
        outputs: int,
        positions: int,
    ) -> None:
        super().__init__()
        mlps = [None] * len(specs) if mlps is None else mlps
        if len(mlps) != len(specs):
            raise TrainingError(f"a transformer needs an MLP per layer, found {len(mlps)} for {len(specs)} layers")
        widths = sorted({spec.width for spec in specs})
        if len(widths) != 1:
            raise TrainingError(f"a transformer needs layers of one width, found {widths or 'no layers'}")
        (width,) = widths
        self.read_in = nn.Linear(inputs, width, bias=False)
        self.positions = nn.Parameter(torch.empty(positions, width))
        self.blocks = nn.Sequential(*map(Block, specs, mlps))
        self.norm = nn.LayerNorm(width, bias=False)
        self.read_out = nn.Linear(width, outputs, bias=False)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the read-in with variance 1 / inputs and positions with 0.02; the read-out is 0."""
        nn.init.normal_(self.read_in.weight, std=self.read_in.in_features**-0.5)
        nn.init.normal_(self.positions, std=0.02)
        for block in self.blocks:
            assert isinstance(block, Block)
            block.reset_parameters()
        nn.init.ones_(self.norm.weight)
        nn.init.zeros_(self.read_out.weight)

    def new_caches(self, batch_size: int) -> list[Any]:
        """Return an empty cache for each block.

        Raises:
            SpecError: an attention is not causal.
        """
        return [cast(Block, block).attention.new_cache(batch_size) for block in self.blocks]

    def forward(self, x: Tensor, caches: Sequence[Any] | None = None) -> Tensor:  # (B, T, inputs) to (B, T, outputs)
        """Return one output per token.

        Args:
            x: whole sequences, or the next tokens of sequences of one length where there are caches.
            caches: what `new_caches` returned; they take up the tokens.

        Raises:
            TrainingError: there are more tokens than positions.
        """
        first = caches[0].lengths[0] if caches else 0
        last = first + x.shape[1]
        if last > self.positions.shape[0]:
            raise TrainingError(f"the model has {self.positions.shape[0]} positions, found {last} tokens")
        hidden = self.read_in(x) + self.positions[first:last]
        for block, cache in zip(self.blocks, caches or [None] * len(self.blocks), strict=True):
            hidden = block(hidden, cache)
        return self.read_out(self.norm(hidden))
