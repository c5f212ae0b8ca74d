"""What a conversion did: a row for each layer, before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from torch import nn

from mlbtc.spec.language import MLBTC


@dataclass(frozen=True, slots=True)
class Converted:
    """A layer that was converted.

    Attributes:
        names: where it stands in the model, more than once if it is shared.
        spec: its structure now.
        error: the relative error of its matrix, None where it was not fitted.
        parameters: of the matrix, before and after.
        macs: per token, before and after.
    """

    names: tuple[str, ...]
    spec: MLBTC
    error: float | None
    parameters: tuple[int, int]
    macs: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Skipped:
    """A layer that the rule chose and that was left as it is, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Conversion:
    """What `convert` did. Printed, it is a table.

    Attributes:
        model: the model; another object than before only where the model was itself a linear layer.
        converted: the layers that changed.
        skipped: those that the rule chose and that cannot be converted.
    """

    model: nn.Module
    converted: tuple[Converted, ...]
    skipped: tuple[Skipped, ...]

    @property
    def parameters(self) -> tuple[int, int]:
        """The parameters of all matrices that changed, before and after."""
        return _sum([layer.parameters for layer in self.converted])

    @property
    def macs(self) -> tuple[int, int]:
        """Their MACs per token, before and after."""
        return _sum([layer.macs for layer in self.converted])

    def table(self) -> Table:
        """Return a row for each layer and one for all of them."""
        table = Table(box=None, pad_edge=False, header_style="dim")
        for title in ("layer", "structure", "error", "parameters", "MACs per token"):
            table.add_column(title, justify="left" if title in ("layer", "structure") else "right")
        for layer in self.converted:
            error = "not fitted" if layer.error is None else f"{layer.error:.4f}"
            structure = f"{layer.spec.name} {layer.spec.shape[0]} x {layer.spec.shape[1]}"
            table.add_row(", ".join(layer.names), structure, error, _change(layer.parameters), _change(layer.macs))
        if len(self.converted) > 1:
            table.add_row("all", "", "", _change(self.parameters), _change(self.macs))
        return table

    def __str__(self) -> str:
        console = Console(width=160, no_color=True)
        with console.capture() as captured:
            console.print(self.table(), highlight=False)
        lines = [line.rstrip() for line in captured.get().rstrip().splitlines()]
        return "\n".join([*lines, *(f"left as it is: {layer.name}: {layer.reason}" for layer in self.skipped)])


def _sum(pairs: Sequence[tuple[int, int]]) -> tuple[int, int]:
    return sum(before for before, _ in pairs), sum(after for _, after in pairs)


def _change(pair: tuple[int, int]) -> str:
    return f"{pair[0]:,} -> {pair[1]:,}"
