"""The report of an experiment: verdicts, a table over seeds, figures, and how it was made."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path

import torch

from mlbtc.codegen.loading import write_atomically
from mlbtc.codegen.native import cpu_model
from mlbtc.training.report import Table
from mlbtc.training.reproduce.figures import write_figures
from mlbtc.training.reproduce.grid import Experiment
from mlbtc.training.reproduce.outcome import Outcome
from mlbtc.training.reproduce.statistics import summarise

REPORT, RUNS = "report.md", "runs.csv"


def write_report(experiment: Experiment, outcomes: Sequence[Outcome], out: Path, command: str) -> Path:
    """Write `report.md`, `runs.csv` and the figures of the runs that are finished, and return the report."""
    out.mkdir(parents=True, exist_ok=True)
    figures = write_figures(out, experiment, outcomes)
    write_atomically(out / RUNS, runs_csv(experiment, outcomes))
    write_atomically(out / REPORT, report_text(experiment, outcomes, figures, command))
    return out / REPORT


def runs_csv(experiment: Experiment, outcomes: Sequence[Outcome]) -> str:
    """Return one row per run."""
    extra = list(dict.fromkeys(key for outcome in outcomes for key in outcome.extra))
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    names = ["experiment", "scale", "setting", "variant", "seed", "parameters", "steps", "macs", "seconds"]
    rows.writerow([*names, experiment.measure.quantity, *extra])
    for one in outcomes:
        end = one.last
        known = [experiment.name, experiment.scale, one.setting, one.variant, one.seed, one.parameters]
        more = (one.extra.get(key, "") for key in extra)
        rows.writerow([*known, end.step, int(end.macs), end.seconds, one.final, *more])
    return text.getvalue()


def results_table(experiment: Experiment, outcomes: Sequence[Outcome], setting: str) -> Table:
    """Return mean and spread over seeds of each variant in a setting."""
    header = ("variant", "what it is", "seeds", experiment.measure.quantity, "MACs", "seconds", "parameters")
    rows = []
    for variant in experiment.variants:
        chosen = [one for one in outcomes if (one.setting, one.variant) == (setting, variant.name)]
        if not chosen:
            continue
        macs = f"{summarise([one.last.macs for one in chosen]).mean:.3g}"
        seconds = str(summarise([one.last.seconds for one in chosen]))
        about = variant.about.replace("|", "\\|")
        final = str(summarise([one.final for one in chosen]))
        rows.append((variant.name, about, str(len(chosen)), final, macs, seconds, f"{chosen[0].parameters:,}"))
    return Table(setting, header, tuple(rows))


def verdict_lines(experiment: Experiment, outcomes: Sequence[Outcome]) -> list[str]:
    """Return a line for each claim: the claim, the verdict and the numbers behind it."""
    found = [(claim.text, claim.judge(outcomes)) for claim in experiment.claims]
    return [f"- **{verdict.answer}**: {text} ({verdict.reason})" for text, verdict in found]


def report_text(experiment: Experiment, outcomes: Sequence[Outcome], figures: Sequence[Path], command: str) -> str:
    """Return the report, Markdown."""
    planned = {(cell.setting, cell.variant, cell.seed) for cell in experiment.cells(Path())}
    missing = planned - {(one.setting, one.variant, one.seed) for one in outcomes}
    lines = [f"# {experiment.name}, scale {experiment.scale}", "", experiment.about, ""]
    if missing:
        lines += [
            f"**So far {len(planned) - len(missing)} of {len(planned)} runs are finished; the same command goes on.**",
            "",
        ]
    lines += ["## Claims", "", *verdict_lines(experiment, outcomes), "", _HOW_JUDGED, "", "## Results", ""]
    for setting in (one for one in experiment.settings if any(run.setting == one.name for run in outcomes)):
        lines += [f"### {setting.name}", "", results_table(experiment, outcomes, setting.name).to_markdown(), ""]
    lines += [f"![{path.stem}]({path.name})" for path in figures] or ["No figures: matplotlib is not installed."]
    lines += ["", _WHAT_COUNTS, "", "## How it was made", "", *_made(experiment, outcomes, command)]
    return "\n".join(lines) + "\n"


_HOW_JUDGED = (
    "Ratios pair the runs of one seed. A number is their geometric mean, with its one-sided 95 % bounds in parentheses "
    "(Student's t on logarithms): a claim holds where the upper bound is on its side, does not where the lower one is "
    "on the other, and is not decidable at this scale in between, or with one seed."
)
_WHAT_COUNTS = (
    "Numbers of tables are means over seeds ± standard deviations. MACs are multiply-adds of all blocks of all steps "
    "(attention by its cost report, without a discount for causal masks; a backward pass counts twice). Bands of "
    "figures reach from the least to the greatest seed. Every run is a row of `runs.csv`, and a folder in `runs/`."
)


def _made(experiment: Experiment, outcomes: Sequence[Outcome], command: str) -> list[str]:
    versions = sorted({outcome.versions for outcome in outcomes})
    most = max((one.seed for one in outcomes), default=experiment.seeds - 1)
    lines = [f"    {command}", "", f"Seeds 0 to {most}, of each variant as many as its table says."]
    if most >= experiment.seeds:
        lines.append("Further seeds came by `--seeds` and `--variants` in the same folder.")
    machine = f"{cpu_model()}, {os.cpu_count()} logical CPUs"
    if torch.cuda.is_available():
        machine += f", {torch.cuda.get_device_name()}"
    lines += ["", f"Machine: {machine}."]
    lines += [f"Data: {_pairs(one)}." for one in sorted({outcome.data for outcome in outcomes}) if one]
    lines += [f"Versions: {_pairs(one)}." for one in versions]
    if len(versions) > 1:
        lines.append("**Runs were made with different versions or threads: their times do not compare.**")
    return lines


def _pairs(pairs: Sequence[tuple[str, object]]) -> str:
    return ", ".join(f"{name} {value}" for name, value in pairs)
