import io
from dataclasses import replace

from rich.console import Console

from mlbtc.training.metrics import read_metrics
from mlbtc.training.reproduce import Plan, plan, reproduce
from mlbtc.training.reproduce.grid import Setting


def test_windows_are_where_the_paper_has_them(tmp_path):
    cells = plan("lm", Plan("paper", seeds=1)).cells(tmp_path)
    (cell,) = [cell for cell in cells if (cell.setting, cell.variant) == ("width384", "global+window")]
    layers = cell.config.resolved().specs
    assert [layer.variant for layer in layers] == ["standard", *["sliding_window"] * 2] * 2
    assert {layer.window for layer in layers} == {None, 128}
    assert {layer.heads for layer in layers} == {6}


def test_the_small_grid_has_the_papers_context_and_two_widths(tmp_path):
    configs = [cell.config.resolved() for cell in plan("lm", Plan(seeds=1)).cells(tmp_path)]
    assert {(one.context, one.specs[0].width) for one in configs} == {(1024, 64), (1024, 128)}
    assert {spec.window for one in configs for spec in one.specs} == {None, 128}


def test_a_shrunk_grid(tmp_path):
    (tmp_path / "text.txt").write_text("to be, or not to be: that is the question\n" * 200)
    experiment = plan("lm", Plan(steps=2, seeds=1, data=str(tmp_path / "text.txt"), device="cpu"))
    small = (("batch", 1), ("context", 512), ("eval_windows", 1), ("layers", 1))
    experiment = replace(
        experiment, options=(*experiment.options, *small), settings=(Setting("narrow", (("width", 64),)),)
    )
    report = reproduce(experiment, tmp_path / "grid", command="x", console=Console(file=io.StringIO()))
    lines = (tmp_path / "grid" / "runs.csv").read_text().splitlines()
    found = [dict(zip(lines[0].split(","), line.split(","), strict=True)) for line in lines[1:]]
    assert [row["variant"] for row in found] == ["standard", "window", "global+window", "mlr"]
    for row in found:
        folder = tmp_path / "grid" / "runs" / "narrow" / row["variant"] / "seed-0"
        last = read_metrics(folder / "metrics.jsonl")[-1]
        assert float(row["validation loss (nats per character)"]) == last["validation_loss"]
    # Scores of a window cost an eighth, those of 8 levels 32/64 + 8/64/2 + 6/64/4 + ... of those of all pairs; the
    # values of a window an eighth, too. In each of 3 passes of 2 steps of one sequence of 512 tokens.
    pairs = 3 * 2 * 512 * 512 * 64
    macs = {row["variant"]: int(row["macs"]) for row in found}
    levels = sum(rank / 64 / 2**level for level, rank in enumerate((32, 8, 6, 4, 4, 4, 4, 2)))
    assert macs["standard"] - macs["window"] == pairs * 2 * 7 // 8
    assert macs["standard"] - macs["mlr"] == round(pairs * (1 - levels))
    assert "sha256" in report.read_text()
