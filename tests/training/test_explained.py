"""`mlbtc explain`: the model of a run on its own validation data, a page about it, and what is refused."""

import json
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from mlbtc.attention import explanation
from mlbtc.spec import AttentionSpec, families
from mlbtc.training import TrainingError
from mlbtc.training import explained as module
from mlbtc.training.checkpoints import load_weights, save_checkpoint, save_weights
from mlbtc.training.explained import ExplainedRun, explain_run
from mlbtc.training.explained_charts import LEFT, RIGHT, _axis, loss_chart, score_chart
from mlbtc.training.explained_page import render_page, write_run_page
from mlbtc.training.runs import RunFolder, open_run
from mlbtc.training.seeds import stream
from mlbtc.training.tasks import forecasting, in_context_regression, language_model
from tests.cli.command import Command

QUIET = Console(quiet=True)
MIXED = AttentionSpec.mixed(
    16, 4, 16,
    [AttentionSpec.mlr(8, 2, (2, 1, 1), 16, (16, 8, 4)), AttentionSpec.global_sliding_window(8, 2, 16, 5)],
)  # fmt: skip
CAUSAL = (
    AttentionSpec.mlr(16, 4, (2, 2), 16, None, True, True),
    MIXED,
    AttentionSpec.bilinear(16, 4, 16, families.btt((16, 16), 1)),
)
EITHER = (AttentionSpec.mlr(8, 2, (3, 1), 96, None, False), AttentionSpec.standard(8, 2, 96, False))


@pytest.fixture
def mlbtc(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    return Command(capsys, monkeypatch)


def make_run(task: ModuleType, out: Path, **options: Any) -> Path:
    """Make the folder of a run that is finished, but for the training; the weights differ from the first ones."""
    config = task.Config.make(out=out, **options).resolved()
    problem, inputs = task.load_problem(config, QUIET)
    folder = open_run(config, inputs, resume=False, console=QUIET)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in problem.model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    save_weights(problem.model, folder.model)
    rows = [{"step": step, "loss": 4 / step, "lr": 0.1, "seconds": step} for step in range(1, 31)]
    rows[19]["validation_loss"] = rows[19]["mean_error"] = rows[19]["validation_mse"] = 0.5
    folder.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return out


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    place = tmp_path_factory.mktemp("explained")
    book = place / "book.txt"
    book.write_text("the quick brown fox jumps over the lazy dog.\n" * 60)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLBTC_CACHE", str(place / "cache"))
        # The kernels have tests of their own.
        patch.setenv("CXX", "/dev/null")
        yield {
            "lm": make_run(language_model, place / "lm", data=(str(book),), attention=CAUSAL),
            "icl": make_run(in_context_regression, place / "icl", dims=2, points=5, attention="mlr", width=8, layers=2),
            "forecast": make_run(forecasting, place / "forecast", data="synthetic", attention=EITHER),
        }


@pytest.fixture(scope="module")
def found(runs: dict[str, Path]) -> dict[str, ExplainedRun]:
    return {task: explain_run(folder, rows=3) for task, folder in runs.items()}


LAYERS = {
    "lm": ["blocks.0.attention", "blocks.1.attention", "blocks.2.attention"],
    "icl": ["blocks.0.attention", "blocks.1.attention"],
    "forecast": ["encoder.blocks.0.attention", "encoder.blocks.1.attention"],
}
SIZES = {"lm": (3, 16), "icl": (3, 10), "forecast": (3 * 7, 96)}


@pytest.mark.parametrize("task", LAYERS)
def test_every_layer_is_explained(task: str, found: dict[str, ExplainedRun]) -> None:
    run = found[task]
    assert [layer.name for layer in run.layers] == LAYERS[task]
    assert run.step is None
    for layer, spec in zip(run.layers, run.config.specs, strict=True):
        assert layer.explanation.spec == spec
        assert (layer.explanation.sequences, layer.explanation.tokens) == SIZES[task]
        for head in layer.explanation.heads:
            assert sum(level.share for level in head.levels) == pytest.approx(1)
    assert len(run.metrics) == 30


@pytest.mark.parametrize("task", LAYERS)
def test_the_layers_see_what_the_model_gives_them(
    task: str, runs: dict[str, Path], found: dict[str, ExplainedRun]
) -> None:
    tasks = module.TASKS[task]
    problem, _ = tasks.load_problem(tasks.resume_config(runs[task]), QUIET)
    folder = RunFolder(runs[task])
    assert load_weights(folder.model, folder.checkpoints, problem.model) is None
    seen: dict[str, torch.Tensor] = {}
    for name in LAYERS[task]:
        layer = problem.model.get_submodule(name)
        layer.register_forward_pre_hook(lambda _, arguments, name=name: seen.update({name: arguments[0]}))
    with torch.no_grad():
        loss = problem.validation_loss(3, stream(0, "explanation"))
    assert found[task].loss == pytest.approx(float(loss))
    for layer in found[task].layers:
        assert layer.explanation == problem.model.get_submodule(layer.name).explain(seen[layer.name])


def test_equal_seeds_draw_equal_data_and_the_folder_stays_as_it_is(runs: dict[str, Path]) -> None:
    def content() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in runs["lm"].rglob("*") if path.is_file()}

    before, state = content(), torch.get_rng_state()
    first, again, other = (explain_run(runs["lm"], rows=2, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first.loss != other.loss
    assert first.layers != other.layers
    assert content() == before
    assert torch.equal(torch.get_rng_state(), state)


def test_a_run_that_is_not_finished_gives_its_newest_checkpoint(
    runs: dict[str, Path], found: dict[str, ExplainedRun], tmp_path: Path
) -> None:
    shutil.copytree(runs["lm"], tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    problem, _ = language_model.load_problem(language_model.resume_config(folder.root), QUIET)
    load_weights(folder.model, folder.checkpoints, problem.model)
    save_checkpoint(folder.checkpoints, 12, problem.model, problem.state())
    folder.model.unlink()
    run = explain_run(folder.root, rows=3)
    assert run.step == 12
    assert run.layers == found["lm"].layers
    assert "weights of the checkpoint of step 12" in render_page(run)


def test_as_many_sequences_as_there_is_memory_for(runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    for place in (module, explanation):
        monkeypatch.setattr(place, "MOST_PAIRS", 5 * 96**2)
    run = explain_run(runs["forecast"], rows=3)
    assert [layer.explanation.sequences for layer in run.layers] == [5, 5]
    for place in (module, explanation):
        monkeypatch.setattr(place, "MOST_PAIRS", 96**2 - 1)
    with pytest.raises(TrainingError, match=r"^encoder.blocks.0.attention: explain holds all pairs"):
        explain_run(runs["forecast"], rows=3)


# What is refused


def changed(folder: Path, out: Path, **changes: Any) -> Path:
    """Return a copy of a run folder with some of its config changed."""
    shutil.copytree(folder, out)
    stored = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps({**stored, **changes}))
    return out


def test_folders_that_are_no_run(runs: dict[str, Path], tmp_path: Path) -> None:
    for place in (tmp_path / "nowhere", tmp_path, runs["lm"] / "config.json"):
        with pytest.raises(TrainingError, match=r"not a run folder: it has no config\.json"):
            explain_run(place)
    with pytest.raises(TrainingError, match=r"a run of the task 'lmm'.*did you mean 'lm'"):
        explain_run(changed(runs["lm"], tmp_path / "task", task="lmm"))
    with pytest.raises(TrainingError, match="task 'None'"):
        explain_run(changed(runs["lm"], tmp_path / "config", config=3))
    with pytest.raises(TrainingError, match="--width"):
        explain_run(changed(runs["icl"], tmp_path / "width", config={"width": "wide"}))
    (tmp_path / "task" / "config.json").write_text("[1]")
    with pytest.raises(TrainingError, match="not the config of a run"):
        explain_run(tmp_path / "task")


def test_runs_whose_data_or_weights_are_others(runs: dict[str, Path], tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text("something else entirely, and long enough for windows of sixteen tokens. " * 10)
    with pytest.raises(TrainingError, match="began with other data: sha256 was"):
        explain_run(runs["lm"], data=[str(other)])
    with pytest.raises(TrainingError, match="no such file or folder"):
        explain_run(runs["lm"], data=[str(tmp_path / "lost.txt")])
    shutil.copy(runs["lm"].parent / "book.txt", tmp_path / "moved.txt")
    assert explain_run(runs["lm"], data=[str(tmp_path / "moved.txt")]).layers
    with pytest.raises(TrainingError, match=r"lost\.csv: there is no such file"):
        explain_run(runs["forecast"], data=[str(tmp_path / "lost.csv")])
    with pytest.raises(TrainingError, match="in one file, found 2"):
        explain_run(runs["forecast"], data=["a.csv", "b.csv"])
    with pytest.raises(TrainingError, match="draws its prompts"):
        explain_run(runs["icl"], data=["a.csv"])
    copy = Path(shutil.copytree(runs["icl"], tmp_path / "icl"))
    (copy / "model.safetensors").unlink()
    with pytest.raises(TrainingError, match="no checkpoint"):
        explain_run(copy)
    shutil.copy(runs["lm"] / "model.safetensors", copy)
    with pytest.raises(TrainingError, match="not the weights of this run"):
        explain_run(copy)


def test_models_without_attention_and_runs_that_diverged(runs: dict[str, Path], tmp_path: Path) -> None:
    linear = make_run(forecasting, tmp_path / "linear", data="synthetic", model="dlinear")
    with pytest.raises(TrainingError, match="no attention to explain"):
        explain_run(linear)
    copy = Path(shutil.copytree(runs["icl"], tmp_path / "icl"))
    problem, _ = in_context_regression.load_problem(in_context_regression.resume_config(copy), QUIET)
    with torch.no_grad():
        problem.model.read_out.weight.fill_(torch.nan)
    save_weights(problem.model, copy / "model.safetensors")
    with pytest.raises(TrainingError, match="loss of the validation data is nan"):
        explain_run(copy)


@pytest.mark.parametrize(("option", "value"), [("rows", 0), ("rows", 5000), ("seed", -1)])
def test_numbers_out_of_range(option: str, value: int, runs: dict[str, Path]) -> None:
    with pytest.raises(TrainingError, match=rf"--{option} takes .* found {value}"):
        explain_run(runs["icl"], **{option: value})


# The page


class Reader(HTMLParser):
    """Checks that elements close in order, and collects what a page has."""

    VOID = ("meta", "link", "br", "img", "input")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.mark.parametrize("task", LAYERS)
def test_the_page_is_whole_and_needs_nothing_else(task: str, found: dict[str, ExplainedRun]) -> None:
    page = render_page(found[task])
    reader = Reader(page)
    assert not reader.all("script") + reader.all("link") + reader.all("img")
    assert not any(word in page for word in ("http://", "https://", "url(", "@import", "nan%"))
    assert any("default-src 'none'" in str(one.get("content")) for one in reader.all("meta"))
    assert reader.all("html") == [{"lang": "en"}]
    assert len(page) < 400_000
    ids = [attributes["id"] for _, attributes in reader.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for attributes in (attributes for _, attributes in reader.elements):
        for key in ("aria-labelledby", "href"):
            if attributes.get(key) is not None:
                assert str(attributes[key]).removeprefix("#") in ids
    # Each picture has a name, each table a caption, each heading of a column or row says so.
    assert all(svg["role"] == "img" and svg["aria-labelledby"] for svg in reader.all("svg"))
    assert len(reader.all("caption")) == len(reader.all("table"))
    assert all(cell.get("scope") in ("col", "row") for cell in reader.all("th"))
    for number, layer in enumerate(found[task].layers, 1):
        assert f"Layer {number}: {layer.name}" in reader.texts
        for head in layer.explanation.heads:
            assert f"{head.levels[0].share:.1%}" in reader.texts
            assert f"{head.entropy:.2f}" in reader.texts
    assert len(reader.all("polyline")) == 2
    assert any("0.5 to 0.5" in text for text in reader.texts)


def test_mixed_layers_have_a_table_for_each_group(found: dict[str, ExplainedRun]) -> None:
    texts = Reader(render_page(found["lm"])).texts
    assert texts.count("blocks of 4, rank 1") == 1
    assert texts.count("last 5 tokens, rank 2") == 1
    assert texts.count("mean") == 4
    assert "key cache (elements)" in texts


def test_names_from_strangers_are_text(runs: dict[str, Path], tmp_path: Path) -> None:
    name = "<b onclick='x'>&amp;"
    shutil.copytree(runs["icl"], tmp_path / name)
    page = render_page(explain_run(tmp_path / name))
    assert "<b " not in page
    assert f"What the levels of {name} see" in Reader(page).texts


def test_a_run_without_metrics_or_with_odd_ones(runs: dict[str, Path], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(runs["icl"], tmp_path / "run"))
    (copy / "metrics.jsonl").unlink()
    assert "The run has no metrics." in render_page(explain_run(copy))
    (copy / "metrics.jsonl").write_text('[1]\n{"step": 1}\n{"step": 2, "loss": NaN}\n{"step": "3", "loss": 1}\n3\n')
    assert "The run has no metrics." in render_page(explain_run(copy))
    (copy / "metrics.jsonl").write_text('{"step": 2, "loss": 0.25}\n')
    assert "Loss from step 2 to 2: training 0.25 to 0.25." in render_page(explain_run(copy))
    (copy / "metrics.jsonl").write_bytes(b"\xff\xfe\n")
    with pytest.raises(TrainingError, match=r"metrics\.jsonl: not the metrics of a run"):
        explain_run(copy)


def test_long_runs_become_few_points() -> None:
    rows = [{"step": step, "loss": float(step % 2)} for step in range(1, 10_001)]
    chart = loss_chart(rows, "validation_loss")
    assert chart is not None
    (curve,) = chart.curves
    points = curve.points
    assert not curve.dotted
    assert 100 < len(points) <= 240
    assert points[-1][0] == pytest.approx(RIGHT)
    assert all(LEFT <= x <= RIGHT for x, _ in points)


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_axes_have_ticks_at_round_numbers_inside(low: float, span: float) -> None:
    place, ticks = _axis(low, low + span, 100, 500)
    assert 1 <= len(ticks) <= 12
    assert all(99 <= tick.place <= 501 for tick in ticks)
    assert 100 <= place(low) <= place(low + span) <= 500.0001
    assert [tick.place for tick in ticks] == sorted(tick.place for tick in ticks)


def test_scores_are_drawn_where_they_are(found: dict[str, ExplainedRun]) -> None:
    explained = found["lm"].layers[1].explanation
    names = [level.name for head in explained.heads for level in head.levels]
    chart = score_chart(explained, {name: number for number, name in enumerate(dict.fromkeys(names))})
    assert len(chart.spreads) == len(names)
    assert [tick.text for tick in chart.heads] == ["0", "1", "2", "3"]
    for spread in chart.spreads:
        assert list(spread.ends) == sorted(spread.ends)
        assert all(LEFT - 0.01 <= x <= RIGHT + 0.01 for x in (*spread.ends, spread.mean))
    assert min(x for spread in chart.spreads for x in (*spread.ends, spread.mean)) == pytest.approx(LEFT)


# The command


def test_the_command(runs: dict[str, Path], tmp_path: Path, mlbtc: Command) -> None:
    run = Path(shutil.copytree(runs["lm"], tmp_path / "run"))
    done = mlbtc("explain", run, "--rows", "2")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"wrote {run / 'explained.html'}: 3 layers, loss ")
    page = (run / "explained.html").read_text("utf-8")
    assert "2 windows of validation data, drawn with seed 0" in page
    done = mlbtc("explain", run, "--rows", "2", "-o", tmp_path / "other.HTML")
    assert done.code == 0
    assert (tmp_path / "other.HTML").read_text("utf-8") == page


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-o", "page.pdf"], "ends in .html; found 'page.pdf'"),
        (["-o", "nowhere/page.html"], "there is no folder nowhere"),
        (["-o", "."], "ends in .html"),
        (["--rows", "0"], "--rows takes 1 to"),
        (["--device", "abacus"], "abacus"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_options_are_one_message(
    arguments: list[str],
    words: str,
    runs: dict[str, Path],
    mlbtc: Command,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    done = mlbtc("explain", runs["icl"], *arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("mlbtc: ")
    assert words in done.err
    assert not list(tmp_path.iterdir())


def test_no_run_is_one_message(mlbtc: Command, tmp_path: Path) -> None:
    done = mlbtc("explain", tmp_path / "lost")
    assert (done.code, done.out) == (2, "")
    assert "not a run folder" in done.err


def test_a_page_that_cannot_be_written(found: dict[str, ExplainedRun], tmp_path: Path) -> None:
    (tmp_path / "page.html").mkdir()
    with pytest.raises(TrainingError, match="it is a folder"):
        write_run_page(found["icl"], tmp_path / "page.html")
