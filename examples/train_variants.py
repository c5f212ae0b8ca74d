"""Train a model of your own with every attention variant of an index: a plain PyTorch script around `mlbtc.load`.

    mlbtc generate --width 64 --heads 4 --context 64 --equal compute -o variants/
    python examples/train_variants.py variants/index.yaml --variants standard,mlr-2-levels

Without an index it writes one for itself; `--steps 2` shows the same in seconds. The model predicts the next byte of
this very script, which it learns by heart: what counts here is how little a variant asks of the script around it.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import mlbtc
from mlbtc.attention import write_variants

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("index", nargs="?", type=Path, help="index.yaml of `mlbtc generate`")
parser.add_argument(
    "--variants", default="standard,mlr-2-levels,bilinear-btt-1,sliding-window", help="names of the index"
)
parser.add_argument("--steps", type=int, default=100)
parser.add_argument("--lr", type=float, default=2e-3, help="Adam's rate at the width of the first variant")
options = parser.parse_args()

# --- Setup: variants of equal training compute, and the text ------------------------------------------------------
index, layers, batch = options.index, 2, 8
if index is None:
    index = Path(tempfile.mkdtemp()) / "index.yaml"
    write_variants(index.parent, width=64, heads=4, context=64, equal="compute")
specs = {name: mlbtc.load(f"{index}:{name}") for name in options.variants.split(",")}
text = torch.frombuffer(bytearray(Path(__file__).read_bytes()), dtype=torch.uint8).long()


def draw(context: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return windows (batch, context) of the text and the bytes that follow each of theirs."""
    starts = torch.randint(len(text) - context, (batch, 1), generator=generator)
    windows = text[starts + torch.arange(context + 1)]
    return windows[:, :-1], windows[:, 1:]


# --- Build: a transformer that asks of its attention only to be a module ------------------------------------------
class Block(nn.Module):
    """Attention and an MLP, each behind a norm and beside a skip."""

    def __init__(self, spec: mlbtc.AttentionSpec) -> None:
        super().__init__()
        width = spec.width
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.attention = mlbtc.compile(spec)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:  # (B, T, D) to the same
        """Return the tokens behind the block."""
        x = x + self.attention(self.norms[0](x))
        return x + self.mlp(self.norms[1](x))


class Model(nn.Module):
    """Embeddings of bytes and positions, blocks, and logits of the next byte."""

    # What muP has to know: these sums are no longer where the model is wider.
    width_free = ("position",)

    def __init__(self, spec: mlbtc.AttentionSpec) -> None:
        super().__init__()
        self.embed = nn.Embedding(256, spec.width)
        self.position = nn.Parameter(0.02 * torch.randn(spec.context, spec.width))
        self.blocks = nn.Sequential(*(Block(spec) for _ in range(layers)))
        self.logits = nn.Sequential(nn.LayerNorm(spec.width), nn.Linear(spec.width, 256))

    def forward(self, tokens: Tensor) -> Tensor:  # (B, T) to (B, T, 256)
        """Return the logits of the bytes behind each token."""
        return self.logits(self.blocks(self.embed(tokens) + self.position))


# --- Run: the same windows for all, and rates that carry over between widths --------------------------------------
base_width = next(iter(specs.values())).width
for name, spec in specs.items():
    torch.manual_seed(0)
    model, generator = Model(spec), torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(mlbtc.mup.parameter_groups(model, lr=options.lr, base_width=base_width))
    began = time.perf_counter()
    for _ in range(options.steps):
        tokens, target = draw(spec.context, generator)
        loss = cross_entropy(model(tokens).transpose(1, 2), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    seconds = time.perf_counter() - began
    macs = mlbtc.analyze(spec, batch=spec.context).macs
    print(f"{name:>16}  width {spec.width:>3}  loss {loss.item():.3f} nats after {options.steps} steps, "
          f"{seconds:.1f} s; attention {int(macs) / spec.context:,.0f} MACs per token")  # fmt: skip
