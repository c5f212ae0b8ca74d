"""Forecasting ETTh1: standard and MLR attention against repeating the last hour and the last day.

Run `python examples/forecast_etth1.py --data ETTh1.csv`. Without --data, MLBTC_ETTH1 or MLBTC_DATA it forecasts a
synthetic series; `--steps 2` shows the same in seconds.
"""

import argparse
from pathlib import Path

from mlbtc import AttentionSpec
from mlbtc.training.tasks.forecasting import Config, run

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", help="ETTh1.csv, or a folder that holds it")
parser.add_argument("--steps", type=int, default=200)
parser.add_argument("--out", type=Path, default=Path("runs/example-forecast"))
options = parser.parse_args()

# --- Setup: four days in, four days out ---------------------------------------------------------------------------
hours = 96
sizes = {"width": 32, "heads": 4, "context": hours, "causal": False}

# --- Build: MLR attention whose blocks are days -------------------------------------------------------------------
specs = {
    "standard": AttentionSpec.standard(**sizes),
    # All pairs of hours share 6 features; those of one day 2 more. Any block sizes that divide each other will do.
    "mlr-days": AttentionSpec.mlr(ranks=(6, 2), block_sizes=(hours, 24), **sizes),
}

# --- Run ----------------------------------------------------------------------------------------------------------
results = {
    name: run(Config(data=options.data, attention=spec, horizon=hours, steps=options.steps, out=options.out / name))
    for name, spec in specs.items()
}

rivals = {name: values for name, values in results["standard"].metrics["test"].items() if name != "model"}
models = {name: result.metrics["test"]["model"] for name, result in results.items()}
for name, errors in (models | rivals).items():
    print(f"{name:>20}  MSE {errors['mse']:.3f}  MAE {errors['mae']:.3f}")
for note in results["standard"].notes:
    print(f"note: {note}")
print(f"reports and figures are in {options.out}")
