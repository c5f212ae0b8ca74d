"""A language model of characters: what do windows and levels of attention cost in loss, at the same width and steps?

Run `python examples/language_model.py --data book.txt`; without --data the text is Python's own standard library, and
`--steps 20` shows the same in seconds.
"""

import argparse
from pathlib import Path

from mlbtc import AttentionSpec
from mlbtc.training.tasks.language_model import Config, run
from mlbtc.training.tasks.sampling import Sampler

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", action="append", default=[], help="a text file or a folder of them; may be repeated")
parser.add_argument("--steps", type=int, default=400)
parser.add_argument("--out", type=Path, default=Path("runs/example-lm"))
options = parser.parse_args()

# --- Setup: windows of 128 characters -----------------------------------------------------------------------------
sizes = {"width": 64, "heads": 4, "context": 128}
full = AttentionSpec.standard(**sizes, qk_norm=True)
near = AttentionSpec.sliding_window(**sizes, window=16)

# --- Build: attention specs for both layers, or one for each ------------------------------------------------------
layers = {
    "standard": (full, full),
    # All pairs of tokens share 8 features, those in one half of the window 4 more, in one quarter another 4.
    "mlr": (AttentionSpec.mlr(**sizes, ranks=(8, 4, 4), qk_norm=True),) * 2,
    "window": (near, near),
    "global+window": (full, near),
}

# --- Run: the same text, seed and steps for all -------------------------------------------------------------------
for name, specs in layers.items():
    result = run(Config(attention=specs, data=tuple(options.data), steps=options.steps, out=options.out / name))
    print(f"{name:>15}  validation loss {result.metrics['validation_loss']:.4f} nats")

sampler = Sampler(options.out / "mlr")
print("def " + "".join(sampler.text("def ", 100, temperature=0.5, seed=1)))
print(f"reports and figures are in {options.out}")
