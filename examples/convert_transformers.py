"""A trained GPT-2 of Transformers, converted: what do levels of attention lose, and what does more training bring back?

A small GPT-2 learns bytes of Python's own standard library. Then its attention gets levels, with features in the order
that weights say and in the order in which they are, and its linear layers become structured ones. Run
`python examples/convert_transformers.py` (minutes on a CPU); `--steps 4` shows the same in seconds.
"""

import argparse
import copy
import math
from pathlib import Path

import torch
import transformers

import mlbtc
from mlbtc import AttentionSpec
from mlbtc.conversion import Budget, input_covariances
from mlbtc.integrations.transformers import convert_attention

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--steps", type=int, default=400, help="of training; a quarter as many follow each conversion")
parser.add_argument("--macs", type=float, default=0.5, help="the fraction of the MACs of linear layers that is left")
options = parser.parse_args()

# --- Setup: text, and a model ---------------------------------------------------------------------------------------
WIDTH, HEADS, CONTEXT, BATCH = 128, 4, 128, 16
files = sorted(Path(argparse.__file__).parent.glob("*.py"))
text = torch.frombuffer(bytearray(b"".join(path.read_bytes() for path in files)), dtype=torch.uint8).long()
text, held_out = text[: len(text) * 9 // 10], text[len(text) * 9 // 10 :]
torch.manual_seed(0)
config = transformers.GPT2Config(
    vocab_size=256, n_positions=CONTEXT, n_embd=WIDTH, n_layer=2, n_head=HEADS, bos_token_id=None, eos_token_id=None,
    resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
)  # fmt: skip
dense = transformers.GPT2LMHeadModel(config)


def train(model: torch.nn.Module, steps: int, lr: float) -> None:
    """Train on random windows, at a rate that falls to 0."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    model.train()
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = lr * (1 + math.cos(math.pi * step / steps)) / 2
        batch = torch.stack([text[start : start + CONTEXT] for start in torch.randint(len(text) - CONTEXT, (BATCH,))])
        loss = model(batch, labels=batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@torch.no_grad()
def loss(model: torch.nn.Module) -> float:
    """Return the mean loss in nats per byte of text that training never saw."""
    windows = held_out[: 64 * CONTEXT].view(-1, BATCH, CONTEXT)
    model.eval()
    return sum(model(batch, labels=batch).loss.item() for batch in windows) / len(windows)


def recovered(model: torch.nn.Module) -> float:
    """Return the loss after a little more training."""
    torch.manual_seed(1)
    train(model, max(1, options.steps // 4), 5e-4)
    return loss(model)


train(dense, options.steps, 2e-3)
more = copy.deepcopy(dense)
print(f"{'dense':>22}  loss {loss(dense):.4f}, {recovered(more):.4f} after as much training as the others get")

# --- Attention: levels --------------------------------------------------------------------------------------------
for ranks in ((24, 8), (16, 16), (8, 8, 8, 8)):
    blocks = tuple(CONTEXT // 4**level for level in range(len(ranks)))
    spec = AttentionSpec.mlr(width=WIDTH, heads=HEADS, ranks=ranks, context=CONTEXT, block_sizes=blocks)
    for order in ("given", "weights"):
        model = copy.deepcopy(dense)
        convert_attention(model, spec, order=order)
        name = f"{'|'.join(map(str, ranks))}, {order}"
        print(f"{name:>22}  loss {loss(model):.4f}, {recovered(model):.4f} after training")

# --- Linear layers: structured matrices ---------------------------------------------------------------------------
batches = [text[start : start + CONTEXT][None] for start in torch.randint(len(text) - CONTEXT, (64,))]
for family in ("low_rank", "btt"):
    model = copy.deepcopy(dense)
    covariances = input_covariances(model, batches)
    done = mlbtc.convert(model, {"*.h.*": Budget(options.macs, family)}, covariances=covariances, max_iterations=10)
    name = f"{family}, {done.macs[1] / done.macs[0]:.2f} of MACs"
    print(f"{name:>22}  loss {loss(model):.4f}, {recovered(model):.4f} after training")
