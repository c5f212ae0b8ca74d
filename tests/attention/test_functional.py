"""`mlr_attention` against loops over pairs, on every backend."""

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.functional import scaled_dot_product_attention

from mlbtc.attention import BACKENDS, mlr_attention
from mlbtc.errors import BackendError
from tests.attention.cases import KERNELS, LAYOUTS, LONG, TOLERANCES, Layout, dense, draw, gradients
from tests.attention.oracle import depth, oracle

CAUSAL = pytest.mark.parametrize("causal", [True, False], ids=["causal", "bidirectional"])
BACKEND = pytest.mark.parametrize("backend", KERNELS)
ON_CPUS = [name for name in BACKENDS if name != "triton"]


def close(found: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    tolerance = TOLERANCES[dtype]
    assert found.shape == expected.shape
    torch.testing.assert_close(found.double(), expected.double(), rtol=tolerance, atol=tolerance)


def check(layout: Layout, backend: str, causal: bool, dtype: torch.dtype = torch.float64, scale: Any = None) -> None:
    inputs = draw(layout, dtype)
    twins = [x.detach().double().requires_grad_() for x in inputs]
    found = mlr_attention(*inputs, layout.ranks, layout.blocks, causal=causal, backend=backend, scale=scale)
    expected = oracle(*twins, layout.ranks, layout.blocks, causal, scale)
    assert found.dtype == dtype
    close(found, expected, dtype)
    for grad, wanted in zip(gradients(found, inputs), gradients(expected, twins), strict=True):
        assert grad.dtype == dtype
        close(grad, wanted, dtype)


# The oracle itself, by hand


def test_depth_counts_leading_levels_only() -> None:
    assert depth(0, 3, [None, 4, 2]) == 2
    assert depth(3, 4, [None, 4, 2]) == 1
    assert depth(3, 4, [4, 2]) == 0
    assert depth(5, 5, [None, 4, 1]) == 3


def test_the_oracle_on_two_tokens_in_two_blocks() -> None:
    # Scores of row 1: level 1 gives 2*3, level 2 is on the diagonal only, 1*5 for its own key.
    query = torch.tensor([[[[1.0, 1.0], [2.0, 1.0]]]])
    key = torch.tensor([[[[3.0, 7.0], [0.0, 5.0]]]])
    value = torch.tensor([[[[1.0], [2.0]]]])
    weights = torch.softmax(torch.tensor([6.0, 5.0], dtype=torch.float64), 0)
    expected = torch.stack([torch.tensor(1.0, dtype=torch.float64), weights[0] + 2 * weights[1]])
    found = oracle(query, key, value, [1, 1], [None, 1], scale=1.0)
    torch.testing.assert_close(found.flatten(), expected)


# Forward and every gradient


@CAUSAL
@BACKEND
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_equals_the_definition(layout: Layout, backend: str, causal: bool) -> None:
    check(layout, backend, causal)


@CAUSAL
@pytest.mark.parametrize("backend", ["cpp", "strips", "expanded"])
@pytest.mark.parametrize("layout", LONG.values(), ids=LONG.keys())
def test_long_sequences_equal_dense_masks(layout: Layout, backend: str, causal: bool) -> None:
    query, key, value = inputs = draw(layout)
    found = mlr_attention(*inputs, layout.ranks, layout.blocks, causal=causal, backend=backend)
    expected = dense(query, key, layout.ranks, layout.blocks, causal) @ value
    close(found, expected, torch.float64)
    for grad, wanted in zip(gradients(found, inputs), gradients(expected, inputs), strict=True):
        close(grad, wanted, torch.float64)


def test_dense_masks_equal_the_definition() -> None:
    layout = LAYOUTS["five-levels-of-odd-sizes"]
    query, key, value = draw(layout)
    for causal in (True, False):
        expected = oracle(query, key, value, layout.ranks, layout.blocks, causal)
        close(dense(query, key, layout.ranks, layout.blocks, causal) @ value, expected, torch.float64)


@CAUSAL
@BACKEND
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["blocks-of-three-and-six", "grouped-heads", "one-level"])
def test_other_dtypes(name: str, dtype: torch.dtype, backend: str, causal: bool) -> None:
    check(LAYOUTS[name], backend, causal, dtype)


@BACKEND
@pytest.mark.parametrize("scale", [1.0, 0.3, -0.7, 0.0, 2, [0.5, -0.25, 3.0], [0.0, 1.0, 0.0]], ids=str)
def test_scales(scale: Any, backend: str) -> None:
    check(LAYOUTS["blocks-of-three-and-six"], backend, causal=True, scale=scale)


@st.composite
def layouts(draw_: st.DrawFn) -> Layout:
    """Draw nested block sizes from the finest up, so that any divisor chain can occur."""
    levels = draw_(st.integers(1, 4))
    blocks: list[int | None] = [draw_(st.integers(1, 9))]
    for _ in range(levels - 1):
        blocks.insert(0, int(blocks[0] or 1) * draw_(st.integers(1, 4)))
    if draw_(st.booleans()):
        blocks[0] = None
    key_heads, groups = draw_(st.integers(1, 2)), draw_(st.integers(1, 2))
    return Layout(
        tokens=draw_(st.integers(1, 11)),
        ranks=draw_(st.lists(st.integers(1, 3), min_size=levels, max_size=levels)),
        blocks=blocks,
        value=draw_(st.integers(1, 4)),
        heads=key_heads * groups,
        key_heads=key_heads,
    )


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(layout=layouts(), causal=st.booleans(), backend=st.sampled_from([*KERNELS, "auto"]))
def test_any_layout_equals_the_definition(layout: Layout, causal: bool, backend: str) -> None:
    check(layout, backend, causal)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    tokens=st.integers(129, 420), fine=st.integers(1, 140), factors=st.lists(st.integers(1, 5), max_size=3),
    whole=st.booleans(), causal=st.booleans(),
)  # fmt: skip
def test_any_long_layout_equals_dense_masks(
    tokens: int, fine: int, factors: list[int], whole: bool, causal: bool
) -> None:
    blocks: list[int | None] = [fine]
    for factor in factors:
        blocks.insert(0, int(blocks[0] or 1) * factor)
    if whole:
        blocks[0] = None
    layout = Layout(tokens, [1 + level % 2 for level in range(len(blocks))], blocks, value=2, heads=1, key_heads=1)
    query, key, value = inputs = draw(layout)
    found = mlr_attention(*inputs, layout.ranks, blocks, causal=causal, backend="strips")
    expected = dense(query, key, layout.ranks, blocks, causal) @ value
    close(found, expected, torch.float64)
    for grad, wanted in zip(gradients(found, inputs), gradients(expected, inputs), strict=True):
        close(grad, wanted, torch.float64)


@CAUSAL
@pytest.mark.parametrize("name", ["blocks-of-three-and-six", "first-block-below-sequence", "grouped-heads"])
@pytest.mark.parametrize("backend", ["reference", "auto"])
@pytest.mark.parametrize("queries", [0, 1, 4])
def test_queries_are_the_last_positions(queries: int, backend: str, name: str, causal: bool) -> None:
    layout = LAYOUTS[name]
    inputs = draw(layout, queries=queries)
    found = mlr_attention(*inputs, layout.ranks, layout.blocks, causal=causal, backend=backend)
    expected = oracle(*inputs, layout.ranks, layout.blocks, causal)
    close(found, expected, torch.float64)
    if queries:
        for grad, wanted in zip(gradients(found, inputs), gradients(expected, inputs), strict=True):
            close(grad, wanted, torch.float64)


@CAUSAL
@pytest.mark.parametrize("name", ["one-token", "blocks-of-three-and-six", "first-block-below-sequence"])
def test_gradcheck_of_the_strips(name: str, causal: bool) -> None:
    layout = LAYOUTS[name]

    def call(*inputs: Tensor) -> Tensor:
        return mlr_attention(*inputs, layout.ranks, layout.blocks, causal=causal, backend="strips")

    assert torch.autograd.gradcheck(call, tuple(draw(layout)))


def test_the_reference_is_differentiable_twice() -> None:
    layout = LAYOUTS["one-level-block-below-sequence"]

    def call(*inputs: Tensor) -> Tensor:
        return mlr_attention(*inputs, layout.ranks, layout.blocks, backend="reference")

    assert torch.autograd.gradgradcheck(call, tuple(x[:, :, :4].detach().requires_grad_() for x in draw(layout)))


@pytest.mark.parametrize(
    "backend",
    [
        "cpp",
        "expanded",
        "reference",
        "strips",
    ],
)
def test_a_second_derivative_is_right_or_refused(backend: str) -> None:
    layout = LAYOUTS["blocks-of-three-and-six"]

    def penalty(how: str) -> Tensor:
        query, key, value = draw(layout)
        output = mlr_attention(query, key, value, layout.ranks, layout.blocks, backend=how)
        (grad,) = torch.autograd.grad(output.sum(), query, create_graph=True)
        (second,) = torch.autograd.grad(grad.square().sum() + output.sum(), key)
        return second

    expected = penalty("reference")
    try:
        found = penalty(backend)
    except RuntimeError:
        return
    close(found, expected, torch.float64)


# Special cases that have a name elsewhere


@CAUSAL
@pytest.mark.parametrize("backend", ON_CPUS)
@pytest.mark.parametrize("scale", [None, 0.2])
@pytest.mark.parametrize("tokens", [1, 7, 130])
def test_one_level_is_scaled_dot_product_attention(
    tokens: int, scale: float | None, backend: str, causal: bool
) -> None:
    inputs = draw(Layout(tokens, [5], [None], value=4))
    expected = scaled_dot_product_attention(*inputs, is_causal=causal, scale=scale)
    found = mlr_attention(*inputs, [5], [None], causal=causal, scale=scale, backend=backend)
    close(found, expected, torch.float64)
    for grad, wanted in zip(gradients(found, inputs), gradients(expected, inputs), strict=True):
        close(grad, wanted, torch.float64)


@BACKEND
def test_levels_over_the_whole_sequence_are_one_level(backend: str) -> None:
    inputs = draw(Layout(9, [2, 3], [None, 9]))
    found = mlr_attention(*inputs, [2, 3], [None, 9], backend=backend)
    close(found, scaled_dot_product_attention(*inputs, is_causal=True), torch.float64)


@BACKEND
def test_pairs_without_a_common_block_have_score_0(backend: str) -> None:
    # Blocks of one token and a zero scale: every score is 0, so row i is the mean of the values up to i.
    query, key, value = draw(Layout(6, [2], [1]))
    found = mlr_attention(query, key, value, [2], [1], scale=0.0, backend=backend)
    means = value.cumsum(2) / torch.arange(1, 7, dtype=torch.float64)[:, None]
    close(found, means, torch.float64)


@BACKEND
@pytest.mark.parametrize("changed", [0, 5, 6, 11])
def test_causal_outputs_do_not_see_later_tokens(changed: int, backend: str) -> None:
    layout = Layout(12, [2, 1], [None, 6])
    first, second = (draw(layout, seed=0) for _ in range(2))
    before = mlr_attention(*first, layout.ranks, layout.blocks, backend=backend)
    with torch.no_grad():
        for tensor in second:
            tensor[:, :, changed] += 10
    after = mlr_attention(*second, layout.ranks, layout.blocks, backend=backend)
    torch.testing.assert_close(before[:, :, :changed], after[:, :, :changed], rtol=0, atol=1e-14)
    assert not torch.allclose(before[:, :, changed], after[:, :, changed])


# Tensors that are not plain


def strided(x: Tensor, how: str) -> Tensor:
    """Return a tensor with the same values in another memory layout."""
    match how:
        case "transposed":
            return x.transpose(1, 2).contiguous().transpose(1, 2)
        case "sliced":
            return torch.stack([x, x + 1], dim=-1).flatten(-2)[..., ::2]
        case "reversed features":
            return x.mT.contiguous().mT
        case _:
            return torch.cat([x, x], dim=-1)[..., : x.shape[-1]]


@BACKEND
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("how", ["transposed", "sliced", "reversed features", "prefix"])
def test_memory_layouts(how: str, batch: int, backend: str) -> None:
    layout = LAYOUTS["blocks-of-three-and-six"]._replace(batch=batch)
    inputs = draw(layout)
    plain = mlr_attention(*inputs, layout.ranks, layout.blocks, backend=backend)
    found = mlr_attention(*(strided(x, how) for x in inputs), layout.ranks, layout.blocks, backend=backend)
    close(found, plain, torch.float64)
    for grad, wanted in zip(gradients(found, inputs), gradients(plain, inputs), strict=True):
        close(grad, wanted, torch.float64)


@BACKEND
def test_expanded_inputs_and_gradients(backend: str) -> None:
    layout = LAYOUTS["prime-tokens"]
    single = [x[:, :1] for x in draw(layout)]
    found = mlr_attention(*(x.expand(3, 2, -1, -1) for x in single), layout.ranks, layout.blocks, backend=backend)
    expected = oracle(*single, layout.ranks, layout.blocks).expand(3, 2, -1, -1)
    close(found, expected, torch.float64)
    inputs = draw(layout)
    # The gradient of a sum is an expanded scalar.
    grads = torch.autograd.grad(mlr_attention(*inputs, layout.ranks, layout.blocks, backend=backend).sum(), inputs)
    wanted = torch.autograd.grad(oracle(*inputs, layout.ranks, layout.blocks).sum(), inputs)
    for grad, want in zip(grads, wanted, strict=True):
        close(grad, want, torch.float64)


EMPTY = {
    "no-batch": Layout(5, [2, 1], [None, 2], batch=0),
    "no-tokens": Layout(0, [2, 1], [None, 2]),
    "no-values": Layout(5, [2, 1], [None, 2], value=0),
    "nothing": Layout(0, [2, 1], [None, 2], batch=0),
}


@pytest.mark.parametrize("backend", ON_CPUS)
@pytest.mark.parametrize("layout", EMPTY.values(), ids=EMPTY.keys())
def test_empty_tensors(layout: Layout, backend: str) -> None:
    inputs = draw(layout)
    found = mlr_attention(*inputs, layout.ranks, layout.blocks, backend=backend)
    assert found.shape == (layout.batch, layout.heads, layout.tokens, layout.value)
    grads = torch.autograd.grad(found.sum(), inputs, allow_unused=True)
    assert all(grad is None or torch.equal(grad, torch.zeros_like(x)) for grad, x in zip(grads, inputs, strict=True))


@pytest.mark.parametrize("layout", EMPTY.values(), ids=EMPTY.keys())
def test_empty_tensors_stay_in_the_graph_of_the_strips(layout: Layout) -> None:
    inputs = draw(layout)
    found = mlr_attention(*inputs, layout.ranks, layout.blocks, backend="strips")
    assert all(grad is not None for grad in torch.autograd.grad(found.sum(), inputs, allow_unused=True))


@pytest.mark.parametrize(
    "backend",
    [
        "auto",
        "reference",
        "strips",
    ],
)
def test_no_query_heads(backend: str) -> None:
    query, key, value = draw(Layout(5, [2, 1], [None, 2], heads=0, key_heads=1))
    assert mlr_attention(query, key, value, [2, 1], [None, 2], backend=backend).shape == (1, 0, 5, 3)


@BACKEND
@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (0, 2), (1, 2)], ids=str)
def test_gradients_of_some_inputs_only(wanted: tuple[int, ...], backend: str) -> None:
    layout = LAYOUTS["blocks-of-three-and-six"]
    inputs = draw(layout)
    some = [x if number in wanted else x.detach() for number, x in enumerate(inputs)]
    found = mlr_attention(*some, layout.ranks, layout.blocks, backend=backend)
    expected = oracle(*inputs, layout.ranks, layout.blocks)
    needed = [inputs[number] for number in wanted]
    for grad, want in zip(gradients(found, needed), gradients(expected, needed), strict=True):
        close(grad, want, torch.float64)


@pytest.mark.parametrize("backend", ON_CPUS)
def test_without_gradients(backend: str) -> None:
    layout = LAYOUTS["grouped-heads"]
    inputs = draw(layout)
    with torch.no_grad():
        found = mlr_attention(*inputs, layout.ranks, layout.blocks, backend=backend)
    assert not found.requires_grad
    with torch.inference_mode():
        also = mlr_attention(*inputs, layout.ranks, layout.blocks, backend=backend)
    close(found, oracle(*inputs, layout.ranks, layout.blocks), torch.float64)
    assert torch.equal(found, also)


@BACKEND
def test_inputs_are_left_alone(backend: str) -> None:
    layout = LONG["fine-blocks-of-48"]
    inputs = draw(layout)
    copies = [x.detach().clone() for x in inputs]
    gradients(mlr_attention(*inputs, layout.ranks, layout.blocks, backend=backend), inputs)
    assert all(torch.equal(x, copy) for x, copy in zip(inputs, copies, strict=True))


@pytest.mark.parametrize("backend", ON_CPUS)
@pytest.mark.parametrize("inside", [True, False], ids=["backward-inside", "backward-outside"])
def test_under_autocast(inside: bool, backend: str) -> None:
    layout = LAYOUTS["blocks-of-three-and-six"]
    inputs = draw(layout, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = mlr_attention(*inputs, layout.ranks, layout.blocks, backend=backend)
        grads = gradients(found, inputs) if inside else []
    grads = grads or gradients(found, inputs)
    expected = oracle(*inputs, layout.ranks, layout.blocks)
    close(found, expected, torch.bfloat16)
    for grad, want in zip(grads, gradients(expected, inputs), strict=True):
        assert grad.dtype == torch.float32
        torch.testing.assert_close(grad.double(), want.double(), rtol=5e-2, atol=5e-2)


@pytest.mark.parametrize("name", list(LONG))
def test_two_calls_give_the_same_bits(name: str) -> None:
    layout = LONG[name]
    inputs = draw(layout, torch.float32)
    first, second = (mlr_attention(*inputs, layout.ranks, layout.blocks, backend="strips") for _ in range(2))
    assert torch.equal(first, second)


@BACKEND
def test_large_scores_do_not_overflow(backend: str) -> None:
    layout = LAYOUTS["prime-tokens"]
    inputs = [x.detach() * 100 for x in draw(layout, torch.float32)]
    found = mlr_attention(*inputs, layout.ranks, layout.blocks, backend=backend)
    assert found.isfinite().all()
    expected = oracle(*inputs, layout.ranks, layout.blocks)
    torch.testing.assert_close(found.double(), expected, rtol=1e-2, atol=1e-2)


# Transforms -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_forward_mode_is_that_of_the_definition(backend: str) -> None:
    layout = LAYOUTS["one-level-block-below-sequence"]
    inputs = [x.detach() for x in draw(layout)]
    directions = [torch.randn_like(x) for x in inputs]

    def call(*moved: Tensor) -> Tensor:
        return mlr_attention(*moved, layout.ranks, layout.blocks, backend=backend)

    step = 1e-6
    ahead, behind = ([x + s * d for x, d in zip(inputs, directions, strict=True)] for s in (step, -step))
    expected = (call(*ahead) - call(*behind)) / (2 * step)
    _, tangent = torch.func.jvp(call, tuple(inputs), tuple(directions))
    torch.testing.assert_close(tangent, expected, rtol=1e-6, atol=1e-6)
    with forward_ad.dual_level():
        output = call(*map(forward_ad.make_dual, inputs, directions))
        torch.testing.assert_close(forward_ad.unpack_dual(output).tangent, tangent)


def test_transforms_of_torch_func_compose() -> None:
    layout = LAYOUTS["one-level-block-below-sequence"]
    query, key, value = (x.detach() for x in draw(layout))

    def loss(query: Tensor) -> Tensor:
        return mlr_attention(query, key, value, layout.ranks, layout.blocks).square().sum()

    queries = torch.stack([query, 2 * query])
    for found, own in zip(torch.func.vmap(torch.func.grad(loss))(queries), queries, strict=True):
        leaf = own.clone().requires_grad_()
        torch.testing.assert_close(found, *torch.autograd.grad(loss(leaf), leaf))


@pytest.mark.parametrize("backend", ["cpp", "strips"])
def test_kernels_that_a_transform_cannot_look_into_say_so(backend: str) -> None:
    query = torch.randn(1, 1, 4, 3)

    def call(query: Tensor) -> Tensor:
        return mlr_attention(query, query, query, [2, 1], [None, 2], backend=backend)

    with pytest.raises(BackendError, match=r"forward-mode.*'reference'"):
        torch.func.jvp(call, (query,), (query,))
    with pytest.raises(BackendError, match=r"torch\.func.*'reference'"):
        torch.func.vmap(call)(query[None])
