"""A picture of a search: every structure as a point, the front as a line."""

from __future__ import annotations

from mlbtc.analysis.figure import new_figure, save
from mlbtc.selection.candidates import Candidate
from mlbtc.selection.search import Search


def plot_search(found: Search, path: str) -> None:
    """Draw MACs against the error, or the rank where there is none, as PNG or SVG.

    Raises:
        BackendError: matplotlib is not installed.
        AnalysisError: the name ends in neither, or the file cannot be written.
    """
    figure = new_figure(7, 4.5)
    axes = figure.subplots()
    fitted = found.candidates[0].error is not None

    def height(one: Candidate) -> float:
        return one.rank if one.error is None else one.error

    for family in dict.fromkeys(one.spec.name for one in found.candidates):
        points = [one for one in found.candidates if one.spec.name == family]
        axes.scatter([one.macs for one in points], list(map(height, points)), s=18, label=family.replace("_", " "))
    axes.plot([one.macs for one in found.front], list(map(height, found.front)), "o", mfc="none", mec="black", ms=8)
    axes.set_xscale("log")
    axes.set_xlabel("MACs per token")
    axes.set_ylabel("relative error" if fitted else "rank")
    axes.set_title(f"{found.shape[0]} x {found.shape[1]}; circled: no other structure beats it")
    axes.legend(fontsize="small", frameon=False)
    save(figure, path)
