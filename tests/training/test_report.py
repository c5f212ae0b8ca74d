import io

from rich.console import Console
from torch import nn

from mlbtc.training.report import Table, finish
from mlbtc.training.runs import open_run
from mlbtc.training.tasks.in_context_regression import Config

TABLE = Table("errors", ("predictor", "last"), (("model", "0.123456789"), ("zero", "1.0")))


def test_markdown():
    assert TABLE.to_markdown() == "| predictor | last |\n| --- | ---: |\n| model | 0.123456789 |\n| zero | 1.0 |"


def test_report_and_terminal_say_the_same(tmp_path):
    config = Config(out=tmp_path / "run", attention="mlr", layers=2).resolved()
    folder = open_run(config, {}, resume=False, console=Console(file=io.StringIO()))
    notes = ("the series is [synthetic]",)
    result = finish(
        config,
        folder,
        model=nn.Linear(3, 2),
        metrics={"mse": 0.5},
        table=TABLE,
        notes=notes,
        steps=7,
        draw=lambda: None,
    )
    report = result.report.read_text()
    assert TABLE.to_markdown() in report
    assert notes[0] in report
    assert "2 x attention: mlr attention, width 32, 4 heads, ranks 6|2" in report
    # 4 heads x (6 features for all 32 x 32 pairs, 2 for the half of them that share a block)
    assert f"scores {4 * (6 * 32 * 32 + 2 * 32 * 32 // 2):,} MACs" in report
    assert result.metrics == {"steps": 7, "parameters": 8, "mse": 0.5}
    file = io.StringIO()
    result.show(Console(file=file, width=12))
    for text in ("predictor", "0.123456789", "zero", notes[0], str(folder.report), "matplotlib is not installed"):
        assert text in file.getvalue()
