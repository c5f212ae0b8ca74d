"""Run the fuzzer for a while and keep what fails."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.holds import failure
from tests.fuzz.shrink import shrink
from tests.fuzz.texts import text_of


@dataclass
class Run:
    """What a run did: `failures` are numbers of texts and what was wrong, one of each kind."""

    seed: int
    texts: int = 0
    failures: dict[str, tuple[int, str, str]] = field(default_factory=dict)


def fuzz(seed: int, seconds: float, first: int = 0, say: Callable[[str], None] = print) -> Run:
    """Check texts `first`, `first + 1`, ... of a seed until the time is up; shrink the first failure of each kind."""
    run = Run(seed)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        number = first + run.texts
        text = text_of(seed, number)
        run.texts += 1
        wrong = failure(text)
        if wrong is not None and kind(wrong) not in run.failures:
            small = shrink(text, lambda shorter, wrong=wrong: kind(failure(shorter) or "") == kind(wrong))
            run.failures[kind(wrong)] = (number, failure(small) or wrong, small)
            say(f"text {number} of seed {seed}: {wrong}\n{small}\n")
    return run


def kind(wrong: str) -> str:
    """Return what two failures of one cause have in common."""
    return wrong.partition(":")[0]


def save(run: Run, folder: Path) -> list[Path]:
    """Write every failure with its seed, its number and the smallest text that shows it."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, wrong, small in run.failures.values():
        paths.append(folder / f"{run.seed}-{number}.yaml")
        head = f"seed {run.seed}, text {number}\n{wrong}"
        paths[-1].with_suffix(".txt").write_text(head, "utf-8", "backslashreplace")
        paths[-1].write_text(small, "utf-8", "surrogatepass")
    return paths
