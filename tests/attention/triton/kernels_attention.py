"""The kernels of MLR attention against the definition; `test_attention.py` runs this in the interpreter and on GPUs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mlbtc.attention import mlr_attention
from mlbtc.attention.triton import Tiles
from mlbtc.attention.triton.launch import make_problem, run_backward, run_forward
from mlbtc.attention.triton.launching import interpreted
from mlbtc.errors import BackendError
from tests.attention.oracle import Options, oracle

DEVICE = "cpu" if interpreted() else "cuda"
TOLERANCES = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


@dataclass(frozen=True)
class Call:
    """The shapes and levels of a call."""

    ranks: list[int]
    blocks: list[int | None]
    tokens: int
    queries: int | None = None
    batch: int = 1
    heads: int = 2
    key_heads: int = 2
    value: int = 8
    causal: bool = True
    scale: float | list[float] = 0.3
    lengths: list[int] | None = None
    tiles: Tiles | None = field(default_factory=lambda: Tiles(16, 16))
    dtype: torch.dtype = torch.float32

    def draw(self, seed: int = 0, spread: float = 1.0) -> list[Tensor]:
        """Return query, key, value and a gradient of the output."""
        generator = torch.Generator().manual_seed(seed)
        queries, features = self.queries or self.tokens, sum(self.ranks)
        shapes = (
            (self.heads, queries, features),
            (self.key_heads, self.tokens, features),
            (self.key_heads, self.tokens, self.value),
            (self.heads, queries, self.value),
        )
        drawn = (torch.randn(self.batch, *shape, generator=generator) for shape in shapes)
        return [(x * spread).to(self.dtype).to(DEVICE) for x in drawn]


@pytest.fixture(autouse=True)
def memory_of_nan() -> Any:
    """Let fresh tensors be NaN, so that what a kernel forgets to write is seen."""
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(False)


def run(call: Call, query: Tensor, key: Tensor, value: Tensor, grad: Tensor) -> list[Tensor]:
    """Return what the kernels give with the tiles of the call: the output and the three gradients."""
    torch.use_deterministic_algorithms(True)
    scales = call.scale if isinstance(call.scale, list) else [call.scale] * len(call.ranks)
    blocks = [10**9 - 10**9 % 27720 if block is None else block for block in call.blocks]
    levels = tuple(call.ranks), tuple(blocks), tuple(scales)
    problem = make_problem(*levels, call.value, call.causal, call.tokens)
    lengths = None if call.lengths is None else torch.tensor(call.lengths, device=query.device)
    output, logsumexp = run_forward(query, key, value, problem, lengths, call.tiles)
    saved = query, key, value, output, logsumexp
    return [output, *run_backward(grad, *saved, problem, lengths, call.tiles)]


def expect(call: Call, query: Tensor, key: Tensor, value: Tensor, grad: Tensor) -> list[Tensor]:
    """Return the same from the definition in float64."""
    inputs = [x.detach().cpu().double().requires_grad_() for x in (query, key, value)]
    options = Options(lengths=call.lengths)
    output = oracle(*inputs, call.ranks, call.blocks, call.causal, call.scale, options)  # type: ignore[arg-type]
    return [output.detach(), *torch.autograd.grad(output, inputs, grad.cpu().double())]


def check(found: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    for name, one, other in zip(("output", "dq", "dk", "dv"), found, expected, strict=True):
        size = max(1.0, float(other.abs().max())) if other.numel() else 1.0
        torch.testing.assert_close(
            one.detach().cpu().double(),
            other,
            rtol=0,
            atol=tolerance * size,
            msg=lambda text, name=name: f"{name}: {text}",
        )


@st.composite
def calls(draw: st.DrawFn) -> Call:
    """Draw nested blocks, ranks around the granule, any tiles and shapes."""
    blocks: list[int | None] = [draw(st.sampled_from([1, 3, 8, 12, 16, 24, 32]))]
    for factor in draw(st.lists(st.integers(1, 3), max_size=3)):
        blocks.insert(0, int(blocks[0] or 1) * factor)
    if draw(st.booleans()):
        blocks[0] = None
    ranks = [draw(st.integers(1, 20)) for _ in blocks]
    rows = draw(st.sampled_from([16, 32]))
    tokens, batch, key_heads = draw(st.integers(1, 52)), draw(st.integers(1, 2)), draw(st.sampled_from([1, 2]))
    scales = draw(st.sampled_from([[0.3] * len(ranks), [0.2 - 0.15 * level for level in range(len(ranks))]]))
    return Call(
        ranks,
        blocks,
        tokens,
        queries=draw(st.one_of(st.none(), st.integers(1, tokens))),
        batch=batch,
        heads=key_heads * draw(st.sampled_from([1, 2])),
        key_heads=key_heads,
        value=draw(st.sampled_from([1, 5, 16, 24])),
        causal=draw(st.booleans()),
        scale=scales,
        lengths=draw(st.one_of(st.none(), st.lists(st.integers(0, tokens), min_size=batch, max_size=batch))),
        tiles=Tiles(rows, draw(st.sampled_from([size for size in (16, 32) if size <= rows]))),
    )


@settings(max_examples=14, deadline=None, derandomize=True)
@given(call=calls(), seed=st.integers(0, 1000))
def test_any_call(call: Call, seed: int) -> None:
    inputs = call.draw(seed)
    check(run(call, *inputs), expect(call, *inputs), TOLERANCES[torch.float32])


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(call=calls(), seed=st.integers(0, 1000))
def test_any_call_at_length(call: Call, seed: int) -> None:
    inputs = call.draw(seed)
    check(run(call, *inputs), expect(call, *inputs), TOLERANCES[torch.float32])


SPECIAL = {
    "not-causal-one-key-head": Call([20, 6, 6], [None, 24, 12], 70, key_heads=1, causal=False, tiles=Tiles(32, 16)),
    "causal-one-key-head": Call([20, 6, 6], [None, 24, 12], 70, key_heads=1, tiles=Tiles(32, 16)),
    "whole-tiles": Call([8] * 4, [None, 64, 32, 16], 96, heads=1, key_heads=1, tiles=Tiles(32, 32)),
    "whole-tiles-not-causal": Call([8] * 4, [None, 64, 32, 16], 96, heads=1, key_heads=1, causal=False),
    "one-token": Call([3, 2], [None, 1], 1),
    "one-query": Call([20, 6], [None, 32], 45, queries=1),
    "no-shared-block": Call([4, 4], [32, 16], 70, heads=1, key_heads=1),
    "no-coarse-level": Call([4, 4], [20, 5], 50, heads=1, key_heads=1, causal=False),
    "blocks-beyond-the-tile": Call([4, 20], [None, 100], 130, heads=1, key_heads=1, causal=False),
    "value-of-80": Call([8, 8], [None, 16], 40, value=80),
    "lengths": Call([8, 8, 4], [None, 32, 16], 60, queries=40, batch=3, lengths=[60, 33, 0], causal=False),
    "lengths-causal": Call([8, 8, 4], [None, 32, 16], 60, batch=3, lengths=[60, 33, 1], tiles=Tiles(32, 16)),
    "levels-of-scale-0": Call([4, 4], [None, 16], 40, scale=[0.0, 0.3]),
    "no-scale": Call([4, 4], [None, 16], 40, scale=0.0),
    "the-tiles-of-the-launcher": Call([20, 6, 6], [None, 24, 12], 90, heads=1, key_heads=1, tiles=None),
}


@pytest.mark.parametrize("call", SPECIAL.values(), ids=SPECIAL.keys())
def test_special_calls(call: Call) -> None:
    inputs = call.draw()
    check(run(call, *inputs), expect(call, *inputs), TOLERANCES[torch.float32])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype) -> None:
    call = Call([20, 6], [None, 16], 50, causal=False, scale=[0.3, 0.1], dtype=dtype)
    inputs = call.draw()
    found = run(call, *inputs)
    assert all(x.dtype == dtype for x in found)
    check(found, expect(call, *inputs), TOLERANCES[dtype])


@pytest.mark.parametrize("causal", [True, False])
def test_scores_of_a_thousand_do_not_overflow(causal: bool) -> None:
    # Keys behind the end have score 0, which is huge beside a row whose scores are all far below.
    call = Call([4, 4], [None, 16], 40, causal=causal, scale=1.0)
    query, key, value, grad = call.draw()
    key = -30 * query.abs()
    query = 30 * query.abs()
    inputs = query, key, value, grad
    expected = expect(call, *inputs)
    # The gradients are as large as the keys.
    check(run(call, *inputs), expected, 1e-4)


def test_strides_of_any_kind() -> None:
    call = Call([6, 3], [None, 8], 20)
    plain = call.draw()
    heads_last = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in plain]
    apart = [x.repeat_interleave(2, dim=-1)[..., ::2] for x in plain]
    expected = expect(call, *plain)
    check(run(call, *heads_last), expected, 1e-5)
    levels = call.ranks, call.blocks
    leaves = [x.requires_grad_() for x in apart[:3]]
    output = mlr_attention(*leaves, *levels, scale=call.scale, backend="triton")
    check([output, *torch.autograd.grad(output, leaves, apart[3])], expected, 1e-5)


def test_the_function_with_this_backend() -> None:
    call = Call([10, 6], [None, 12], 30, batch=2, key_heads=1, lengths=[30, 11])
    inputs = call.draw()
    leaves = [x.requires_grad_() for x in inputs[:3]]
    output = mlr_attention(
        *leaves, call.ranks, call.blocks, scale=call.scale, key_lengths=call.lengths, backend="triton"
    )
    check([output, *torch.autograd.grad(output, leaves, inputs[3])], expect(call, *inputs), 1e-5)


def test_lengths_that_are_no_neighbours() -> None:
    query, key, value, _ = Call([2, 2], [None, 8], 20, batch=3).draw()
    lengths = torch.tensor([20, 1, 11, 2, 5, 3], device=DEVICE)[::2]
    assert not lengths.is_contiguous()
    found, expected = (
        mlr_attention(query, key, value, [2, 2], [None, 8], key_lengths=lengths, backend=backend)
        for backend in ("triton", "reference")
    )
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_second_derivatives() -> None:
    query, key, value, _ = Call([3, 2], [None, 4], 9).draw()
    leaves = [x.requires_grad_() for x in (query, key, value)]
    penalties = []
    for backend in ("triton", "reference"):
        output = mlr_attention(*leaves, [3, 2], [None, 4], backend=backend)
        (first,) = torch.autograd.grad(output.square().sum(), query, create_graph=True)
        penalties.append(torch.autograd.grad(first.square().sum(), leaves))
    for one, other in zip(*penalties, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(0, 2, 5, 4), (1, 0, 5, 4), (1, 2, 0, 4), (1, 2, 5, 0)])
def test_empty_tensors(shape: tuple[int, int, int, int]) -> None:
    batch, heads, tokens, values = shape
    query = torch.randn(batch, heads, tokens, 3, device=DEVICE, requires_grad=True)
    value = torch.randn(batch, heads, tokens, values, device=DEVICE, requires_grad=True)
    output = mlr_attention(query, query, value, [2, 1], [None, 2], backend="triton")
    assert output.shape == (batch, heads, tokens, values)
    grads = torch.autograd.grad(output.sum(), (query, value))
    assert not any(bool(grad.any()) for grad in grads)


def test_the_operator() -> None:
    query, key, value, _ = Call([5, 3], [None, 8], 20, key_heads=1).draw()
    leaves = [x.requires_grad_() for x in (query, key, value)]
    operator = torch.ops.mlbtc.mlr_attention_triton.default
    torch.use_deterministic_algorithms(False)
    torch.library.opcheck(operator, (*leaves, [0.3, 0.2], [5, 3], [32, 8], True, None))
    lengths = torch.tensor([13], device=DEVICE)
    torch.library.opcheck(operator, (*leaves, [0.3, 0.2], [5, 3], [32, 8], False, lengths))


def test_torch_compile() -> None:
    call = Call([5, 3], [None, 8], 20)
    inputs = call.draw()
    leaves = [x.requires_grad_() for x in inputs[:3]]

    def function(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return mlr_attention(query * 1.0, key, value, [5, 3], [None, 8], scale=call.scale, backend="triton")

    torch.use_deterministic_algorithms(False)
    output = torch.compile(function, fullgraph=True, backend="aot_eager")(*leaves)
    check([output, *torch.autograd.grad(output, leaves, inputs[3])], expect(call, *inputs), 1e-5)


@pytest.mark.parametrize(
    ("option", "name"),
    [
        ({"key_mask": torch.ones(1, 6, dtype=torch.bool)}, "no key_mask"),
        ({"alibi": torch.ones(2), "dropout": 0.5}, "no alibi and no dropout"),
    ],
)
def test_options_that_are_refused(option: dict[str, Any], name: str) -> None:
    x = torch.randn(1, 2, 6, 3, device=DEVICE)
    with pytest.raises(BackendError, match=f"{name} in this version; use 'cpp', 'strips' or 'reference'"):
        mlr_attention(x, x, x, [2, 1], [None, 2], backend="triton", **option)


def test_doubles_are_refused() -> None:
    x = torch.randn(1, 2, 6, 3, device=DEVICE, dtype=torch.float64)
    with pytest.raises(BackendError, match=r"there are no Triton kernels for torch.float64; use 'cpp'"):
        mlr_attention(x, x, x, [2, 1], [None, 2], backend="triton")


def test_wide_values_are_refused() -> None:
    x = torch.randn(1, 2, 6, 3, device=DEVICE)
    with pytest.raises(BackendError, match="up to 256 features, found 257"):
        mlr_attention(x, x, torch.randn(1, 2, 6, 257, device=DEVICE), [2, 1], [None, 2], backend="triton")
