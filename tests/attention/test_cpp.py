"""The C++ kernels: shapes that only they take, their source, threads, tracers, and machines without a compiler."""

import ctypes
import ctypes.util
import sys
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import mlbtc
from mlbtc import AttentionSpec
from mlbtc.attention import choose_backend, mlr_attention
from mlbtc.attention.kernels import cpp, native
from mlbtc.attention.kernels.native import Problem, generate_decode, generate_kernels
from mlbtc.errors import BackendError, CodegenError, SpecError
from tests.attention.cases import LAYOUTS, LONG, TOLERANCES, Layout, draw, gradients
from tests.attention.option_cases import EVERY, compare, draw_options
from tests.attention.option_cases import dense as dense_with_options
from tests.attention.oracle import oracle

CAUSAL = pytest.mark.parametrize("causal", [True, False], ids=["causal", "bidirectional"])


def masks(layout: Layout, queries: int, causal: bool) -> list[Tensor]:
    """Return for each level which (query, key) pairs share a block; pairs that are not seen are in none."""
    keys = torch.arange(layout.tokens)
    rows = keys[layout.tokens - queries :]
    seen = rows[:, None] >= keys[None, :] if causal else torch.ones(queries, layout.tokens, dtype=torch.bool)
    sizes = [layout.tokens if block is None else block for block in layout.blocks]
    return [seen, *((rows[:, None] // size == keys[None, :] // size) & seen for size in sizes)]


def dense(inputs: list[Tensor], layout: Layout, causal: bool) -> Tensor:
    """Return the output in float64 from one T x T matrix per level; see `oracle` for short sequences."""
    query, key, value = (x.double() for x in inputs)
    groups = layout.heads // layout.key_heads
    key, value = (x.repeat_interleave(groups, 1) for x in (key, value))
    seen, *levels = masks(layout, query.shape[2], causal)
    scores, start = torch.zeros(*query.shape[:3], layout.tokens, dtype=torch.float64), 0
    for rank, mask in zip(layout.ranks, levels, strict=True):
        own = slice(start, start + rank)
        scores = scores + torch.where(mask, query[..., own] @ key[..., own].mT, 0.0)
        start += rank
    scores = (scores * start**-0.5).masked_fill(~seen, float("-inf"))
    return scores.softmax(-1) @ value


def check(layout: Layout, queries: int, causal: bool, dtype: torch.dtype = torch.float64) -> None:
    inputs = draw(layout, dtype, queries)
    twins = [x.detach().double().requires_grad_() for x in inputs]
    found = mlr_attention(*inputs, layout.ranks, layout.blocks, causal=causal, backend="cpp")
    expected = dense(twins, layout, causal)
    pairs = zip((found, *gradients(found, inputs)), (expected, *gradients(expected, twins)), strict=True)
    for result, wanted in pairs:
        tolerance = TOLERANCES[dtype] * max(1.0, float(wanted.detach().abs().max()))
        torch.testing.assert_close(result.double(), wanted, rtol=0, atol=tolerance)


# Shapes ---------------------------------------------------------------------------------------------------------------


@st.composite
def layouts(draw_: st.DrawFn) -> Layout:
    """Draw long sequences, any divisor chain of blocks, grouped heads, ranks around the width of a vector."""
    blocks: list[int | None] = [draw_(st.integers(1, 140))]
    for factor in draw_(st.lists(st.integers(1, 5), max_size=3)):
        blocks.insert(0, int(blocks[0] or 1) * factor)
    if draw_(st.booleans()):
        blocks[0] = None
    key_heads = draw_(st.integers(1, 2))
    return Layout(
        tokens=draw_(st.integers(1, 420)),
        ranks=[draw_(st.integers(1, 19)) for _ in blocks],
        blocks=blocks,
        value=draw_(st.integers(1, 35)),
        heads=key_heads * draw_(st.integers(1, 3)),
        key_heads=key_heads,
    )


@settings(max_examples=60, deadline=None, derandomize=True)
@given(layout=layouts(), part=st.floats(0, 1), causal=st.booleans(), single=st.booleans())
def test_any_layout_equals_dense_masks(layout: Layout, part: float, causal: bool, single: bool) -> None:
    queries = max(1, round(part * layout.tokens))
    check(layout, queries, causal, torch.float32 if single else torch.float64)


@CAUSAL
@pytest.mark.parametrize("name", ["blocks-of-three-and-six", "first-block-below-sequence", "grouped-heads"])
@pytest.mark.parametrize("queries", [1, 4])
def test_queries_are_the_last_positions(queries: int, name: str, causal: bool) -> None:
    layout = LAYOUTS[name]
    inputs = draw(layout, queries=queries)
    found = mlr_attention(*inputs, layout.ranks, layout.blocks, causal=causal, backend="cpp")
    expected = oracle(*inputs, layout.ranks, layout.blocks, causal)
    for result, wanted in zip(
        (found, *gradients(found, inputs)), (expected, *gradients(expected, inputs)), strict=True
    ):
        torch.testing.assert_close(result, wanted, rtol=1e-10, atol=1e-10)


@CAUSAL
def test_the_paper_s_heads_at_1024_tokens_in_float32(causal: bool) -> None:
    for ranks in ([8] * 8, [32, 8, 6, 4, 4, 4, 4, 2], [40, 16, 4, 4], [64]):
        blocks: list[int | None] = [1024 >> level for level in range(len(ranks))]
        check(Layout(1024, ranks, blocks, value=64, heads=1, key_heads=1), 1024, causal, torch.float32)


def test_scores_far_apart() -> None:
    # Weights below the normal numbers are 0, rows still sum to 1.
    query = torch.tensor([[[[0.0], [1e3]]]])
    key = torch.tensor([[[[0.0], [-1e3]]]])
    value = torch.tensor([[[[1.0], [5.0]]]])
    found = mlr_attention(query, key, value, [1], [None], scale=1.0, backend="cpp")
    assert found.flatten().tolist() == [1.0, 1.0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_visible_and_stays_in_its_rows(bad: float) -> None:
    query, key, value = (x.detach() for x in draw(Layout(200, [3, 2], [None, 50], value=4, heads=1, key_heads=1)))
    query[0, 0, 120, 0] = bad
    found = mlr_attention(query, key, value, [3, 2], [None, 50], backend="cpp")
    assert found[0, 0, 120].isnan().all()
    assert found[0, 0, :120].isfinite().all()
    assert found[0, 0, 121:].isfinite().all()


# Memory and threads ---------------------------------------------------------------------------------------------------


@pytest.fixture
def fresh_memory_is_filled() -> Iterator[None]:
    """Fill what torch allocates with NaN and what C++ allocates with -1.7e38."""
    libc = ctypes.CDLL(None)
    if not sys.platform.startswith("linux") or not hasattr(libc, "mallopt"):
        pytest.skip("mallopt is glibc's")
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    libc.mallopt(-6, 1)  # M_PERTURB: fresh memory is filled with the complement of 1
    yield
    libc.mallopt(-6, 0)
    torch.use_deterministic_algorithms(before)


@CAUSAL
@pytest.mark.parametrize("name", list(LONG))
@pytest.mark.usefixtures("fresh_memory_is_filled")
def test_fresh_memory_is_never_read(name: str, causal: bool) -> None:
    layout = LONG[name]
    check(layout, layout.tokens, causal)
    check(layout, layout.tokens // 3, causal, torch.float32)


@CAUSAL
@pytest.mark.parametrize("kind", [("lengths",), EVERY], ids=str)
@pytest.mark.parametrize("name", ["fine-blocks-of-48", "coarse-below-sequence"])
@pytest.mark.usefixtures("fresh_memory_is_filled")
def test_fresh_memory_is_never_read_with_options(name: str, kind: tuple[str, ...], causal: bool) -> None:
    layout = LONG[name]._replace(batch=2)
    options = draw_options(layout, kind)
    compare(layout, options, lambda x: dense_with_options(x, layout, causal, options), causal=causal, backend="cpp")


@pytest.fixture
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 3], indirect=True)
@pytest.mark.parametrize(("heads", "key_heads"), [(1, 1), (4, 1), (6, 2), (3, 3)])
def test_heads_and_threads_of_any_number(heads: int, key_heads: int, threads: int) -> None:
    check(Layout(331, [3, 2], [None, 100], value=5, heads=heads, key_heads=key_heads), 331, causal=True)


def test_two_calls_give_the_same_bits() -> None:
    layout = LONG["fine-blocks-of-48"]
    inputs = draw(layout, torch.float32)
    calls = []
    for _ in range(3):
        output = mlr_attention(*inputs, layout.ranks, layout.blocks, backend="cpp")
        calls.append([output, *gradients(output, inputs)])
    assert all(torch.equal(x, y) for other in calls[1:] for x, y in zip(calls[0], other, strict=True))


def test_results_lie_token_by_token_where_the_query_does() -> None:
    inputs = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in draw(LAYOUTS["grouped-heads"])]
    found = mlr_attention(*inputs, [2, 2], [None, 4], backend="cpp")
    assert found.transpose(1, 2).is_contiguous()
    for grad, x in zip(torch.autograd.grad(found.sum(), inputs), inputs, strict=True):
        assert grad.stride() == x.stride()


# Tracers and derivatives ----------------------------------------------------------------------------------------------


def test_second_derivatives_go_through_the_reference() -> None:
    query, key, value = (x[:, :, :5].detach().requires_grad_() for x in draw(LAYOUTS["blocks-of-three-and-six"]))

    def call(*inputs: Tensor) -> Tensor:
        return mlr_attention(*inputs, [2, 1, 3], [None, 6, 3], backend="cpp")

    assert torch.autograd.gradcheck(call, (query, key, value))
    assert torch.autograd.gradgradcheck(call, (query, key, value))


def test_the_operators_keep_the_rules_of_torch() -> None:
    query, key, value = draw(LAYOUTS["grouped-heads"])
    arguments = (query, key, value, [0.5, 0.5], [2, 2], [12, 4], True)
    torch.library.opcheck(torch.ops.mlbtc.mlr_attention.default, arguments)


def test_torch_compile_keeps_the_kernel_in_one_graph() -> None:
    inputs = draw(LAYOUTS["grouped-heads"], torch.float32)

    def call(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return mlr_attention(query, key, value, [2, 2], [None, 4], backend="cpp") * 2

    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")(*inputs)
    expected = call(*inputs)
    assert torch.equal(compiled, expected)
    for grad, wanted in zip(gradients(compiled, inputs), gradients(expected, inputs), strict=True):
        assert torch.equal(grad, wanted)


def test_flops_are_those_of_the_report() -> None:
    spec = AttentionSpec.mlr(width=32, heads=2, ranks=(8, 4, 4), context=64)
    report = mlbtc.analyze(spec, batch=64)
    layer = mlbtc.compile(spec)
    with FlopCounterMode(display=False) as counter:
        layer(torch.zeros(1, 64, 32))
    assert counter.get_total_flops() == 2 * int(report.macs)


@pytest.mark.parametrize("queries", [1, 5, 13])
def test_flops_count_the_pairs_of_every_level(queries: int) -> None:
    layout = Layout(13, [3, 2, 1], [None, 6, 3], value=4, heads=4, key_heads=2)
    inputs = draw(layout, queries=queries)
    _, *levels = masks(layout, queries, causal=False)
    scores = 4 * sum(rank * int(mask.sum()) for rank, mask in zip(layout.ranks, levels, strict=True))
    values = 4 * queries * 13 * 4
    with FlopCounterMode(display=False) as counter:
        output = mlr_attention(*inputs, layout.ranks, layout.blocks, backend="cpp")
    assert counter.get_total_flops() == 2 * (scores + values)
    with FlopCounterMode(display=False) as counter:
        torch.autograd.grad(output.sum(), inputs)
    assert counter.get_total_flops() == 2 * (3 * scores + 2 * values)


# Errors and choices ---------------------------------------------------------------------------------------------------


def test_one_dtype() -> None:
    query, key, value = draw(LAYOUTS["prime-tokens"])
    with pytest.raises(SpecError, match="float32"):
        mlr_attention(query.float(), key, value, [3, 2], [None, 4], backend="cpp")


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_built", {})
    monkeypatch.setenv("CXX", "/nowhere/g++")
    inputs = draw(LAYOUTS["prime-tokens"])
    with pytest.raises(BackendError, match=r"no C\+\+ compiler.*'strips'"):
        mlr_attention(*inputs, [3, 2], [None, 4], backend="cpp")
    choice = choose_backend(13, 13, [3, 2], [16, 8])
    assert choice.backend == "expanded"
    assert "no C++ compiler" in choice.reason
    found = mlr_attention(*inputs, [3, 2], [None, 4])
    torch.testing.assert_close(found, oracle(*inputs, [3, 2], [None, 4]), rtol=1e-10, atol=1e-10)


def test_a_build_that_fails_is_tried_once_and_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def fail(dtype: torch.dtype, *_: bool) -> None:
        calls.append(dtype)
        raise CodegenError("the compiler is broken")

    monkeypatch.setattr(native, "_built", {})
    monkeypatch.setattr(native, "kernels", fail)
    for _ in range(2):
        assert "the compiler is broken" in choose_backend(4096, 4096, [48, 16], [4096, 2048]).reason
    assert calls == [torch.float32]


def test_what_is_chosen_on_this_machine() -> None:
    choice = choose_backend(64, 64, [48, 16], [64, 32])
    assert choice.backend == "cpp"
    assert str(choice) == f"cpp: {choice.reason}"
    assert choose_backend(1, 64, [48, 16], [64, 32], dtype=torch.bfloat16).backend == "cpp"
    assert choose_backend(64, 64, [48, 16], [64, 32], device="meta").backend == "expanded"
    assert choose_backend(1, 64, [48, 16], [64, 32], device="meta").backend == "reference"
    assert choose_backend(64, 64, [48, 16], [64, 32], dtype=torch.complex64).backend == "expanded"


def test_layers_run_the_kernel_and_say_so() -> None:
    layer = mlbtc.compile(AttentionSpec.mlr(width=8, heads=2, ranks=(2, 2), context=16))
    assert "cpp" in layer.explain()
    assert "16 tokens" in layer.explain()
    assert "automatic_attention" in layer.source
    assert "mlbtc::" not in layer.source
    x = torch.zeros(1, 5, 8)
    with torch.profiler.profile() as profile:
        layer(x)
    assert "mlbtc::mlr_attention" in {event.key for event in profile.key_averages()}


# The source -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_source_is_the_same_each_time_and_has_no_torch(dtype: torch.dtype) -> None:
    for generate in (generate_kernels, generate_decode):
        source = generate(dtype)
        assert source == generate(dtype)
        assert "#include <torch" not in source
        assert max(map(len, source.splitlines())) <= 120


def test_the_structures_are_those_of_the_source() -> None:
    source = generate_kernels(torch.float32)
    for name in native.VIEWS + native.POINTERS + native.SIZES:
        assert name in source
    assert ctypes.sizeof(Problem) == 8 * (4 * len(native.VIEWS) + len(native.POINTERS) + len(native.SIZES) + 3)


@pytest.mark.slow
@pytest.mark.parametrize("width", [16, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_vectors_of_other_widths(dtype: torch.dtype, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # The compiler splits or fills vectors that the CPU does not have.
    monkeypatch.setattr(native, "vector_bytes", lambda: width)
    library = native.kernels.__wrapped__(dtype)
    monkeypatch.setattr(cpp, "kernels", lambda dtype, *_: library)
    for layout in (LONG["fine-blocks-of-48"], LONG["coarse-below-sequence"], LAYOUTS["grouped-heads"]):
        for causal in (True, False):
            check(layout, layout.tokens, causal, dtype)
