"""Which tiles a kernel runs with: what was measured on this GPU, kept in the cache, or what is known to fit."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from mlbtc.attention.triton.tiling import AttentionProblem, Tiles
from mlbtc.codegen.loading import cache_directory, keep

_FORMAT = 1
"""Part of what a record is found by: records of an older meaning are not found."""


@dataclass(frozen=True, slots=True)
class Place:
    """What timings depend on besides the problem.

    Attributes:
        device: the GPU's name; "cpu" under the interpreter.
        dtype: of the tensors.
        queries, keys: tokens, rounded up to powers of two.
        heads: heads of queries in the batch, rounded up to a power of two.
        groups: heads of queries that share one of keys.
    """

    device: str
    dtype: str
    queries: int
    keys: int
    heads: int
    groups: int

    @classmethod
    def of(cls, query: Tensor, key: Tensor) -> Place:
        """Return the place of a call with `(B, H, Tq, R)` and `(B, Hkv, Tk, R)`."""
        batch, heads, queries, _ = query.shape
        device = torch.cuda.get_device_name(query.device) if query.is_cuda else query.device.type
        queries, keys, heads = (1 << (size - 1).bit_length() for size in (queries, key.shape[2], batch * heads))
        groups = query.shape[1] // key.shape[1]
        return cls(device, str(query.dtype).removeprefix("torch."), queries, keys, heads, groups)


def candidates(name: str, problem: AttentionProblem, half: bool) -> tuple[Tiles, ...]:
    """Return the tiles that are worth a measurement; the first one is taken where nothing can be measured.

    Args:
        name: of the kernel, of `KERNELS`.
        problem: what it computes.
        half: whether tensors have 16 bits a number.
    """
    widest = max(problem.features, problem.value_dim)
    if widest > 128 or (not half and widest > 64):
        return Tiles(32, 32, 4, 1), Tiles(64, 32, 4, 1), Tiles(64, 32, 8, 1)
    if not half or widest > 64:
        return Tiles(64, 32, 4, 1), Tiles(64, 32, 4, 2), Tiles(64, 64, 8, 2), Tiles(128, 32, 8, 2)
    narrow = Tiles(64, 32, 4, 2), Tiles(64, 32, 4, 3), Tiles(128, 64, 8, 2)
    if name == "forward":
        return Tiles(64, 64, 4, 2), *narrow, Tiles(128, 64, 8, 3), Tiles(128, 64, 4, 3), Tiles(128, 128, 8, 2)
    more = *narrow, Tiles(64, 64, 8, 2), Tiles(128, 32, 8, 2)
    # Four sums of (rows, width) live in registers while dk and dv are made: wide tiles spill there.
    return more if name == "dkdv" else (Tiles(64, 64, 4, 2), *more)


def choose_tiles(
    name: str, problem: AttentionProblem, place: Place, run: Callable[[Tiles], None] | None = None
) -> Tiles:
    """Return the tiles for a kernel.

    Args:
        name: of the kernel, of `KERNELS`.
        problem: what it computes.
        place: where.
        run: runs the kernel, so that candidates can be measured; None where there is nothing to measure.

    Returns:
        The fastest candidate as it was measured here, now or earlier; without a `run`, or while a CUDA graph is
        captured, the first one.
    """
    if run is None or torch.cuda.is_current_stream_capturing():
        return recall(name, problem, place) or candidates(name, problem, _half(place))[0]
    return recall(name, problem, place) or measure(name, problem, place, run, _milliseconds)


def measure(
    name: str,
    problem: AttentionProblem,
    place: Place,
    run: Callable[[Tiles], None],
    clock: Callable[[Callable[[], None]], float],
) -> Tiles:
    """Time every candidate, keep the fastest in the cache and return it; one that does not compile takes for ever."""
    tiles = candidates(name, problem, _half(place))
    times = [_time(run, one, clock) for one in tiles]
    if not math.isfinite(min(times)):
        return tiles[0]
    best = tiles[times.index(min(times))]
    record = {
        "kernel": name,
        "problem": dataclasses.asdict(problem),
        "place": dataclasses.asdict(place),
        "tiles": dataclasses.asdict(best),
        "milliseconds": {
            "x".join(map(str, dataclasses.astuple(one))): time if math.isfinite(time) else None
            for one, time in zip(tiles, times, strict=True)
        },
    }
    recall.cache_clear()
    _MEASURED[name, problem, place] = best
    keep(_path(name, problem, place), json.dumps(record, indent=2) + "\n")
    return best


_MEASURED: dict[tuple[str, AttentionProblem, Place], Tiles] = {}


@lru_cache(maxsize=1024)
def recall(name: str, problem: AttentionProblem, place: Place) -> Tiles | None:
    """Return what was measured by this process or an earlier one, or None."""
    measured = _MEASURED.get((name, problem, place))
    if measured:
        return measured
    try:
        return Tiles(**json.loads(_path(name, problem, place).read_text())["tiles"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _half(place: Place) -> bool:
    return place.dtype != "float32"


def _time(run: Callable[[Tiles], None], tiles: Tiles, clock: Callable[[Callable[[], None]], float]) -> float:
    from triton.compiler.errors import CompilationError
    from triton.runtime.errors import OutOfResources

    try:
        return clock(lambda: run(tiles))
    except (CompilationError, OutOfResources):
        return math.inf


def _milliseconds(call: Callable[[], None]) -> float:
    import triton.testing

    return float(triton.testing.do_bench(call, warmup=10, rep=40, return_mode="median"))


def _path(name: str, problem: AttentionProblem, place: Place) -> Path:
    import triton

    # A cut tile costs little: one measurement serves tensors with and without.
    key = repr((_FORMAT, triton.__version__, name, problem, place))
    return cache_directory() / f"triton-{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"
