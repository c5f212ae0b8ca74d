"""MLR attention as a C++ library: what is decided before the template is filled, and the arguments of its functions."""

from __future__ import annotations

import ctypes
import math
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import torch
from torch import Tensor

from mlbtc.codegen.emit_torch import render
from mlbtc.codegen.native import compiler, load_library, vector_bytes
from mlbtc.errors import BackendError, CodegenError

# Minimax for 2^x on [-0.5, 0.5] in float; the Taylor series is as good as that in double.
_EXP2_FLOAT = (
    1.535336188319500e-4, 1.339887440266574e-3, 9.618437357674640e-3, 5.550332471162809e-2, 2.402264791363012e-1,
    6.931472028550421e-1, 1.0,
)  # fmt: skip
_EXP2_DOUBLE = tuple(math.log(2) ** power / math.factorial(power) for power in reversed(range(14)))


PANEL_KEYS = 64
CHUNK_KEYS = 512
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


@dataclass(frozen=True, slots=True)
class KernelContext:
    """What the templates of the C++ kernels show.

    Attributes:
        real: the element type, "float" or "double"; `integer` is as wide.
        integer: the integer type of masks.
        vector_bytes: the width of a vector register.
        tile_rows, tile_vectors: a register tile holds tile_rows x tile_vectors vectors.
        strip_rows: queries of a strip.
        tile_keys: most keys of a tile.
        panel_keys: keys of a panel of the cache.
        chunk_keys: keys of a chunk that a thread decodes.
        mantissa_bits, exp2_magic, exp2_lowest, exp2_coefficients: of the exponential.
        options: whether scores and weights may be changed in between; without, the source has nothing of that.
        runs: whether blocks are runs of tokens that the caller lists, instead of having one size per level.
    """

    real: str
    integer: str
    vector_bytes: int
    tile_rows: int
    tile_vectors: int
    strip_rows: int
    tile_keys: int
    panel_keys: int
    chunk_keys: int
    mantissa_bits: int
    exp2_magic: str
    exp2_lowest: str
    exp2_coefficients: tuple[str, ...]
    options: bool = False
    runs: bool = False


def kernel_context(dtype: torch.dtype, width: int, options: bool = False, runs: bool = False) -> KernelContext:
    """Return the decisions for a dtype, a vector width in bytes, and kernels with or without options and listed blocks.

    Sixteen registers hold 6 x 2 sums beside what they are made of, thirty-two (AVX-512) hold 6 x 4.
    """
    single = dtype == torch.float32
    mantissa = 23 if single else 52
    return KernelContext(
        real="float" if single else "double",
        integer="int32_t" if single else "int64_t",
        vector_bytes=width,
        tile_rows=6,
        tile_vectors=4 if width == 64 else 2,
        strip_rows=64,
        tile_keys=96,
        panel_keys=PANEL_KEYS,
        chunk_keys=CHUNK_KEYS,
        mantissa_bits=mantissa,
        exp2_magic=repr(1.5 * 2.0**mantissa),
        exp2_lowest="-126" if single else "-1022",
        exp2_coefficients=tuple(f"{c!r}f" if single else repr(c) for c in (_EXP2_FLOAT if single else _EXP2_DOUBLE)),
        options=options,
        runs=runs,
    )


def generate_kernels(dtype: torch.dtype, width: int | None = None, *, options: bool = False, runs: bool = False) -> str:
    """Return the C++ source of the kernels for float32 or float64.

    Args:
        dtype: that the kernels compute in.
        width: of a vector register in bytes; None asks the machine.
        options: whether they know key masks, bias and dropout.
        runs: whether blocks are listed token by token, instead of having one size per level.
    """
    return render("attention_cpp.jinja", context=kernel_context(dtype, width or vector_bytes(), options, runs))


def generate_decode(dtype: torch.dtype, width: int | None = None) -> str:
    """Return the C++ source of decoding; keys and values are in `dtype`, half precision is computed in float."""
    context = kernel_context(working_dtype(dtype), width or vector_bytes())
    return render("decode_cpp.jinja", context=context, stored=str(dtype).removeprefix("torch."))


class View(ctypes.Structure):
    """A (batch, heads, tokens, features) tensor whose features are neighbours."""

    _fields_ = (("data", ctypes.c_void_p), *((name, ctypes.c_int64) for name in ("batch", "head", "token")))


def per_feature(scales: Sequence[float], ranks: Sequence[int]) -> list[float]:
    """Return for every feature the factor of its level."""
    return [float(factor) for factor, rank in zip(scales, ranks, strict=True) for _ in range(rank)]


@lru_cache(maxsize=1024)
def describe_levels(
    dtype: torch.dtype, scales: tuple[float, ...], ranks: tuple[int, ...], block_sizes: tuple[int, ...]
) -> tuple[ctypes.Array[Any], ...]:
    """Return the scale of every feature, the ranks and the block sizes as arrays of C."""
    real = ctypes.c_float if dtype == torch.float32 else ctypes.c_double
    factors = per_feature(scales, ranks)
    integers = ctypes.c_int64 * len(ranks)
    return (real * len(factors))(*factors), integers(*ranks), integers(*block_sizes)


VIEWS = ("query", "key", "value", "output", "grad_output", "grad_query", "grad_key", "grad_value")
POINTERS = ("logsumexp", "scales", "ranks", "blocks", "lengths", "visible", "slopes", "starts", "stops")
SIZES = ("levels", "batch", "heads", "key_heads", "queries", "keys", "features", "width", "causal", "threads")


class Problem(ctypes.Structure):
    """The arguments of `mlr_forward` and `mlr_backward`, as the templates declare them."""

    _fields_ = (
        *((name, View) for name in VIEWS),
        *((name, ctypes.c_void_p) for name in POINTERS),
        *((name, ctypes.c_int64) for name in (*SIZES, "seed", "drop_below")),
        ("kept_factor", ctypes.c_double),
    )

    @classmethod
    def of(cls, views: Mapping[str, Tensor], levels: Sequence[ctypes.Array[Any]], sizes: Sequence[int]) -> Problem:
        """Return a problem without options; the caller keeps tensors and levels.

        Filled in one go, as every field has 8 bytes.
        """
        numbers = array("q")
        for name in VIEWS:
            view = views.get(name)
            numbers.extend((0, 0, 0, 0) if view is None else (view.data_ptr(), *view.stride()[:3]))
        numbers.extend((0, *map(ctypes.addressof, levels), 0, 0, 0, 0, 0, *sizes, 0, 0, 0))
        return cls.from_buffer(numbers)


@cache
def kernels(dtype: torch.dtype, options: bool = False, runs: bool = False) -> ctypes.CDLL:
    """Return the library for a dtype, built at the first call; `options` and `runs` as for `generate_kernels`.

    Raises:
        BackendError: there is no compiler.
    """
    parts = ("mlr_attention", str(dtype).removeprefix("torch."), "options" if options else "", "runs" if runs else "")
    name = "_".join(filter(None, parts))
    library = load_library(generate_kernels(dtype, options=options, runs=runs), name=name)
    library.mlr_forward.argtypes = [ctypes.c_void_p]
    library.mlr_backward.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]
    library.mlr_forward.restype = library.mlr_backward.restype = None
    return library


class Level(ctypes.Structure):
    """A level of the cache, as the template declares it."""

    _fields_ = (("keys", ctypes.c_void_p), *((name, ctypes.c_int64) for name in ("panels", "rank", "block", "first")))


DECODE_POINTERS = ("query", "key", "value", "values", "output", "partial", "scales", "lengths", "levels")
DECODE_SIZES = (
    "level_count",
    "batch",
    "heads",
    "key_heads",
    "features",
    "width",
    "capacity",
    "chunks",
    "threads",
    "window",
)


class Decode(ctypes.Structure):
    """The arguments of `mlr_decode`, as the template declares them."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in DECODE_POINTERS),
        *((name, ctypes.c_int64) for name in DECODE_SIZES),
    )


@cache
def decode_kernels(dtype: torch.dtype) -> ctypes.CDLL:
    """Return the library that decodes in a dtype, built at the first call.

    Raises:
        BackendError: there is no compiler.
    """
    library = load_library(generate_decode(dtype), name=f"mlr_decode_{str(dtype).removeprefix('torch.')}")
    library.mlr_decode.argtypes, library.mlr_decode.restype = [ctypes.c_void_p], None
    return library


def missing(dtype: torch.dtype, options: bool = False, runs: bool = False) -> str:
    """Return why the kernels cannot run for tensors of a dtype, or an empty string; builds them if they can.

    Args:
        dtype: of the tensors.
        options: whether they must know key masks, bias and dropout.
        runs: whether they must know blocks that are listed token by token.
    """
    own = working_dtype(dtype)
    return _missing(dtype, ("attend", own, options, runs), lambda: kernels(own, options, runs))


def missing_decoder(dtype: torch.dtype) -> str:
    """Return why the kernel that decodes cannot run for a cache of a dtype, or an empty string; builds it if it can."""
    return _missing(dtype, ("decode", dtype), lambda: decode_kernels(dtype))


# What torch.compiler.assume_constant_result does, without importing the compiler: a tracer calls it once and keeps the
# answer.
for _function in (missing, missing_decoder):
    setattr(_function, "_dynamo_marked_constant", True)  # noqa: B010


_built: dict[tuple[str | torch.dtype | bool, ...], str] = {}
"""What went wrong with a library, by its kind, dtype and options; empty where all is ready."""


def _missing(dtype: torch.dtype, wanted: tuple[str | torch.dtype | bool, ...], build: Callable[[], object]) -> str:
    if dtype not in DTYPES:
        return f"there are no C++ kernels for {dtype}"
    if wanted not in _built:
        if compiler() is None:
            return "there is no C++ compiler (set CXX or install g++)"
        _built[wanted] = _failure(build)
    return _built[wanted]


def _failure(build: Callable[[], object]) -> str:
    try:
        build()
    except (BackendError, CodegenError, OSError) as error:
        return f"the C++ kernels cannot be built: {error}"
    return ""


def working_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype that the kernels compute in: half precision is computed in float32."""
    return dtype if dtype == torch.float64 else torch.float32
