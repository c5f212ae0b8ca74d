"""Small models of transformers with random weights, made offline in float64, and what to compare them with."""

import inspect
from typing import Any

import pytest
import torch
from torch import Tensor

from mlbtc import AttentionSpec

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

# The name of the argument that is a cache changed within the versions that are supported.
_ARGUMENTS = inspect.signature(transformers.LlamaForCausalLM.forward).parameters
CACHE = "cache" if "cache" in _ARGUMENTS else "past_key_values"

VOCABULARY, WIDTH, HEADS, SIZE = 24, 32, 4, 8
# Weights this large make attention matter: with those that models start with, all weights of a row are about the same.
_COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY, "initializer_range": 0.4, "bos_token_id": 0, "eos_token_id": None, "pad_token_id": 0,
}  # fmt: skip


def gpt2(**changes: Any) -> Any:
    options = {"n_positions": 64, "n_embd": WIDTH, "n_layer": 2, "n_head": HEADS, "attn_implementation": "sdpa"}
    config = transformers.GPT2Config(**_COMMON, **options | changes)
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(config).double().eval()
    with torch.no_grad():
        for block in model.transformer.h:
            block.attn.c_attn.bias.normal_()
    return model


def llama(**changes: Any) -> Any:
    options = {
        "hidden_size": WIDTH, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": HEADS,
        "num_key_value_heads": 2, "max_position_embeddings": 64, "attn_implementation": "sdpa",
    }  # fmt: skip
    config = transformers.LlamaConfig(**_COMMON, **options | changes)
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(config).double().eval()


MAKERS = {"gpt2": gpt2, "llama": llama}


def spec(*ranks: int, blocks: tuple[int, ...] | None = None) -> AttentionSpec:
    """Return levels of the heads of these models, blocks of 8, 4, ... tokens by default."""
    ranks = ranks or (SIZE,)
    sizes = (64, *(8 // 2**level for level in range(len(ranks) - 1))) if blocks is None else blocks
    return AttentionSpec.mlr(width=WIDTH, heads=HEADS, ranks=ranks, context=64, block_sizes=sizes)


def tokens(batch: int, length: int, seed: int = 0) -> Tensor:
    return torch.randint(1, VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(seed))


def padding(lengths: list[int], total: int, side: str) -> Tensor:
    """Return an attention mask `(batch, total)` for sequences of these lengths."""
    mask = torch.arange(total) < torch.tensor(lengths)[:, None]
    return (mask if side == "right" else mask.flip(1)).long()
