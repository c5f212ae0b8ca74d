"""Timing on a GPU: CUDA events around work that finds a cold L2 cache, and what the numbers depend on."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import torch

from mlbtc.benchmarks.runner import BenchmarkError
from mlbtc.codegen.triton.roofline import H100, H200, Gpu

FLUSH_BYTES = 256 << 20
"""More than any L2 cache holds."""

PEAKS = {"H100": H100, "H200": H200}
"""By a word of the GPU's name. PCIe cards are slower than the SXM ones whose peaks these are."""


class Event(Protocol):
    """What a timer needs of `torch.cuda.Event`."""

    def record(self) -> None:
        """Mark the point that the GPU has reached."""

    def elapsed_time(self, end: Any) -> float:
        """Return the milliseconds from this point to another."""
        ...


class EventTimer:
    """Measures what the GPU does for one call: the processor's work before it hides behind the flush.

    Args:
        event: makes an event.
        flush: fills the L2 cache with something else.
        wait: until the GPU is done.
    """

    def __init__(self, event: Callable[[], Event], flush: Callable[[], object], wait: Callable[[], object]) -> None:
        self.event, self.flush, self.wait = event, flush, wait

    def __call__(self, run: Callable[[], object]) -> float:
        """Return the seconds between the events around a call."""
        start, stop = self.event(), self.event()
        self.flush()
        start.record()
        run()
        stop.record()
        self.wait()
        return 1e-3 * start.elapsed_time(stop)


def cuda_timer() -> EventTimer:
    """Return a timer for the current GPU."""
    buffer = torch.empty(FLUSH_BYTES, dtype=torch.int8, device="cuda")
    return EventTimer(partial(torch.cuda.Event, enable_timing=True), buffer.zero_, torch.cuda.synchronize)


def require_cuda() -> None:
    """Refuse to go on without a GPU.

    Raises:
        BenchmarkError: torch sees none.
    """
    if not torch.cuda.is_available():
        raise BenchmarkError("--device cuda: torch sees no CUDA device")


def machine() -> dict[str, Any]:
    """Return what timings on the current GPU depend on."""
    from importlib import metadata

    try:
        triton: str | None = metadata.version("triton")
    except metadata.PackageNotFoundError:
        triton = None
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    return {
        "gpu": properties.name,
        "multiprocessors": properties.multi_processor_count,
        "gpu_bytes": properties.total_memory,
        "cuda": torch.version.cuda or torch.version.hip,
        "triton": triton,
    }


def peaks_of(name: str) -> Gpu | None:
    """Return the published peaks of a GPU by its name, or None; cards that are no SXM ones have others."""
    return None if "PCIe" in name else next((gpu for word, gpu in PEAKS.items() if word in name), None)
