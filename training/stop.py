"""Ctrl-C and SIGTERM as a wish that the training loop grants between two steps."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self


class StopRequest:
    """Turns the first Ctrl-C or SIGTERM into a wish; a second one stops at once.

    Signals can be handled in the main thread only; elsewhere this does nothing.

    Args:
        patient: whether later ones are ignored too: `torchrun` passes a Ctrl-C on that its processes have had.
    """

    def __init__(self, *, patient: bool = False) -> None:
        self.requested, self.patient = False, patient
        self.previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested and not self.patient:
            raise KeyboardInterrupt
        self.requested = True
