"""A file of `mlbtc generate` in the place of nanoGPT's CausalSelfAttention.

The model below is nanoGPT's, cut to what attention needs: `self.attn = attention(config)` and `self.attn(x)` in its
Block are the two lines that a layer has to fit. It is trained to predict the next byte of this very script, once with
standard attention, once with an emitted file that needs torch only, and once with a class of mlbtc that has nanoGPT's
parameters and its dropout. `python examples/nanogpt.py --steps 5` shows the same in seconds.
"""

import argparse
import importlib.util
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mlbtc.attention import write_variants
from mlbtc.integrations import nanogpt

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--steps", type=int, default=200)
options = parser.parse_args()


# --- Setup: nanoGPT's config and model ----------------------------------------------------------------------------
@dataclass
class GPTConfig:
    """The fields of nanoGPT's config."""

    block_size: int = 128
    vocab_size: int = 256
    n_layer: int = 2
    n_head: int = 4
    n_embd: int = 64
    dropout: float = 0.0
    bias: bool = False


class Block(nn.Module):
    """nanoGPT's block, with the class of its attention as an argument."""

    def __init__(self, config: GPTConfig, attention: Callable[[GPTConfig], nn.Module]) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.attn = attention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.mlp = nn.Sequential(
            nn.Linear(config.n_embd, 4 * config.n_embd, bias=config.bias),
            nn.GELU(),
            nn.Linear(4 * config.n_embd, config.n_embd, bias=config.bias),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return x with what attention and the MLP add."""
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class GPT(nn.Module):
    """Embeddings of tokens and positions, blocks, a norm and a head."""

    def __init__(self, config: GPTConfig, attention: Callable[[GPTConfig], nn.Module]) -> None:
        super().__init__()
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.block_size, config.n_embd)
        self.blocks = nn.Sequential(*(Block(config, attention) for _ in range(config.n_layer)))
        self.ln_f = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits of the next byte, `(B, T, 256)`."""
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        return self.lm_head(self.ln_f(self.blocks(self.wte(tokens) + self.wpe(positions))))


# --- Build: the emitted file is imported as any module of one's own ------------------------------------------------
config = GPTConfig()
folder = Path(tempfile.mkdtemp())
write_variants(folder, width=config.n_embd, heads=config.n_head, context=config.block_size)  # what mlbtc generate calls
found = importlib.util.spec_from_file_location("mlr_2_levels", folder / "mlr_2_levels.py")
file = importlib.util.module_from_spec(found)
found.loader.exec_module(file)
attentions = {
    "standard": nanogpt.CausalSelfAttention,
    # `file.Mlr2Levels(bias=config.bias)` is the same without the checks, and needs no mlbtc.
    "generated": partial(nanogpt.generated, file.Mlr2Levels),
    "own class": partial(nanogpt.CausalSelfAttention, ranks=(8, 8)),
}

# --- Run ----------------------------------------------------------------------------------------------------------
text = torch.frombuffer(bytearray(Path(__file__).read_bytes()), dtype=torch.uint8).long()
for name, attention in attentions.items():
    torch.manual_seed(0)
    model = GPT(config, attention)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses = []
    for _ in range(options.steps):
        starts = torch.randint(len(text) - config.block_size - 1, (8,)).tolist()
        batch = torch.stack([text[start : start + config.block_size + 1] for start in starts])
        loss = F.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    count = sum(parameter.numel() for parameter in model.parameters())
    print(
        f"{name:>10}  {count:,} parameters  loss {losses[0]:.3f} at first, {losses[-1]:.3f} after {options.steps} steps"
    )
