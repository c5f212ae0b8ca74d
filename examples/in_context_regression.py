"""In-context regression: does attention with less score compute still learn to fit a line inside one forward pass?

Run `python examples/in_context_regression.py --steps 2000`; `--steps 20` shows the same in seconds.
"""

import argparse
from pathlib import Path

from mlbtc import AttentionSpec
from mlbtc.training.tasks.in_context_regression import Config, run

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--steps", type=int, default=2000)
parser.add_argument("--out", type=Path, default=Path("runs/example-icl"))
options = parser.parse_args()

# --- Setup: prompts of 16 points in 8 dimensions; point and target in turn make 32 tokens --------------------------
dims, points = 8, 16
sizes = {"width": 32, "heads": 4, "context": 2 * points, "qk_norm": True}

# --- Build: two attention specs of the same head dimension --------------------------------------------------------
specs = {
    "standard": AttentionSpec.standard(**sizes),
    # All pairs of tokens share 4 features, those in one half of the prompt 2 more, in one quarter another 2.
    "mlr": AttentionSpec.mlr(ranks=(4, 2, 2), **sizes),
}

# --- Run: the same data, seed and steps for both ------------------------------------------------------------------
errors = {}
for name, spec in specs.items():
    config = Config(attention=spec, dims=dims, points=points, steps=options.steps, out=options.out / name)
    result = run(config)
    errors |= {name: result.metrics["errors"]["model"]}
    rivals = {key: value for key, value in result.metrics["errors"].items() if key != "model"}

for name, error in (errors | rivals).items():
    print(f"{name:>15}  error at the last point {error['last']:.4f}, mean over points {error['mean']:.4f}")
print(f"reports and figures are in {options.out}")
