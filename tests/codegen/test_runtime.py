"""Functions that are inlined into emitted files: the product of a diagonal is that of small matrices, only faster."""

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mlbtc.codegen.runtime import times

SHAPES = [((5, 3), (3,)), ((4, 5), (4, 1)), ((2, 3, 5), (2, 1, 1)), ((2, 5, 3), (1, 3)), ((0, 3), (3,)), ((1,), (1,))]
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.complex64, torch.int64]


def draw(shape: tuple[int, ...], dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return (4 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).to(dtype)


def by_entries(x: Tensor, w: Tensor) -> list[float]:
    """Return the product in float64, entry by entry."""
    return [a * b for a, b in zip(x.flatten().tolist(), w.broadcast_to(x.shape).flatten().tolist(), strict=True)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("shape", "narrow"), SHAPES, ids=str)
def test_the_product_is_elementwise(shape: tuple[int, ...], narrow: tuple[int, ...], dtype: torch.dtype) -> None:
    x, w = draw(shape, dtype), draw(narrow, dtype, 1)
    found = times(x, w)
    assert (found.shape, found.dtype) == (x.shape, dtype)
    expected = torch.tensor(by_entries(x, w)).to(dtype).reshape(shape)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("shape", "narrow"), SHAPES, ids=str)
def test_the_meta_device_counts_a_product_of_matrices(shape: tuple[int, ...], narrow: tuple[int, ...]) -> None:
    x, w = draw(shape).to("meta").requires_grad_(), draw(narrow).to("meta").requires_grad_()
    with FlopCounterMode(display=False) as counter:
        found = times(x, w)
    assert found.shape == x.shape
    assert counter.get_total_flops() == 2 * x.numel()
    assert [g.shape for g in torch.autograd.grad(found.sum(), (x, w))] == [x.shape, w.shape]


@pytest.mark.parametrize("dtypes", [(torch.float32, torch.float64), (torch.bfloat16, torch.float32)], ids=str)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_unequal_dtypes_are_refused_as_by_products_of_matrices(
    dtypes: tuple[torch.dtype, torch.dtype], device: str
) -> None:
    with pytest.raises(RuntimeError, match=r"dtype|scalar type"):
        times(draw((5, 3), dtypes[0]).to(device), draw((3,), dtypes[1]).to(device))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_autocast_gives_the_dtype_of_products_of_matrices(dtype: torch.dtype) -> None:
    x = draw((5, 3), dtype)
    with torch.autocast("cpu", torch.bfloat16):
        assert times(x, x).dtype == torch.mm(x, x.T).dtype


def test_gradients_are_exact() -> None:
    x, w = draw((4, 5)).requires_grad_(), draw((4, 1)).requires_grad_()
    assert torch.autograd.gradcheck(times, (x, w))
    assert torch.autograd.gradgradcheck(times, (x, w))


def test_transforms_and_one_graph() -> None:
    x, w = draw((6, 4, 5)), draw((4, 1))
    expected = x * w
    torch.testing.assert_close(torch.vmap(times, (0, None))(x, w), expected)
    torch.testing.assert_close(torch.compile(times, fullgraph=True, backend="aot_eager")(x, w), expected)
    with torch.autocast("cpu", torch.bfloat16):
        narrow = torch.compile(times, fullgraph=True, backend="aot_eager")(x.float(), w.float())
    assert narrow.dtype == torch.bfloat16
