"""What backends of `mlr_attention` store, and which one PyTorch's own choice is."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mlbtc.attention import mlr_attention
from mlbtc.attention.kernels import choose_torch_backend
from tests.attention.cases import Layout, draw


class LargestResult(TorchDispatchMode):
    """Remember the most elements that a fresh tensor has had."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.untyped_storage().nbytes() // tensor.element_size())
        return result


def largest(tokens: int, blocks: list[int | None], backend: str, causal: bool) -> int:
    layout = Layout(tokens, [2] * len(blocks), blocks, value=4, heads=1, key_heads=1)
    inputs = draw(layout, torch.float32)
    with LargestResult() as mode:
        output = mlr_attention(*inputs, layout.ranks, blocks, causal=causal, backend=backend)
        torch.autograd.grad(output.sum(), inputs)
    return mode.elements


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "bidirectional"])
@pytest.mark.parametrize(
    "blocks", [[None], [None, 1024, 512], [None, 600, 60, 6], [64, 32]], ids=lambda b: "-".join(map(str, b))
)
def test_strips_store_128_rows_of_scores_at_most(blocks: list[int | None], causal: bool) -> None:
    tokens = 4096
    assert largest(tokens, blocks, "strips", causal) <= 128 * tokens + 128 * tokens // 8


def test_the_reference_does_store_all_scores() -> None:
    # The measure of the test above sees a T x T tensor where there is one.
    assert largest(512, [None, 8], "reference", causal=True) >= 512 * 512


def test_auto_never_stores_all_scores_of_a_long_sequence() -> None:
    assert largest(2048, [None, 64], "auto", causal=True) <= 200 * 2048


def test_which_backend_is_chosen() -> None:
    assert choose_torch_backend(64, (48, 16), (64, 32), False) == "expanded"
    assert choose_torch_backend(4096, (48, 16), (4096, 2048), False) == "strips"
    assert choose_torch_backend(4096, (48, 16), (4096, 2048), True) == "expanded"
    assert choose_torch_backend(4096, (1, 1), (4096, 2), True) == "reference"
