"""What the attention kernels take on GPUs that need not be in this machine, and whether that is within the limits.

A kernel is emitted as a launch emits it, compiled ahead of time for a target, and its registers, what spilled out of
them and its shared memory are read from the binary. Results are kept in the cache, found by all that they depend on.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import importlib.util
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from mlbtc.attention.triton.choices import candidates
from mlbtc.attention.triton.decode_plan import decode_source, plan_decode
from mlbtc.attention.triton.launching import interpreted
from mlbtc.attention.triton.source import KERNELS, kernel_source
from mlbtc.attention.triton.tiling import AttentionProblem, plan_tiles
from mlbtc.codegen.loading import cache_directory, keep, load_source
from mlbtc.codegen.triton.ahead import TARGETS, Record, check_target, compile_ahead
from mlbtc.errors import BackendError, SpecError

TOKENS = 8192
"""Of the sequences whose blocks the kernels are made for; blocks halve from level to level."""
RANKS = ((64,), (8,) * 8, (32, 8, 6, 4, 4, 4, 4, 2), (48, 16))
"""Heads of 64 features that are proved unless others are asked for."""
VALUE_DIM = 64
REGISTERS = {"cuda": 255, "hip": 512}
"""The most that a thread can have."""
NO_SPILLS = ("sm_90", 64)
"""A target, and the widest head for which nothing may spill there."""

_FORMAT = 1
"""Part of what a record is found by: records of an older meaning are not found."""
_ADDRESSES = {
    **dict.fromkeys(("query", "key", "value", "output", "grad", "values"), "*bf16"),
    **dict.fromkeys(("grad_query", "grad_key", "grad_value"), "*bf16"),
    **dict.fromkeys(("logsumexp", "mean", "partial", "logsum"), "*fp32"),
    "lengths": "*i32",
}


@dataclass(frozen=True, slots=True)
class Subject:
    """A kernel as it is launched.

    Attributes:
        kernel: what it computes: "forward", "dq", "dkdv", "decode" or "join".
        ranks: of the head.
        source: that defines it.
        function: its name there.
        signature: pairs of an argument and its type.
        constexprs: pairs of an argument and its value; `DOT` is the name of a type in triton.language.
        warps, stages: of the launch.
    """

    kernel: str
    ranks: tuple[int, ...]
    source: str
    function: str
    signature: tuple[tuple[str, str], ...]
    constexprs: tuple[tuple[str, str | int], ...]
    warps: int
    stages: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a kernel takes on a target, and which limits it breaks.

    Attributes:
        kernel, ranks: of the subject.
        target: a name of `TARGETS`.
        record: of the compiler; None where it refuses the kernel.
        failures: what is wrong, one line each; nothing where the kernel passes.
    """

    kernel: str
    ranks: tuple[int, ...]
    target: str
    record: Record | None
    failures: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return kernel, ranks, target, the numbers of the record, and the failures."""
        record = {} if self.record is None else dataclasses.asdict(self.record)
        own = {"kernel": self.kernel, "ranks": list(self.ranks), "target": self.target}
        return own | record | {"passes": not self.failures, "failures": list(self.failures)}


def parse_ranks(text: str) -> tuple[int, ...]:
    """Return the ranks that `48|16` or `8x8` (eight levels of 8) names.

    Raises:
        SpecError: it names none.
    """
    levels, cross, rank = text.replace(" ", "").partition("x")
    parts = [rank] * int(levels) if cross and levels.isdecimal() and 1 <= int(levels) <= 32 else text.split("|")
    numbers = [int(part) for part in parts if part.strip().isdecimal()]
    if not numbers or len(numbers) != len(parts) or not all(1 <= number <= 256 for number in numbers):
        raise SpecError(f"ranks are written 48|16, or 8x8 for eight levels of 8, each 1 to 256; found {text!r}")
    return tuple(numbers)


def halving_problem(ranks: Sequence[int]) -> AttentionProblem:
    """Return causal attention over `TOKENS` tokens whose blocks halve from level to level."""
    blocks = (None, *(max(1, TOKENS >> level) for level in range(1, len(ranks))))
    return AttentionProblem(tuple(ranks), blocks, (sum(ranks) ** -0.5,) * len(ranks), VALUE_DIM)


def subjects(ranks: Sequence[int]) -> tuple[Subject, ...]:
    """Return every kernel of a head in bfloat16, with the tiles that a launch takes before it has measured any."""
    problem = halving_problem(ranks)
    found = []
    for kernel, function in KERNELS.items():
        tiles = candidates(kernel, problem, half=True)[0]
        source = kernel_source({kernel: plan_tiles(problem, tiles)})
        found.append(_subject(kernel, problem, source, function, tiles.warps, tiles.stages))
    plan = plan_decode(problem)
    source = decode_source(plan)
    found.append(_subject("decode", problem, source, "mlr_decode_split", plan.warps, plan.stages))
    # Triton's own defaults, which the launch of so small a kernel leaves alone.
    found.append(_subject("join", problem, source, "mlr_decode_join", warps=4, stages=3))
    return tuple(found)


def _subject(kernel: str, problem: AttentionProblem, source: str, function: str, warps: int, stages: int) -> Subject:
    names = _arguments(source, function)
    values: dict[str, str | int] = {"DOT": "bfloat16", "PRECISION": "ieee", "GROUPS": 1}
    # A decoding step computes in float32, so that is what its queries and results are.
    wide = ("query", "output") if kernel in ("decode", "join") else ()
    types = {name: "*fp32" if name in wide else _type(name) for name in names if name not in values}
    constexprs = tuple((name, values[name]) for name in names if name in values)
    return Subject(kernel, problem.ranks, source, function, tuple(types.items()), constexprs, warps, stages)


def _arguments(source: str, function: str) -> list[str]:
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            return [argument.arg for argument in node.args.args]
    raise AssertionError(f"the emitted source has no function {function}")


def _type(name: str) -> str:
    """Return the type of an argument; the keys of a level are addresses, too, and all other arguments are sizes."""
    return "*bf16" if name.startswith("level") else _ADDRESSES.get(name, "i32")


def require_compiler() -> None:
    """Refuse to go on where kernels cannot be compiled.

    Raises:
        BackendError: triton is not installed, or interprets its kernels.
    """
    if importlib.util.find_spec("triton") is None:
        raise BackendError("triton is not installed: pip install triton")
    if interpreted():
        raise BackendError("TRITON_INTERPRET is set, so that Triton compiles nothing; unset it")


def prove(subject: Subject, target: str) -> Verdict:
    """Return what a kernel takes on a target; what was compiled before is read from the cache.

    Raises:
        BackendError: the target is unknown, or triton is missing.
    """
    check_target(target)
    require_compiler()
    try:
        record = _recalled(subject, target) or _compiled(subject, target)
    except BackendError as error:
        return Verdict(subject.kernel, subject.ranks, target, None, (str(error),))
    return Verdict(subject.kernel, subject.ranks, target, record, broken_limits(subject, record))


def broken_limits(subject: Subject, record: Record) -> tuple[str, ...]:
    """Return which limits a kernel breaks: registers, shared memory, and spills where there may be none."""
    most = REGISTERS[TARGETS[record.target].backend]
    found = []
    if record.registers > most:
        found.append(f"{record.registers} registers per thread, there are {most}")
    if record.shared_bytes > record.shared_limit:
        found.append(f"{record.shared_bytes} bytes of shared memory, there are {record.shared_limit}")
    target, widest = NO_SPILLS
    if record.target == target and sum(subject.ranks) <= widest and record.local_bytes:
        found.append(f"{record.local_bytes} bytes per thread spill out of the registers")
    return tuple(found)


def _compiled(subject: Subject, target: str) -> Record:
    import triton.language as tl

    function = getattr(load_source(subject.source), subject.function)
    constexprs = {name: getattr(tl, str(value)) if name == "DOT" else value for name, value in subject.constexprs}
    record = compile_ahead(
        function, dict(subject.signature), constexprs, target, num_warps=subject.warps, num_stages=subject.stages
    )
    keep(_path(subject, target), json.dumps(dataclasses.asdict(record)) + "\n")
    return record


# The cache ------------------------------------------------------------------------------------------------------------


def _path(subject: Subject, target: str) -> Path:
    from importlib import metadata

    key = repr((_FORMAT, metadata.version("triton"), subject, TARGETS[target]))
    return cache_directory() / f"proof-{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"


def _recalled(subject: Subject, target: str) -> Record | None:
    try:
        found = json.loads(_path(subject, target).read_text())
        return Record(**{**found, "dots": tuple(tuple(dot) for dot in found["dots"])})
    except (OSError, ValueError, KeyError, TypeError):
        return None


# All of them ----------------------------------------------------------------------------------------------------------


def prove_all(
    ranks: Sequence[tuple[int, ...]],
    targets: Sequence[str],
    *,
    workers: int | None = None,
    done: Callable[[Verdict], None] = lambda verdict: None,
) -> list[Verdict]:
    """Return the verdicts of every kernel of every head on every target, compiled in several processes.

    Args:
        ranks: of heads.
        targets: names of `TARGETS`.
        workers: processes; None for as many as there are processors, 8 at most.
        done: called with each verdict as it comes.

    Raises:
        BackendError: a target is unknown, or nothing can be compiled here.
    """
    for target in targets:
        check_target(target)
    require_compiler()
    jobs = [(subject, target) for target in targets for one in ranks for subject in subjects(one)]
    count = workers or min(8, os.cpu_count() or 1)
    if count == 1:
        return [_and_then(done, prove(*job)) for job in jobs]
    with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
        futures: list[Future[Verdict]] = [pool.submit(prove, *job) for job in jobs]
        for future in as_completed(futures):
            done(future.result())
        return [future.result() for future in futures]


def _and_then(done: Callable[[Verdict], None], verdict: Verdict) -> Verdict:
    done(verdict)
    return verdict
