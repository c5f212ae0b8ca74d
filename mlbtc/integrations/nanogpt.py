"""Attention for nanoGPT: a class for its `CausalSelfAttention`, and files of `mlbtc generate` in its place."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from typing import Protocol

from torch import Tensor, nn

import mlbtc.spec
from mlbtc.errors import MlbtcError, SpecError
from mlbtc.integrations.levels import attend, levels_of
from mlbtc.spec.attention import AttentionSpec


class Config(Protocol):
    """What is read of nanoGPT's `GPTConfig`."""

    n_embd: int
    n_head: int
    block_size: int
    bias: bool
    dropout: float


class CausalSelfAttention(nn.Module):
    """MLR attention with the parameters, the dropout and the call of nanoGPT's class of this name.

    With one level it computes the same, and checkpoints of nanoGPT load in any case. For several levels, bind them:
    `partial(CausalSelfAttention, ranks=(48, 16))` takes the place of the class.

    Args:
        config: says n_embd, n_head, block_size, bias and dropout.
        ranks: r_1, ..., r_L with sum n_embd / n_head; None is one level of all.
        block_sizes: b_1, ..., b_L; None is block_size / 2^(l-1).

    Raises:
        SpecError: the sizes do not fit.
    """

    def __init__(
        self, config: Config, ranks: Sequence[int] | None = None, block_sizes: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        width, heads, context = config.n_embd, config.n_head, config.block_size
        if ranks is None:
            spec = AttentionSpec.standard(width=width, heads=heads, context=context)
        else:
            spec = AttentionSpec.mlr(width=width, heads=heads, ranks=ranks, context=context, block_sizes=block_sizes)
        self.spec, self.levels = spec, levels_of(spec)
        # nanoGPT finds c_proj by its name and scales its first weights.
        self.c_attn = nn.Linear(width, 3 * width, bias=config.bias)
        self.c_proj = nn.Linear(width, width, bias=config.bias)
        self.dropout = config.dropout
        self.resid_dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, n_embd) -> the same
        """Attend within x."""
        shape = (*x.shape[:2], self.spec.heads, self.spec.head_dimension)
        query, key, value = (part.view(shape).transpose(1, 2) for part in self.c_attn(x).chunk(3, dim=2))
        y = attend(query, key, value, self.levels, causal=True, dropout=self.dropout if self.training else 0.0)
        out: Tensor = self.resid_dropout(self.c_proj(y.transpose(1, 2).flatten(2)))
        return out


def generated(layer: type[nn.Module], config: Config) -> nn.Module:
    """Return a layer of an emitted file in the place of `CausalSelfAttention(config)`.

    Args:
        layer: the class of a file of `mlbtc generate` or `mlbtc compile`.
        config: says n_embd, n_head, block_size, bias and dropout.

    Raises:
        SpecError: the file is no emitted file of an attention layer, its layer has other sizes or is not causal, or
            weights should be dropped, which emitted layers do not.
    """
    spec = emitted_spec(layer)
    wanted = {"width": config.n_embd, "heads": config.n_head, "context": config.block_size, "causal": True}
    for name, value in wanted.items():
        if getattr(spec, name) != value:
            raise SpecError(f"the config asks for {name} {value}, {layer.__name__} has {getattr(spec, name)}")
    if config.dropout:
        raise SpecError(
            f"emitted layers drop no weights, the config asks for dropout {config.dropout}: set it to 0, or take "
            "mlbtc.integrations.nanogpt.CausalSelfAttention"
        )
    return layer(bias=config.bias)


def emitted_spec(layer: type[nn.Module]) -> AttentionSpec:
    """Return the spec that stands at the head of the emitted file of a layer.

    Raises:
        SpecError: there is none.
    """
    # The class may come from a file that was loaded without a place in sys.modules.
    text = getattr(layer.forward, "__globals__", {}).get("__doc__") or ""
    found = re.search(r"^Spec:\n((?:    .*\n)+)", text, re.MULTILINE)
    try:
        spec = mlbtc.spec.loads(textwrap.dedent(found[1])) if found else None
    except MlbtcError:
        spec = None
    if not isinstance(spec, AttentionSpec):
        raise SpecError(
            f"{layer.__name__} is not from an emitted file of an attention layer, which begins with its spec"
        )
    return spec
