"""What mlbtc does, in three minutes and offline: analyse, compile, check, generate attention, train.

Run `make demo`, or `python examples/demo.py`; `--steps 20` shows the same in seconds.
"""

import argparse
import shutil
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

import mlbtc
from mlbtc.training.figures import comparison
from mlbtc.training.tasks.in_context_regression import Config, run

SPECS = Path(__file__).resolve().parent / "specs"
DIMS, POINTS = 8, 16

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--steps", type=int, default=3000, help="training steps of each of the two models")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--out", type=Path, default=Path("runs/demo"))
options = parser.parse_args()
console = Console(width=max(100, Console().width))
report = ["# mlbtc demo"]


def say(text: str) -> None:
    """Print a line as it is."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


# --- Setup: an earlier demo makes way, its report would be stale --------------------------------------------------
torch.manual_seed(options.seed)
for earlier in ("standard", "mlr"):
    if (options.out / earlier / "config.json").is_file():
        shutil.rmtree(options.out / earlier)
options.out.mkdir(parents=True, exist_ok=True)

# --- Analyse: what every example spec costs, in numbers and without a GPU -----------------------------------------
console.rule("1  analyse the example specs")
table = Table("spec", "shape", "parameters", "of dense", "rank", "because", box=None, pad_edge=False)
for path in sorted(SPECS.glob("*.yaml")):
    spec = mlbtc.load(path)
    costs = mlbtc.analyze(spec)
    report.append(costs.to_markdown())
    if isinstance(spec, mlbtc.MLBTC):
        count, dense, rank = costs.parameters.value, dict(costs.dense)["parameters"].value, costs.rank
        share = f"{count / dense:.1%}" if count and dense else ""
        number = str(rank.value or rank.symbolic)
        shape = " x ".join(map(str, spec.bind_defaults().shape))
        table.add_row(path.name, shape, str(count or costs.parameters.symbolic), share, number, costs.reason)
console.print(table)
say("attention layers: scores cost, of standard attention's (one sequence)")
for path in sorted(SPECS.glob("*.yaml")):
    spec = mlbtc.load(path)
    if not isinstance(spec, mlbtc.MLBTC):
        costs = mlbtc.analyze(spec, batch=spec.context)
        share = int(costs.scores) / (spec.context**2 * spec.width)
        say(f"  {path.name:<24} {share:7.1%}   key cache {int(costs.key_cache) / (spec.context * spec.width):7.1%}")

# --- Compile: source, and the proof that it computes the matrix ---------------------------------------------------
console.rule("2  compile one and check it against its dense matrix")
layer = mlbtc.compile(mlbtc.load(SPECS / "local_and_global.yaml"), dtype=torch.float64)
x = torch.randn(64, layer.in_features, dtype=torch.float64)
error = (layer(x) - x @ layer.to_dense().T).abs().max().item()
(options.out / "layer.py").write_text(layer.source)
say(f"{len(layer.source.splitlines())} lines of PyTorch in {options.out / 'layer.py'}, needs torch only")
say(f"largest difference to the dense product over 64 tokens: {error:.1e} (float64)")
assert error < 1e-12, "the emitted module does not compute its matrix"
report.append(f"## Compiled\n\n`layer.py` differs from the dense product by at most {error:.1e} in float64.")

# --- Generate: an attention layer from YAML -----------------------------------------------------------------------
console.rule("3  generate an attention layer from YAML")
attention = mlbtc.load(SPECS / "mlr_attention.yaml")
module = mlbtc.compile(attention)
(options.out / "attention_layer.py").write_text(module.source)
y = module(torch.randn(2, 300, attention.width))
say(f"{attention}")
say(f"{options.out / 'attention_layer.py'}: (2, 300, {attention.width}) -> {tuple(y.shape)}")

# --- Train: in-context regression with both attentions ------------------------------------------------------------
console.rule("4  train in-context regression, standard and MLR attention")
results = {}
for name, chosen in (("standard", "standard"), ("mlr", str(SPECS / "icl_mlr.yaml"))):
    config = Config(
        attention=chosen, dims=DIMS, points=POINTS, steps=options.steps, seed=options.seed, out=options.out / name
    )
    results[name] = run(config, console=console)
errors = {name: result.metrics["errors_by_position"]["model"] for name, result in results.items()}
rivals = results["standard"].metrics["errors_by_position"]
errors |= {name: values for name, values in rivals.items() if name != "model"}
lines = ["| predictor | last point | mean over points |", "| --- | ---: | ---: |"]
lines += [f"| {name} | {values[-1]:.4f} | {sum(values) / len(values):.4f} |" for name, values in errors.items()]
title = f"Mean squared error in context, d = {DIMS}, {options.steps} steps, seed {options.seed}, fresh prompts"
console.rule("done")
say(title)
for name, values in errors.items():
    say(f"  {name:<16} last point {values[-1]:.4f}   mean over points {sum(values) / len(values):.4f}")

# --- Report -------------------------------------------------------------------------------------------------------
figure = comparison(options.out / "figure.png", errors)
report += [f"## In-context regression\n\n{title}:", "\n".join(lines)]
report += ["![errors by position](figure.png)"] if figure else []
(options.out / "report.md").write_text("\n\n".join(report) + "\n")
say(f"report {options.out / 'report.md'}  figure {figure or '(none: matplotlib is not installed)'}")
