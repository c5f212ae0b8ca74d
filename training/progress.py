"""What a person sees while a run goes on: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LINES = 10


class Reporter:
    """Shows step, loss, learning rate and steps per second; a context manager.

    Args:
        title: what is being trained.
        start: the steps done already.
        steps: the steps in all.
        console: where to write.
    """

    def __init__(self, title: str, start: int, steps: int, console: Console) -> None:
        self.title, self.start, self.steps, self.console = title, start, steps, console
        self.began = time.perf_counter()
        self.bar: Progress | None = None
        if console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            self.bar = Progress(*columns, TextColumn("{task.fields[now]}"), TimeRemainingColumn(), console=console)
            self.row = self.bar.add_task(title, total=steps, completed=start, now="")

    def __enter__(self) -> Self:
        if self.bar:
            self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.bar:
            self.bar.stop()

    def update(self, step: int, loss: float, lr: float) -> None:
        """Show that a step is done."""
        rate = (step - self.start) / max(time.perf_counter() - self.began, 1e-9)
        now = f"loss {loss:.4f}  lr {lr:.1e}  {rate:.1f} steps/s"
        if self.bar:
            self.bar.update(self.row, completed=step, now=now)
        elif step == self.steps or step % max(1, self.steps // LINES) == 0:
            self.say(f"{self.title}  step {step}/{self.steps}  {now}")

    def say(self, text: str) -> None:
        """Print a line; a bar stays below it."""
        console = self.bar.console if self.bar else self.console
        console.print(text, highlight=False, markup=False, soft_wrap=True)


class Bytes:
    """A bar over bytes that are read, on a terminal only; a context manager.

    Args:
        title: what is being made of them.
        total: how many there are.
        console: where to show it.
    """

    def __init__(self, title: str, total: int, console: Console) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        self.bar = Progress(*columns, console=console, disable=not console.is_terminal or console.quiet, transient=True)
        self.row = self.bar.add_task(title, total=total)

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.bar.stop()

    def advance(self, count: int) -> None:
        """Show that so many more bytes are done."""
        self.bar.advance(self.row, count)
