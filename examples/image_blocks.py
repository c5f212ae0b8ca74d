"""Attention over image patches whose blocks are squares: quadrants, and neighbourhoods of 2 x 2 patches.

Patches are tokens in reading order, so that blocks of consecutive tokens are strips of rows. Here block_ids make them
squares, computed from row and column. The task asks for both scales: a patch must find, in its neighbourhood, the patch
that carries the most of a marker, and in its quadrant another one, and sum up what the two show.

Run `python examples/image_blocks.py --steps 600`; `--steps 20` shows the same in seconds.
"""

import argparse

import torch
from torch import Tensor, nn

from mlbtc.attention import mlr_attention

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--steps", type=int, default=600)
options = parser.parse_args()

# --- Setup: 8 x 8 patches, and the blocks of each patch by row and column -----------------------------------------
side, width, heads, shown = 8, 48, 4, 4
row, column = torch.arange(side * side) // side, torch.arange(side * side) % side


def squares(size: int) -> Tensor:
    """Number the squares of size x size patches: two patches with the same number share a block."""
    return row // size * side + column // size


# Ranks and blocks of each level. All of them have 12 features per head and patch.
layouts = {
    "standard": {"ranks": [12], "block_sizes": [None]},
    "rows": {"ranks": [4, 4, 4], "block_sizes": [None, 16, 4]},
    "squares": {"ranks": [4, 4, 4], "block_ids": [None, squares(side // 2), squares(2)]},
}


def draw(images: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return patches (images, 64, 2 + shown), two markers and what they show, and the targets (images, 64, shown)."""
    patches = torch.randn(images, side * side, 2 + shown, generator=generator)
    target = 0
    for marker, ids in enumerate((squares(2), squares(side // 2))):
        together = ids[:, None] == ids
        marks = patches[:, None, :, marker].masked_fill(~together, float("-inf"))  # (images, patch, other patch)
        best = marks.argmax(-1)
        target = target + patches[..., 2:].gather(1, best[..., None].expand(-1, -1, shown))
    return patches, target


# --- Build: one layer of attention between linear layers, the same but for its levels -----------------------------
class Model(nn.Module):
    """Patches and learned positions, attention to all patches, an answer per patch."""

    def __init__(self, levels: dict) -> None:
        super().__init__()
        self.levels = levels
        self.patch = nn.Linear(2 + shown, width)
        self.position = nn.Parameter(torch.randn(side * side, width) * 0.1)
        self.project = nn.Linear(width, 3 * width)
        self.answer = nn.Linear(width, shown)

    def forward(self, patches: Tensor) -> Tensor:
        """Return the answers (B, 64, shown) for patches (B, 64, 2 + shown)."""
        x = self.patch(patches) + self.position
        parts = self.project(x).unflatten(-1, (3, heads, width // heads))  # (B, T, 3, H, width / H)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        y = mlr_attention(query, key, value, causal=False, scale=1.0, **self.levels)
        return self.answer(y.transpose(1, 2).flatten(2))


# --- Run: the same data, seed and steps for all -------------------------------------------------------------------
test = draw(256, torch.Generator().manual_seed(1))
for name, levels in layouts.items():
    torch.manual_seed(0)
    model, generator = Model(levels), torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.steps)
    for _ in range(options.steps):
        patches, target = draw(32, generator)
        loss = nn.functional.mse_loss(model(patches), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        error = nn.functional.mse_loss(model(test[0]), test[1]) / test[1].var()
    print(f"{name:>10}  unexplained {error:.3f} of the target's variance after {options.steps} steps")
