"""How a matrix runs fastest on this machine: what `mlbtc.autotune` measured, kept in the cache and read by "auto"."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from mlbtc.codegen import native
from mlbtc.codegen.loading import cache_directory, write_atomically
from mlbtc.errors import CodegenError
from mlbtc.spec.language import MLBTC

Layout = Literal["levels", "nested"]
"""How the torch program of nested low rank runs: level by level, or the factors of all levels side by side."""

_FORMAT = 2
"""Part of what a record is found by: records of an older meaning are not found."""

_FAR = 4
"""Measured for N tokens, a choice is taken for N / 4 to 4 N."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to run a matrix.

    Attributes:
        target: "torch", "cpp" or "triton".
        tokens: the number of tokens for which the torch program is planned; None for an order that is best for one.
        dense: whether the torch program multiplies all factors first and then by one dense matrix.
        groups: groups of tokens in a chunk of the C++ kernel, at most; None for what the emitter takes.
        layout: of the torch program, as for `generate_matrix`.
    """

    target: str
    tokens: int | None = None
    dense: bool = False
    groups: int | None = None
    layout: Layout = "levels"

    def __str__(self) -> str:
        if self.target == "cpp":
            return "cpp" if self.groups is None else f"cpp, {self.groups} group(s) of tokens in a chunk"
        if self.target == "triton":
            return "triton"
        if self.dense:
            return "torch, multiplied out to a dense matrix in every call"
        if self.layout == "nested":
            return "torch, nested levels side by side"
        return "torch" if self.tokens is None else f"torch, planned for {self.tokens} tokens"


@dataclass(frozen=True, slots=True)
class Measurement:
    """A candidate and the median seconds of a call."""

    candidate: Candidate
    seconds: float


@dataclass(frozen=True, slots=True)
class Tuning:
    """All candidates for one number of tokens per call, the fastest first.

    Attributes:
        tokens: per call.
        backward: whether a call was forward and backward.
        measured: the candidates.
    """

    tokens: int
    backward: bool
    measured: tuple[Measurement, ...]

    @property
    def best(self) -> Measurement:
        """The fastest candidate."""
        return self.measured[0]

    @property
    def reason(self) -> str:
        """Why the best one is taken, for `module.explain()`."""
        what = "forward and backward" if self.backward else "forward"
        text = f"measured by autotune for {self.tokens} tokens, {what}: {1e6 * self.best.seconds:,.0f} us"
        others = [m for m in self.measured if m.candidate.target != self.best.candidate.target]
        return text + (f", best with {others[0].candidate.target} {1e6 * others[0].seconds:,.0f} us" if others else "")

    def __str__(self) -> str:
        what = "forward and backward" if self.backward else "forward"
        lines = [f"{self.tokens} tokens, {what}, median of a call"]
        lines += [f"  {1e6 * m.seconds:>12,.1f} us  {m.candidate}" for m in self.measured]
        return "\n".join(lines)


def remember(spec: MLBTC, dtype: torch.dtype, threads: int, tuning: Tuning) -> Path:
    """Keep a tuning; one for the same number of tokens is replaced.

    Returns:
        The file.

    Raises:
        CodegenError: the cache cannot be written.
    """
    path = _path(spec, dtype, threads)
    kept = [old for old in _read(path) if old.tokens != tuning.tokens]
    entries = sorted([*kept, tuning], key=lambda entry: entry.tokens)
    record = {"spec": spec.to_yaml(), "tunings": [dataclasses.asdict(entry) for entry in entries]}
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(path, json.dumps(record, indent=2) + "\n")
    except OSError as error:
        reason = error.strerror or error
        raise CodegenError(
            f"cannot write to the cache {path.parent}: {reason}; set MLBTC_CACHE to a folder that can be written"
        ) from error
    return path


def recall(spec: MLBTC, dtype: torch.dtype, threads: int, tokens: int | None) -> Tuning | None:
    """Return what was measured for the nearest number of tokens, for most tokens where their number is not known.

    Args:
        spec: without open symbols.
        dtype: of the parameters.
        threads: of torch.
        tokens: per call; measurements for fewer than a quarter or more than four times as many do not count.
    """
    entries = _read(_path(spec, dtype, threads))
    if tokens is None or not entries:
        return entries[-1] if entries else None

    def distance(entry: Tuning) -> float:
        return abs(math.log(entry.tokens / tokens))

    nearest = min(entries, key=distance)
    return nearest if distance(nearest) <= math.log(_FAR) else None


def forget(spec: MLBTC, dtype: torch.dtype, threads: int) -> None:
    """Delete what was measured for a spec."""
    _path(spec, dtype, threads).unlink(missing_ok=True)


def _path(spec: MLBTC, dtype: torch.dtype, threads: int) -> Path:
    """Return the file of a spec: its structure, and what timings depend on, are its name."""
    # Names and defaults of symbols are no part of the structure.
    structure = MLBTC(spec.shape, spec.levels)
    machine = (native.cpu_identity(), native.compiler() or "no compiler", torch.__version__)
    identity = (str(_FORMAT), structure.to_yaml(), str(dtype), str(threads), *machine)
    return cache_directory() / "tuning" / f"{hashlib.sha256(chr(0).join(identity).encode()).hexdigest()[:32]}.json"


def _read(path: Path) -> list[Tuning]:
    """Return the tunings of a file, those for fewest tokens first; none where there is no file that we wrote."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["tunings"]
        return [_tuning(entry) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError):
        # The cache holds nothing that cannot be measured again.
        return []


def _tuning(entry: dict[str, object]) -> Tuning:
    measured = entry["measured"]
    if not isinstance(measured, list) or not measured:
        raise ValueError("a tuning has candidates")
    found = tuple(Measurement(Candidate(**m["candidate"]), float(m["seconds"])) for m in measured)
    return Tuning(int(str(entry["tokens"])), entry["backward"] is True, found)
