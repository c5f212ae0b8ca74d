"""Compile one Triton kernel ahead of time, with no GPU, and read what the assembler gave it."""

import os
import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from mlbtc.errors import BackendError, nearest, shown


@dataclass(frozen=True, slots=True)
class Target:
    """A GPU that kernels are compiled for.

    Attributes:
        backend: Triton's name of the backend, `cuda` or `hip`.
        arch: 90 for sm_90, or AMD's name.
        warp_size: threads of one warp.
        shared_limit: bytes of shared memory that one block of threads can have.
    """

    backend: str
    arch: int | str
    warp_size: int
    shared_limit: int


TARGETS: Mapping[str, Target] = MappingProxyType(
    {
        "sm_80": Target("cuda", 80, 32, 163 * 1024),
        "sm_90": Target("cuda", 90, 32, 227 * 1024),
        "gfx942": Target("hip", "gfx942", 64, 64 * 1024),
    }
)


@dataclass(frozen=True, slots=True)
class Record:
    """What one kernel takes on one target.

    Attributes:
        target: a name of `TARGETS`.
        registers: per thread; vector registers on AMD.
        local_bytes: memory per thread outside the registers. Spilled registers live there, so 0 means that none
            spilled; an array that the kernel indexes at run time lives there too.
        shared_bytes: per block of threads, as the launch asks for it.
        shared_limit: the most that the target gives.
        dots: `(M, N, K)` of each matrix product in the kernel's text, `(batch, M, N, K)` of a batched one, in order,
            before it is cut into instructions.
    """

    target: str
    registers: int
    local_bytes: int
    shared_bytes: int
    shared_limit: int
    dots: tuple[tuple[int, ...], ...]

    @property
    def fits(self) -> bool:
        """Say whether nothing spills and the shared memory is within the target's limit."""
        return self.local_bytes == 0 and self.shared_bytes <= self.shared_limit


def compile_ahead(
    kernel: Any,
    signature: Mapping[str, str],
    constexprs: Mapping[str, Any],
    target: str,
    *,
    num_warps: int = 4,
    num_stages: int = 2,
    aligned: bool = True,
) -> Record:
    """Compile a kernel for a target that need not be in this machine.

    Args:
        kernel: a function under `triton.jit`, made while TRITON_INTERPRET was unset.
        signature: Triton's type of each argument that is no constexpr, such as `*bf16` or `i32`.
        constexprs: the value of each constexpr argument.
        target: a name of `TARGETS`.
        num_warps: warps per block of threads.
        num_stages: stages of software pipelining.
        aligned: promise that pointers and `i32` or `i64` arguments are multiples of 16, as Triton finds at a launch;
            nothing is promised of arguments that the kernel lists in do_not_specialize.

    Returns:
        What the kernel takes there.

    Raises:
        BackendError: triton is missing, the target is unknown, the kernel is interpreted, an argument has no type or
            value, or the compiler refuses the kernel.
    """
    check_target(target)
    types = _types(kernel, signature, constexprs)
    compiled = _compile(kernel, types, constexprs, target, num_warps, num_stages, aligned)
    read = _cuda_usage if TARGETS[target].backend == "cuda" else _hip_usage
    registers, local_bytes = read(compiled.asm)
    return Record(
        target=target,
        registers=registers,
        local_bytes=local_bytes,
        shared_bytes=compiled.metadata.shared,
        shared_limit=TARGETS[target].shared_limit,
        dots=_dots(compiled.asm["ttir"]),
    )


def check_target(target: str) -> None:
    """Refuse a name that is none of `TARGETS`.

    Raises:
        BackendError: it is none.
    """
    if target not in TARGETS:
        raise BackendError(
            f"target: {shown(target)} is none that kernels are compiled for; {nearest(str(target), list(TARGETS))}"
        )


def _types(kernel: Any, signature: Mapping[str, str], constexprs: Mapping[str, Any]) -> dict[str, str]:
    """Return the type of each argument in the kernel's order, or refuse a kernel or arguments that do not fit."""
    try:
        from triton.runtime.jit import JITFunction
    except ImportError as error:
        raise BackendError("triton is not installed: pip install triton") from error
    if not isinstance(kernel, JITFunction):
        raise BackendError(
            f"kernel: found {shown(kernel)}, which is not compiled; "
            "give a function under triton.jit, made while TRITON_INTERPRET is unset"
        )
    given = [*signature, *constexprs]
    if sorted(given) != sorted(kernel.arg_names):
        wrong = sorted(
            {name for name in [*given, *kernel.arg_names] if given.count(name) != kernel.arg_names.count(name)}
        )
        raise BackendError(f"kernel: each argument needs one type or one value; look at {', '.join(wrong)}")
    return {name: signature.get(name, "constexpr") for name in kernel.arg_names}


def _compile(
    kernel: Any,
    types: dict[str, str],
    constexprs: Mapping[str, Any],
    target: str,
    num_warps: int,
    num_stages: int,
    aligned: bool,
) -> Any:
    """Return Triton's compiled kernel; whatever its compiler raises becomes one line."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    gpu = TARGETS[target]
    divisible = [
        i
        for i, (kind, parameter) in enumerate(zip(types.values(), kernel.params, strict=True))
        if (kind.startswith("*") or kind in ("i32", "i64")) and not parameter.do_not_specialize
    ]
    attributes = {(i,): [["tt.divisibility", 16]] for i in divisible} if aligned else {}
    source = ASTSource(fn=kernel, signature=types, constexprs=dict(constexprs), attrs=attributes)
    # Said outright, as the default changes between versions of Triton, and warns.
    options = {"num_warps": num_warps, "num_stages": num_stages, "enable_fp_fusion": True}
    try:
        return triton.compile(source, target=GPUTarget(gpu.backend, gpu.arch, gpu.warp_size), options=options)
    except Exception as error:
        reason = " ".join(str(error).split())[-400:]
        raise BackendError(f"kernel {kernel.__name__}: the compiler for {target} refuses it: {reason}") from error


def _cuda_usage(asm: Mapping[str, Any]) -> tuple[int, int]:
    """Return registers and local bytes per thread, as cuobjdump reads them from the binary."""
    import triton

    tool = os.path.join(os.path.dirname(triton.__file__), "backends", "nvidia", "bin", "cuobjdump")
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "kernel.cubin")
        with open(path, "wb") as file:
            file.write(asm["cubin"])
        try:
            done = subprocess.run([tool, "-res-usage", path], capture_output=True, text=True, timeout=60)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BackendError(f"cuobjdump of triton cannot be run: {error}") from error
    registers, stack, local = (_number(rf"\b{name}:(\d+)", done.stdout) for name in ("REG", "STACK", "LOCAL"))
    return registers, stack + local


def _hip_usage(asm: Mapping[str, Any]) -> tuple[int, int]:
    """Return vector registers and private bytes per thread, as the assembler notes them."""
    names = ("vgpr_count", "private_segment_fixed_size")
    registers, private = (_number(rf"\.{name}:\s*(\d+)", asm["amdgcn"]) for name in names)
    return registers, private


def _number(pattern: str, text: str) -> int:
    """Return the number that a pattern finds; a tool that says nothing is an error, never a 0."""
    found = re.search(pattern, text)
    if found is None:
        raise BackendError(f"this version of triton does not say {shown(pattern)} of a compiled kernel")
    return int(found[1])


def _dots(ttir: str) -> tuple[tuple[int, ...], ...]:
    """Return `(M, N, K)` of the products in Triton's first form of a kernel, `(batch, M, N, K)` of batched ones."""
    pattern = r"tt\.dot .*tensor<((?:\d+x)+)\w+> \* tensor<((?:\d+x)+)\w+>"
    found = []
    for left, right in re.findall(pattern, ttir):
        *batch, m, k = (int(size) for size in left.split("x") if size)
        found.append((*batch, m, int(right.split("x")[-2]), k))
    return tuple(found)
