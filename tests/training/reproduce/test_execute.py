import io
import json
import shutil
from dataclasses import replace

import pytest
from filelock import FileLock
from rich.console import Console

from mlbtc.training import Interrupted, TrainingError
from mlbtc.training.metrics import read_metrics
from mlbtc.training.reproduce import Plan, plan, reproduce
from mlbtc.training.reproduce.estimate import Estimate, measure, spoken
from mlbtc.training.reproduce.execute import make_schedule
from mlbtc.training.reproduce.execute import report as report_alone
from mlbtc.training.reproduce.grid import Setting
from mlbtc.training.reproduce.publish import publish
from mlbtc.training.tasks import in_context_regression as task

NAMES = ("standard", "bilinear-btt")


def small(steps=3, seeds=1, names=NAMES[:1]):
    experiment = plan("icl", Plan(steps=steps, seeds=seeds, variants=names))
    options = (*experiment.options, ("batch", 4), ("evaluation_prompts", 256), ("layers", 1))
    return replace(experiment, options=options, settings=experiment.settings[:1])


def make(experiment, out):
    return reproduce(experiment, out, command="mlbtc reproduce icl", console=Console(file=io.StringIO()))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("grid")
    return make(small(seeds=2, names=NAMES), out).parent


def test_a_grid_leaves_runs_a_table_figures_and_a_report(whole):
    report, table = (whole / "report.md").read_text(), (whole / "runs.csv").read_text().splitlines()
    assert len(table) == 1 + 2 * 2
    assert "mlbtc reproduce icl" in report
    assert "Seeds 0 to 1, of each" in report
    assert "So far" not in report
    assert str(whole) not in report
    pytest.importorskip("matplotlib")
    assert (whole / "curves-d8-width32.png").read_bytes().startswith(b"\x89PNG")
    assert (whole / "paper.png").is_file()


def test_every_claim_has_a_verdict(whole):
    report = (whole / "report.md").read_text()
    for claim in small().claims:
        assert claim.text in report
    # Three steps teach nothing.
    assert report.count("**not decidable at this scale**") == len(small().claims)


def test_the_table_of_runs_is_what_the_runs_found(whole):
    rows = [line.split(",") for line in (whole / "runs.csv").read_text().splitlines()]
    for row in (dict(zip(rows[0], row, strict=True)) for row in rows[1:]):
        folder = whole / "runs" / row["setting"] / row["variant"] / f"seed-{row['seed']}"
        results = json.loads((folder / "results.json").read_text())
        assert float(row["error at the last point"]) == results["errors"]["model"]["last"]
        assert int(row["steps"]) == results["steps"] == 3
        assert float(row["seconds"]) == read_metrics(folder / "metrics.jsonl")[-1]["seconds"]


def test_what_is_finished_is_kept(whole, monkeypatch):
    monkeypatch.setattr(task, "run", None)
    before = (whole / "report.md").read_text()
    make(small(seeds=2, names=NAMES), whole)
    assert (whole / "report.md").read_text() == before


def losses(folder):
    return [row["loss"] for row in read_metrics(folder / "metrics.jsonl")]


def dies_before_its_results(folder):
    (folder / "results.json").unlink()


def dies_before_its_checkpoint(folder):
    (folder / "results.json").unlink()
    shutil.rmtree(folder / "checkpoints")


def dies_before_its_config(folder):
    dies_before_its_checkpoint(folder)
    (folder / "config.json").unlink()


@pytest.mark.parametrize("die", [dies_before_its_results, dies_before_its_checkpoint, dies_before_its_config])
def test_a_run_that_died_is_made_whole(whole, tmp_path, die):
    shutil.copytree(whole, tmp_path / "grid")
    folder = tmp_path / "grid" / "runs" / "d8-width32" / "standard" / "seed-1"
    before, results = losses(folder), json.loads((folder / "results.json").read_text())
    die(folder)
    make(small(seeds=2, names=NAMES), tmp_path / "grid")
    assert losses(folder) == before
    assert json.loads((folder / "results.json").read_text()) == results
    assert [path.name for path in folder.parent.iterdir() if path.name.startswith("seed-1")] == ["seed-1"]


def test_an_interrupted_grid_reports_what_it_has_and_goes_on(tmp_path, monkeypatch):
    run, runs = task.run, []

    def interrupted(config, **options):
        # Of each kind a few steps are timed first, in folders elsewhere.
        if config.out.is_relative_to(tmp_path):
            runs.append(config)
            if len(runs) == 2:
                raise Interrupted(1, config.out)
        return run(config, **options)

    monkeypatch.setattr(task, "run", interrupted)
    with pytest.raises(Interrupted) as stop:
        make(small(seeds=2), tmp_path)
    assert stop.value.folder == tmp_path
    assert "So far 1 of 2 runs are finished" in (tmp_path / "report.md").read_text()
    make(small(seeds=2), tmp_path)
    assert len(runs) == 3
    assert "So far" not in (tmp_path / "report.md").read_text()


def test_a_run_that_another_process_makes_is_left_to_it(whole, tmp_path):
    experiment, out = small(seeds=2), tmp_path / "grid"
    taken, free = experiment.cells(out)
    taken.config.out.parent.mkdir(parents=True)
    with FileLock(taken.config.out.with_name(".seed-0.lock")):
        said = io.StringIO()
        report = reproduce(experiment, out, command="x", console=Console(file=said))
    assert "So far 1 of 2 runs are finished" in report.read_text()
    assert "left to other processes, which had begun them: 1" in said.getvalue()
    assert not taken.config.out.exists()
    assert losses(free.config.out) == losses(whole / "runs" / "d8-width32" / "standard" / "seed-1")
    assert "So far" not in make(experiment, out).read_text()


def test_what_is_published_is_the_same_report_and_finished_runs(whole, tmp_path, monkeypatch):
    experiment, kept = small(seeds=2, names=NAMES), tmp_path / "kept"
    report = publish(experiment, whole, kept, "mlbtc reproduce icl")
    assert report.read_text() == (whole / "report.md").read_text()
    assert (kept / "runs.csv").read_text() == (whole / "runs.csv").read_text()
    names = {path.name for path in (kept / "runs").rglob("*") if path.is_file()}
    assert names == {"config.json", "metrics.jsonl", "results.json"}
    monkeypatch.setattr(task, "run", None)
    assert make(experiment, kept).read_text() == report.read_text()


def test_a_report_alone_makes_no_runs(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(task, "run", None)
    out = tmp_path / "grid"
    shutil.copytree(whole / "runs" / "d8-width32" / "standard", out / "runs" / "d8-width32" / "standard")
    experiment = small(seeds=2, names=NAMES)
    experiment = replace(experiment, settings=(*experiment.settings, Setting("later", experiment.settings[0].options)))
    text = report_alone(experiment, out, command="x").read_text()
    assert "So far 2 of 8 runs are finished" in text
    assert "### later" not in text
    assert "no run of bilinear-btt" in text


def test_runs_of_other_options_are_refused(whole):
    with pytest.raises(TrainingError, match="seed-0: this run was made with steps 3, now asked for is 4; name another"):
        make(small(steps=4, seeds=2, names=NAMES), whole)


def test_more_seeds_are_added(whole):
    schedule = make_schedule(small(seeds=3, names=NAMES), whole)
    assert [cell.seed for cell in schedule.waiting] == [2, 2]
    assert len(schedule.cells) == 6
    assert "6 runs, 4 of them finished; about" in str(schedule)


def test_a_few_steps_are_timed(tmp_path):
    experiment = small()
    found = measure(experiment, experiment.cells(tmp_path)[0])
    assert 0 < found.step < 10
    assert found.evaluation >= 0
    assert found.around > 0
    assert list(tmp_path.iterdir()) == []


def test_the_estimate_of_a_run():
    assert Estimate(step=0.1, evaluation=2.0, around=3.0).total(steps=100, every=30) == pytest.approx(3 + 10 + 3 * 2)
    assert [spoken(seconds) for seconds in (12.3, 600, 7200)] == ["12 s", "10 min", "2.0 h"]


def test_a_report_counts_further_seeds_of_some_variants(whole, tmp_path):
    out = tmp_path / "grid"
    shutil.copytree(whole, out)
    report = make(small(seeds=1, names=NAMES), out)
    table = report.with_name("runs.csv").read_text()
    assert table.count("\n") == 1 + 2 * 2
    assert (
        "Seeds 0 to 1, of each variant as many as its table says.\nFurther seeds came by `--seeds`"
        in report.read_text()
    )
    assert "So far" not in report.read_text()
    published = publish(small(seeds=1, names=NAMES), out, tmp_path / "kept", "x")
    assert published.with_name("runs.csv").read_text() == table
    # One that is not finished does not count, nor what is behind it.
    (out / "runs" / "d8-width32" / "standard" / "seed-1" / "results.json").unlink()
    assert make(small(seeds=1, names=NAMES), out).with_name("runs.csv").read_text().count("\n") == 1 + 3
