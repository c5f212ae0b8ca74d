"""Lower bounds in seconds for a fused product of two factors and for a dense one: arithmetic, not measurement."""

from dataclasses import dataclass
from math import prod

from mlbtc.codegen.triton.matrix import MatrixKernels

_SUM_BYTES = 4
"""Bytes of a number of the sum between levels."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """Published peaks of a GPU.

    Attributes:
        flops_per_second: of matrix products in bfloat16 or float16, without sparsity.
        bytes_per_second: of the GPU's memory.
        exponentials_per_second: of the special function units.
        lane_operations_per_second: of float32 additions, products or comparisons; a fused product counts once.
    """

    flops_per_second: float
    bytes_per_second: float
    exponentials_per_second: float
    lane_operations_per_second: float


def _hopper(bytes_per_second: float) -> Gpu:
    """Return an SXM GPU: 132 multiprocessors at 1.83 GHz, each 4096 FLOPs, 16 exponentials and 128 lanes per clock."""
    flops = 989.4e12
    clocks = flops / 4096
    return Gpu(flops, bytes_per_second, exponentials_per_second=16 * clocks, lane_operations_per_second=128 * clocks)


H100 = _hopper(bytes_per_second=3.35e12)
H200 = _hopper(bytes_per_second=4.8e12)


@dataclass(frozen=True, slots=True)
class Work:
    """What one product must compute and move at the least."""

    flops: int
    bytes_moved: int

    def seconds(self, gpu: Gpu = H100) -> float:
        """Return the time below which no kernel can be: computing and moving overlap at best."""
        return max(self.flops / gpu.flops_per_second, self.bytes_moved / gpu.bytes_per_second)


def two_factor_work(tokens: int, a: int, b: int, c: int, d: int, s: int, element_bytes: int = 2) -> Work:
    """Count `b a c s, c b s d -> (b a) (c d)` with both products in one kernel, the middle never leaving the chip.

    FLOPs 2 T s b c (a + d); input, output and both factors move once. Sizes are not padded to what a matrix unit
    takes, so small a, d or s make a kernel slower than this.

    Args:
        tokens: T, the rows of the input `[T, c d]` and of the output `[T, b a]`.
        a: rows of an output block.
        b: blocks of the output.
        c: blocks of the input.
        d: columns of an input block.
        s: the rank index.
        element_bytes: bytes of one element, 2 for bfloat16.
    """
    factors = s * b * c * (a + d)
    return Work(flops=2 * tokens * factors, bytes_moved=element_bytes * (tokens * (c * d + b * a) + factors))


def dense_work(tokens: int, out: int, in_: int, element_bytes: int = 2) -> Work:
    """Count `torch.nn.Linear` without a bias: FLOPs 2 T out in; input, output and weight move once."""
    return Work(flops=2 * tokens * out * in_, bytes_moved=element_bytes * (tokens * (out + in_) + out * in_))


def matrix_work(kernels: MatrixKernels, tokens: int, element_bytes: int = 2) -> Work:
    """Count the launches of a product as they are planned: what is padded is computed, what goes between them is moved.

    Every level reads its input and both factors; the sum of levels is written and read again in float32 between them.
    Nested low rank reads the input once, writes the features of all levels, reads them and writes the output.

    Args:
        kernels: of a matrix.
        tokens: T.
        element_bytes: bytes of one element, 2 for bfloat16.
    """
    rows, columns = (int(size) for size in kernels.spec.shape)
    flops = 2 * tokens * kernels.macs(element_bytes)
    factors = sum(prod(size for _, size in factor) for factor in _factors(kernels))
    if kernels.nested is not None:
        per_token = element_bytes * (columns + 2 * kernels.nested.matrix.features + rows)
    else:
        levels = len(kernels.levels)
        per_token = element_bytes * (levels * columns + rows) + _SUM_BYTES * 2 * (levels - 1) * rows
    return Work(flops=flops, bytes_moved=tokens * per_token + element_bytes * factors)


def _factors(kernels: MatrixKernels) -> list[list[tuple[str, int]]]:
    """Return the indices and sizes of every factor of every level."""
    found = []
    for plan in kernels.plans:
        sizes = {name: int(size) for name, size in plan.sizes}
        found += [[(index, sizes[index]) for index in factor.indices] for factor in plan.factors]
    return found
